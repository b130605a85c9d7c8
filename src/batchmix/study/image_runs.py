"""One run of a study on images: the recipe's training, with the mixing of an arm."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from batchmix.files import make_folder, write_whole
from batchmix.recipe.evaluation import calibration_scores, predict, score
from batchmix.recipe.images import ImageBatches, normalize
from batchmix.recipe.run import pace_of
from batchmix.recipe.training import StepMixer, Training
from batchmix.study.arms import TWO_LOADERS, TwoLoaders, parse_arm
from batchmix.study.curve import GLANCE, REPORTS, Curve, Progress
from batchmix.study.images import StudyImages, spread_over
from batchmix.study.plan import RecipeConfig
from batchmix.study.seeding import derived_seed


class ImageRun:
    """One run, to be followed point by point.

    Args:
        config: The recipe's config.
        arm: What mixes.
        images: What to train and test on.
        device: Where.
        origin: What the images are, for the state that is kept: names and texts or numbers.

    Attributes:
        curve: The learning curve so far.
    """

    def __init__(
        self,
        config: RecipeConfig,
        arm: str,
        images: StudyImages,
        device: torch.device,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.images, self.device = config, images, device
        self.origin = dict(origin or {})
        self.training = Training(
            config,
            images.train_x,
            images.train_y,
            device,
            mixer=_mixer(config, arm, images, device),
            num_classes=images.num_classes,
            mean=images.mean,
            std=images.std,
        )
        self.curve = Curve(config.steps, config.steps_per_epoch)

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.training.step == self.config.steps

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Progress]:
        """Train to the end, or until ``stop()`` holds after a step."""
        steps = self.config.steps
        every = max(1, steps // REPORTS)
        for report in self.training.run(stop, every=every):
            done = report.step + 1
            # The training reports ends of epochs and stops too: they are no part of the curve, so that it
            # does not depend on where a run was stopped.
            if report.step % every == 0 or done == steps:
                self.curve.losses.append(report.loss)
                if self.curve.is_due(done):
                    self.curve.add(done, self._glance())
            yield Progress(done, steps)

    def finish(self) -> dict[str, Any]:
        """The scores on all test images, as the record has them."""
        logits, labels = self._test(torch.arange(len(self.images.test_y)))
        scores: dict[str, Any] = score(logits, labels)
        self.curve.add(self.training.step, scores)
        return scores | {
            **calibration_scores(logits, labels),
            "curve": self.curve.points,
            "train_seconds": round(self.training.seconds, 2),
            "images_per_second": pace_of(self.training),
        }

    # Stop and resume

    def save(self, path: Path) -> None:
        """Write all that the rest of the run depends on."""
        make_folder(path.parent)
        buffer = io.BytesIO()
        state = {
            "origin": self.origin,
            "training": self.training.state_dict(),
            "curve": self.curve.points,
            "losses": self.curve.losses,
        }
        torch.save(state, buffer)
        write_whole(path, [buffer.getbuffer()])

    def resume(self, path: Path) -> None:
        """Go on where the run was stopped, or start over where the file is not of this run."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:  # torch.load has no error of its own for what is not its file
            return
        if not isinstance(state, dict) or state.get("training", {}).get("config") != self.config.as_dict():
            return
        if state.get("origin", self.origin) != self.origin:  # an earlier version kept none
            return
        self.training.load_state_dict(state["training"])
        self.curve.points, self.curve.losses = state["curve"], state["losses"]

    def _glance(self) -> dict[str, float]:
        return score(*self._test(spread_over(GLANCE, len(self.images.test_y))))

    def _test(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and labels of some test images, on the CPU."""
        training, parts = self.training, []
        for part in torch.split(chosen, 500):
            x = normalize(self.images.test_x[part].to(self.device), self.images.mean, self.images.std)
            parts.append(predict(training.net, x, autocast=training.autocast).cpu())
        return torch.cat(parts), self.images.test_y[chosen]


def _mixer(config: RecipeConfig, arm: str, images: StudyImages, device: torch.device) -> StepMixer:
    parsed = parse_arm(arm)
    mixer = parsed.mixer(config.seed, config.steps)
    if parsed.name != TWO_LOADERS:
        return mixer
    second = ImageBatches(
        images.train_x.to(device),
        images.train_y.to(device),
        batch_size=config.batch_size,
        shift=config.shift,
        seed=derived_seed(config.seed, "second loader"),
        mean=images.mean,
        std=images.std,
    )
    return TwoLoaders(
        mixer,
        lambda step: second.at(step, config.size_at(step), crop=config.crop_at(step)),
        images.num_classes,
    )
