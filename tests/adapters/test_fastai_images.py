"""The fastai adapter with images and categories as fastai makes them: predictions, exports, pictures."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fastai.data.transforms import MultiCategory
from fastai.interpret import ClassificationInterpretation, Interpretation
from fastai.learner import load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.vision.all import PILImage, imagenet_stats
from fastai_learners import Interrupt, X, Y, batches, image_learner, learner
from torch import Tensor, nn
from torch.nn import functional as F

import batchmix as bm
from batchmix.adapters.fastai import MixUpCallback, MixUpLoss, _title

pytestmark = [
    pytest.mark.filterwarnings("ignore:load_learner` uses Python's insecure pickle"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept"),  # by show_image
]


def test_fastai_3180_and_1136_predict_interpret_and_pickle(tmp_path: Path) -> None:
    learn = image_learner(tmp_path, metrics=accuracy).mixup(seed=5)
    learn.fit(1)
    item = PILImage.create((X[0] * 255).byte().permute(1, 2, 0).numpy())
    name, index, probabilities = learn.predict(item)
    assert name == ["cat", "dog"][int(index)]
    assert float(probabilities.sum()) == pytest.approx(1)
    interpretation = Interpretation.from_learner(learn)
    losses, _ = interpretation.top_losses(3)
    assert len(losses) == 3
    assert ClassificationInterpretation.from_learner(learn).confusion_matrix().sum() == 8
    again = pickle.loads(pickle.dumps(learn.mix_up.mixer))
    assert again.state_dict() == learn.mix_up.mixer.state_dict()


def functional(output: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(output, target, reduction=reduction)


@pytest.mark.parametrize("loss", [CrossEntropyLossFlat(), nn.CrossEntropyLoss(), functional])
def test_a_wrapped_loss_predicts_and_interprets_as_the_loss_itself(loss: Any, tmp_path: Path) -> None:
    """fastai reads activation, decoding and reduction of a loss, which a wrapper must not hide."""
    item = PILImage.create((X[0] * 255).byte().permute(1, 2, 0).numpy())
    wrapped = image_learner(tmp_path, loss_func=MixUpLoss(loss)).mixup(seed=5)
    wrapped.fit(1)
    wanted = image_learner(tmp_path, loss_func=loss)
    wanted.model.load_state_dict(wrapped.model.state_dict())
    for got, plain in zip(wrapped.predict(item), wanted.predict(item), strict=True):
        assert str(got) == str(plain)
    losses = (Interpretation.from_learner(learn).top_losses(8)[0] for learn in (wrapped, wanted))
    torch.testing.assert_close(*losses)
    assert getattr(loss, "reduction", "mean") == "mean"
    wrapped.export("wrapped.pkl")
    assert str(load_learner(tmp_path / "wrapped.pkl").predict(item)) == str(wanted.predict(item))


def test_a_wrapped_loss_takes_the_weights_of_fastais_losses_to_a_device() -> None:
    loss = MixUpLoss(CrossEntropyLossFlat(weight=torch.ones(4))).to("meta")
    assert loss.loss_fn.func.weight.device.type == "meta"


@pytest.mark.parametrize("keep", [True, False])
def test_an_exported_learner_predicts_unmixed(keep: bool, tmp_path: Path) -> None:
    learn = image_learner(tmp_path).mixup(seed=5, schedule=lambda step: 1.0)
    learn.fit(1)
    item = PILImage.create((X[0] * 255).byte().permute(1, 2, 0).numpy())
    wanted = learn.predict(item)[2]
    if not keep:
        learn.remove_cb(MixUpCallback)
    learn.export("model.pkl")
    loaded = load_learner(tmp_path / "model.pkl")
    assert any(isinstance(cb, MixUpCallback) for cb in loaded.cbs) is keep
    assert (b"batchmix.adapters" in (tmp_path / "model.pkl").read_bytes()) is keep
    torch.testing.assert_close(loaded.predict(item)[2], wanted)
    learn.fit(1)  # and training goes on


def test_a_learner_stopped_between_mixing_and_loss_is_exported(tmp_path: Path) -> None:
    learn = image_learner(tmp_path).mixup(seed=5)
    with pytest.raises(KeyboardInterrupt):
        learn.fit(1, cbs=Interrupt("after_pred", KeyboardInterrupt()))
    assert learn.mix_up.order == -9
    learn.export("stopped.pkl")
    loaded = load_learner(tmp_path / "stopped.pkl")
    assert loaded.mix_up.order == 9.5
    assert loaded.mix_up._targets == ()
    assert loaded.mix_up.mixer.state_dict() == {"seed": 5, "step": 2}
    learn.fit(1)
    assert learn.mix_up.order == 9.5


def test_fastais_views_of_a_learner_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learn = image_learner(tmp_path).mixup()
    learn.show_training_loop()
    assert "MixUpCallback" in capsys.readouterr().out
    assert "Trainable" in str(learn.summary())
    learn.fit(1)
    step = learn.mix_up.mixer.step
    learn.show_results(max_n=2)
    learn.dls.show_batch(max_n=2)
    plt.close("all")
    assert learn.mix_up.mixer.step == step


def texts(figure: Any) -> list[str]:
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def test_a_mixed_batch_is_drawn_as_the_next_step_mixes_it(tmp_path: Path) -> None:
    learn = image_learner(tmp_path).mixup(seed=5)
    learn.dls.train.shuffle = False
    learn.mix_up.show_batch(max_n=4)
    figure = plt.gcf()
    x, y = learn.dls.train.one_batch()
    mixed, target = bm.Mixup(0.4, seed=5)(x.as_subclass(Tensor), y.as_subclass(Tensor))
    names = ["cat", "dog"]
    wanted = [f"{w:.2f} {names[a]} + {1 - w:.2f} {names[b]}" for a, b, w in zip(*target, strict=True)]
    assert texts(figure) == wanted[:4]
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in imagenet_stats)
    drawn = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(
        np.asarray(drawn) / 255, (mixed[0] * std + mean).permute(1, 2, 0), atol=1 / 255
    )
    assert learn.mix_up.mixer.step == 0
    plt.close("all")


def test_batches_of_plain_tensors_are_drawn_too() -> None:
    learn = learner().mixup(seed=5)
    learn.mix_up.show_batch(max_n=5, figsize=(4, 2))
    _, target = bm.Mixup(0.4, seed=5)(X[:8], Y[:8])
    w, a, b = float(target.lam[0]), int(target.a[0]), int(target.b[0])
    assert len(texts(plt.gcf())) == 5
    assert not any(axis.axison for axis in plt.gcf().axes)
    assert texts(plt.gcf())[0] == f"{w:.2f} {a} + {1 - w:.2f} {b}"
    plt.close("all")
    learn.mix_up.show_batch(max_n=8)
    assert plt.gcf().axes[0].get_gridspec().get_geometry() == (2, 4)  # as fastai's own
    for given in ({"nrows": 1}, {"ncols": 4}, {"nrows": 2, "ncols": 3}):
        learn.mix_up.show_batch(max_n=4, **given)
        assert len(texts(plt.gcf())) == 4  # none is left out
    plt.close("all")
    with pytest.raises(bm.MixError, match=r"^show_batch takes images \(C, H, W\), got "):
        learner(batches(torch.rand(8, 5), Y[:8])).mixup().mix_up.show_batch()


@pytest.mark.parametrize(
    ("own", "partner", "wanted"),
    [
        ("cat", "dog", "0.75 cat + 0.25 dog"),
        (MultiCategory(["sea", "sun"]), MultiCategory([]), "0.75 sea;sun + 0.25"),
        ("american_bulldog", "basset_hound", "0.75 american_bulldog\n+ 0.25 basset_hound"),
    ],
)
def test_titles_of_mixed_images_do_not_run_into_one_another(own: Any, partner: Any, wanted: str) -> None:
    assert _title(0.75, own, partner) == wanted
