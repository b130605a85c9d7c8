"""Texts in the Trainer: token ids, and what an embedding makes of them."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from messages import one_line
from plain_loop import CLASSES, make_samples
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForSequenceClassification,
)
from transformers_trainers import (
    LR,
    RESNET,
    Anything,
    Sample,
    Samples,
    build,
    make_trainer,
)

import batchmix as bm
from batchmix.adapters.transformers import mixup

AGE = torch.rand(8)

BERT = BertConfig(
    vocab_size=10,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=8,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    num_labels=CLASSES,
)


def bert() -> BertForSequenceClassification:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertForSequenceClassification(copy.deepcopy(BERT))


def test_embeddings_are_mixed_and_their_attention_masks_united(tmp_path: Path) -> None:
    model = bert()
    seen: list[Sample] = []
    model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    _, y = make_samples(8, 1)
    embeds = torch.rand(8, 5, 8, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(5) <= torch.arange(8).view(-1, 1)).long()
    data = Samples(inputs_embeds=embeds, attention_mask=mask, labels=y)
    options = {"eval_strategy": "no", "num_train_epochs": 1}
    mixup(make_trainer(model, tmp_path, data=data, arguments=options), bm.Mixup(0.4, seed=5)).train()
    plan = bm.Mixup(0.4, seed=5).plan(embeds)
    assert torch.equal(seen[0]["inputs_embeds"], bm.blend(embeds, plan))
    assert torch.equal(seen[0]["attention_mask"], mask | mask[plan.partner] * (plan.lam < 1).view(-1, 1))
    assert torch.equal(seen[0]["labels"].lam, plan.lam)


def test_token_ids_are_refused_with_what_to_do(tmp_path: Path) -> None:
    data = Samples(input_ids=torch.ones(8, 5, dtype=torch.int64), labels=torch.ones(8, dtype=torch.int64))
    trainer = make_trainer(bert(), tmp_path, data=data, arguments={"eval_strategy": "no"})
    with pytest.raises(bm.MixError) as raised:
        mixup(trainer).train()
    assert one_line(raised) == (
        "inputs takes floating point tensors, such as inputs_embeds in place of the token ids, "
        "which embed=True makes of them, or ids where the mixer is a bm.TokenCutMix, "
        "got 'input_ids', int64 tensor (8, 5)"
    )


def test_token_cutmix_pastes_token_ids_with_what_stands_beside_them(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 10, (8, 5), generator=generator)
    used = (torch.arange(5) < torch.tensor([5, 4, 3, 5, 2, 4, 5, 3])[:, None]).long()
    x = {"input_ids": ids * used, "token_type_ids": ids % 2 * used, "attention_mask": used}
    y = torch.arange(8) % 2
    data = Samples(**x, labels=y)
    trainer = make_trainer(bert(), tmp_path, data=data, arguments={"eval_strategy": "no"})
    mixer = bm.TokenCutMix(special=[0], seed=1)
    mixup(trainer, mixer)
    mixed = trainer.training_step.mix({**x, "labels": y})
    wanted, target = bm.TokenCutMix(special=[0], seed=1)(x, y)
    assert all(torch.equal(mixed[key], wanted[key]) for key in x)
    assert not torch.equal(mixed["token_type_ids"], x["token_type_ids"])
    assert torch.equal(mixed["labels"].lam, target.lam)
    trainer.train()
    assert mixer.step > 1


def texts(count: int = 16) -> Samples:
    generator = torch.Generator().manual_seed(0)
    used = (torch.arange(5) <= torch.arange(count).view(-1, 1) % 5).long()
    ids = torch.randint(1, 10, (count, 5), generator=generator) * used
    return Samples(
        input_ids=ids, token_type_ids=ids % 2, attention_mask=used, labels=make_samples(count, 1)[1]
    )


def test_embeddings_of_ids_are_mixed_as_in_a_plain_loop(tmp_path: Path) -> None:
    model, data, options = bert(), texts(), {"eval_strategy": "no"}
    trainer = make_trainer(bert(), tmp_path, data=data, arguments=options)
    mixup(trainer, 0.4, seed=5, embed=True).train()
    mixer, losses = bm.Mixup(0.4, seed=5), []
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for _ in range(2):
        for batch in data.batches():
            x = {
                "inputs_embeds": model.get_input_embeddings()(batch["input_ids"]),
                "attention_mask": batch["attention_mask"],
            }
            x, y = mixer(x, batch["labels"])
            loss = F.cross_entropy(model(**x, token_type_ids=batch["token_type_ids"]).logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert trainer.losses.train == pytest.approx(losses, rel=1e-6)
    weight = trainer.model.get_input_embeddings().weight
    torch.testing.assert_close(weight, model.get_input_embeddings().weight, rtol=1e-5, atol=1e-7)
    start = bert().get_input_embeddings().weight
    moved = (weight != start).any(1)
    assert moved[data.columns["input_ids"].unique()[1:]].all()
    assert not moved[0]  # of padding, which the layer keeps at 0


def test_embeddings_in_bfloat16_are_those_that_the_model_makes(tmp_path: Path) -> None:
    options = {"eval_strategy": "no"}
    whole = make_trainer(bert(), tmp_path, data=texts(), arguments=options)
    mixup(whole, 0.4, seed=5, embed=True).train()
    half = make_trainer(bert(), tmp_path, data=texts(), arguments=options | {"bf16": True})
    mixup(half, 0.4, seed=5, embed=True).train()
    assert half.losses.train == pytest.approx(whole.losses.train, rel=2e-2)
    batch = half.training_step.mix(texts().batches()[0])
    assert batch["inputs_embeds"].dtype == torch.float32
    unmixed = make_trainer(bert(), tmp_path, data=texts(), arguments=options | {"bf16": True})
    mixup(unmixed, 0.4, p=0.0, embed=True).train()
    plain = make_trainer(bert(), tmp_path, data=texts(), arguments=options | {"bf16": True})
    plain.train()
    assert unmixed.losses.train == pytest.approx(plain.losses.train, rel=1e-4)


def test_embedding_leaves_evaluation_and_the_ids_of_the_batch_as_they_are(tmp_path: Path) -> None:
    trainer = make_trainer(bert(), tmp_path, data=texts(), eval_dataset=texts(8))
    step = mixup(trainer, 0.4, embed=True).training_step
    trainer.train()
    assert len(trainer.losses.evaluation) == 2
    batch = texts().batches()[0]
    mixed = step.mix(batch)
    assert "input_ids" in batch
    assert "input_ids" not in mixed
    assert mixed["token_type_ids"] is batch["token_type_ids"]
    for inputs in ("input_ids", "inputs_embeds"):
        step = mixup(trainer, 0.4, embed=True, inputs=[inputs, "age"]).training_step
        assert step.mix({**batch, "age": AGE})["age"] is not AGE
    with pytest.raises(bm.MixError, match=r"inputs=\['inputs_embeds', 'age'\], or kinds="):
        mixup(trainer, 0.4, embed=True).training_step.mix({**batch, "age": AGE})


class Sharded(nn.Embedding):
    """An embedding as ZeRO-3 leaves it between forward passes."""

    def __init__(self) -> None:
        super().__init__(10, 8)
        self.weight.ds_id = 0


def test_what_cannot_be_embedded_is_named(tmp_path: Path) -> None:
    batch = texts().batches()[0]
    trainer = make_trainer(bert(), tmp_path, data=texts())
    inner = bm.Choice({bm.Mixup(): 0.5, bm.CutMix(): 0.5})
    for mixer in (bm.TokenCutMix(), bm.SmoothMix(), inner, bm.Choice({inner: 1.0}), bm.EnergyMixup()):
        with pytest.raises(bm.MixError, match=r"^mixer takes one of any samples, .* beside embed=True, got "):
            mixup(trainer, mixer, embed=True)
    assert mixup(make_trainer(bert(), tmp_path), bm.Choice({bm.Mixup(): 1.0}), embed=True)
    with pytest.raises(bm.MixError, match=r"^embed takes True or False, got 1$"):
        mixup(trainer, embed=1)
    assert "training_step" not in vars(trainer)
    step = mixup(trainer, embed=True).training_step
    with pytest.raises(bm.MixError, match=r"^embed takes batches that have 'input_ids', got labels$"):
        step.mix({"labels": batch["labels"]})
    trainer.model.set_input_embeddings(Sharded())
    with pytest.raises(
        bm.MixError, match=r"^embed takes parameters that are whole .*, got the sharded ones of"
    ):
        step.mix(batch)
    trainer.is_fsdp_enabled = True
    trainer.model = bert()
    with pytest.raises(bm.MixError, match=r"^embed takes parameters that are whole in each process"):
        step.mix(batch)
    for model in (Anything(), build(RESNET)):
        step = mixup(make_trainer(model, tmp_path), embed=True).training_step
        with pytest.raises(
            bm.MixError, match=r"^embed takes a model that has get_input_embeddings and takes"
        ):
            step.mix(batch)
