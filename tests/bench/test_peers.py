"""The peers are called rightly: what they give is a mix of the batch, and what is said of them is so."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from batchmix.bench import peers
from batchmix.bench.cases import MEAN, STD
from batchmix.bench.peers import PEERS, Peer, load_peers

CPU = torch.device("cpu")
CLASSES = 5
NAMES = [peer.name for peer in PEERS]


@pytest.fixture(scope="module")
def found() -> dict[str, Peer]:
    loaded, missing = load_peers(CPU)
    assert {peer.name for peer in loaded} | set(missing) == set(NAMES)
    return {peer.name: peer for peer in loaded}


def the(found: dict[str, Peer], name: str) -> Peer:
    if name not in found:
        pytest.skip(f"{name} is not installed")
    return found[name]


def batch() -> tuple[Tensor, Tensor]:
    """Constant images of which each pair has another mean, so that partners and weights can be told."""
    x = torch.tensor([0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0]).view(6, 1, 1, 1)
    return x.repeat(1, 3, 6, 6), torch.arange(6) % CLASSES


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
@pytest.mark.parametrize("name", NAMES)
def test_a_peer_mixes_the_batch_and_writes_into_it_only_where_it_is_said(
    found: dict[str, Peer], name: str, method: str
) -> None:
    for mix in the(found, name).mixes(method, CLASSES):
        changed = False
        for _ in range(8):  # a draw may leave a batch as it is
            x, y = batch()
            source = x.clone()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                mixed, _target = mix.call(x, y)
            assert (mixed.shape, mixed.dtype) == (source.shape, source.dtype)
            assert mixed.min() >= 0
            assert mixed.max() <= source.max()
            assert torch.equal(x, source) or not mix.fresh
            assert mix.fresh == (mixed.data_ptr() != x.data_ptr())
            changed |= not torch.equal(mixed, source)
        assert changed


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.04)])
@pytest.mark.parametrize("name", NAMES)
def test_a_peer_normalises_as_the_others_do(
    found: dict[str, Peer], name: str, dtype: torch.dtype, tolerance: float
) -> None:
    raw = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = the(found, name).normaliser(dtype)(raw.clone())
    expected = (raw.double() / 255 - mean) / std
    torch.testing.assert_close(made, expected, rtol=tolerance, atol=tolerance, check_dtype=False)
    assert made.dtype == dtype


def test_timm_normalises_in_bfloat16_as_its_loader_does(found: dict[str, Peer]) -> None:
    raw = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    timm = the(found, "timm")
    loader = importlib.import_module("timm.data.loader").PrefetchLoader(
        [(raw, torch.zeros(2))], mean=MEAN, std=STD, device=CPU, img_dtype=torch.bfloat16
    )
    ((theirs, _),) = loader
    assert torch.equal(timm.normaliser(torch.bfloat16)(raw), theirs)


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'kornia'"),
        RuntimeError("nms is missing"),
        ValueError("Unable to import backend : foo"),
    ],
)
def test_a_peer_that_does_not_import_is_missing_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(name: str, package: str | None = None) -> Any:
        if name.partition(".")[0] == "kornia":
            raise error
        return importlib.import_module(name, package)

    monkeypatch.setattr(peers, "importlib", _Importlib(refuse))
    monkeypatch.setattr(peers, "PEERS", (peers.Kornia, peers.Composer))
    loaded, missing = load_peers(CPU)
    assert [peer.name for peer in loaded] == ["Composer"]
    assert missing == {"kornia": f"{type(error).__name__}: {error}"}


class _Importlib:
    def __init__(self, import_module: Any) -> None:
        self.import_module = import_module
        self.metadata = importlib.metadata


def test_composers_formula_gives_the_partner_the_smaller_weight() -> None:
    (mix,) = peers.Composer(CPU).mixes("mixup", 6)
    torch.manual_seed(0)
    for _ in range(5):
        x, y = torch.eye(6).view(6, 6, 1, 1), torch.arange(6)
        mixed, target = mix.call(x, y)
        torch.testing.assert_close(mixed.flatten(1), target)  # one-hot images are mixed like one-hot labels
        assert (mixed.flatten(1).diagonal() >= 0.5).all()


def test_composers_cutmix_says_the_share_it_pasted() -> None:
    (mix,) = peers.Composer(CPU).mixes("cutmix", 6)
    torch.manual_seed(0)
    for _ in range(5):
        x, y = torch.eye(6).view(6, 6, 1, 1).expand(6, 6, 8, 8), torch.arange(6)
        mixed, target = mix.call(x.contiguous(), y)
        torch.testing.assert_close(mixed.mean((2, 3)), target)
