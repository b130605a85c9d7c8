"""Mixing inside of a DataLoader, where its workers do the work and the main process keeps the count."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, default_collate, get_worker_info

from batchmix.core.batches import Kinds
from batchmix.errors import MixError
from batchmix.loaders import (
    FROM_THE_START,
    LeftPass,
    Resumption,
    UnderWay,
    drop_early_workers,
    loaders_in,
    resumption,
)
from batchmix.methods.mixup import check_needs_no_plan
from batchmix.mixer import Mixer, check_mixer, counts_steps

# Places in the numbers that the main process shares with the workers.
PASS, START, SEED, ENABLED, CLAIM, PLACES = range(6)

TAKES_ITS_OWN = "a DataLoader with collate_fn=this MixCollate"  # for error messages


class MixCollate:
    """Collates samples and mixes the batch: ``DataLoader(..., collate_fn=MixCollate(mixer))``.

    The loader then yields mixed samples and a MixedTarget; evaluation has a loader of its own, without it.
    Samples have to be floating point, converted in the dataset (``ToDtype(torch.float32, scale=True)``,
    ``ToTensor()``); or uint8 images (``PILToTensor()``), where the mixer normalises them: ``MixCollate(
    bm.Mixup(0.4, normalize=bm.Normalize(mean, std)))``. Other images in uint8 are refused, not rounded.

    A worker sees its own batches only, so the main process tells it where a pass over the loader starts:
    iterate with ``epoch``, or assign to ``step`` before each pass. Then

    - batch i of a pass is drawn at step ``start + i`` from (seed, rank, step) alone: any number of workers,
      forked or spawned, persistent or not, yields the very batches that none yield;
    - a schedule counts the batches of the run, and ends or ramps at the batch it names;
    - ``step``, ``seed`` and ``enabled`` of the main process reach persistent workers with the next pass.

    The batches of a pass go round the workers in turn; that is where their numbers come from. With
    ``in_order=False``, or an iterable dataset whose workers end at different times, numbers are apart within
    a pass but not in the order of arrival. What else of a mixer is changed later, such as ``alpha``, does
    not reach workers that persist: give it a schedule.

    Loaders may take turns with one MixCollate, a pass of one after a pass of another; two at the same time
    need one each, and so do two of torchdata's StatefulDataLoader that are left early.

    torchdata's StatefulDataLoader goes on inside of a pass with the same draws where it is iterated with
    ``epoch``, after both have loaded their states: another worker than the first may be next, which
    assigning to ``step`` cannot know.

    Accelerate cannot cut a MixedTarget for the other processes where it hands out the first one's batches
    (``dispatch_batches``, its default for iterable datasets): mix in the loop there.

    A pass that nobody has announced is drawn by every worker for itself, apart from all other workers and
    passes; a schedule is refused there, since a worker cannot know how many batches the others had. Workers
    that persist take it for more of the pass that was announced last.

    Args:
        mixer: Any method or choice of methods, but ``TransMix``, which weighs labels after the model.
        collate_fn: What makes a batch of a list of samples.
        kinds: What a leaf of the batch is, by its path, where that is in doubt; see ``Mixer.__call__`` for
            batches of two, ``(x, y)``, and ``Mixer.mix`` for all others.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> import batchmix as bm
        >>> from torch.utils.data import DataLoader
        >>> data = [(torch.rand(3, 8, 8), label) for label in (0, 1, 2, 3, 4)]
        >>> collate = MixCollate(bm.Mixup(0.4, seed=0))
        >>> loader = DataLoader(data, batch_size=2, collate_fn=collate)
        >>> for x, y in collate.epoch(loader):
        ...     print(tuple(x.shape), type(y).__name__, collate.step)
        (2, 3, 8, 8) MixedTarget 1
        (2, 3, 8, 8) MixedTarget 2
        (1, 3, 8, 8) MixedTarget 3
    """

    def __init__(
        self,
        mixer: Mixer,
        collate_fn: Callable[[list[Any]], Any] = default_collate,
        *,
        kinds: Kinds | None = None,
    ) -> None:
        check_needs_no_plan(check_mixer(mixer))
        if not callable(collate_fn):
            raise MixError.of("collate_fn", collate_fn, "a callable of a list of samples")
        _check_seed(mixer.seed)
        self.mixer = mixer
        self.collate_fn = collate_fn
        self.kinds = kinds
        shared: Any = torch.zeros(PLACES, dtype=torch.int64, device="cpu")
        self._shared = shared.share_memory_()
        self._shared[ENABLED] = 1
        # Of the pass under way, as this process knows it: its number, the step it starts at, the worker that
        # makes the first batch, whether it is mixed, and how many batches this process has made of it. A
        # worker starts from a copy; that is how it learns of another first one, since a loader that goes on
        # inside of a pass starts new workers. Of a pass that workers hear of later, 0 is the first.
        self._pass, self._start, self._first, self._enabled, self._made = 0, 0, 0, True, 0
        self._under_way: UnderWay | None = None
        self._left: LeftPass | None = None  # the one before, whose workers may still be at it

    # What the DataLoader calls, here or in a worker

    def __call__(self, samples: list[Any]) -> Any:
        """Collate and mix.

        Args:
            samples: What the dataset returned, one a sample.

        Returns:
            The mixed batch, in the structure that ``collate_fn`` gave it.

        Raises:
            MixError: If the batch cannot be mixed as it is, or a schedule has no count to go by.
        """
        batch = self.collate_fn(samples)
        step = self._next_step()
        if self._enabled:
            return self._mix(batch, step)
        p, self.mixer.p = self.mixer.p, 0.0  # the same targets, none of them mixed, and steps go on
        try:
            return self._mix(batch, step)
        finally:
            self.mixer.p = p

    # What the main process says

    @property
    def step(self) -> int:
        """Global number of the next batch; assign to it before a pass over the loader.

        ``collate.step = epoch * len(loader)`` does what ``epoch`` does, for a framework that has the loop. It
        comes before the loader's iterator: workers begin as soon as there is one, in most frameworks before
        the hook of the first epoch is called.
        """
        return self.mixer.step

    @step.setter
    def step(self, step: int) -> None:
        self.load_state_dict({"seed": self.mixer.seed, "step": step})

    @property
    def enabled(self) -> bool:
        """Whether batches are mixed; a change holds from the next pass on (without workers, at once)."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        if not isinstance(enabled, bool):
            raise MixError.of("enabled", enabled, "True or False")
        self._enabled = enabled
        self._shared[ENABLED] = int(enabled)

    def epoch(self, loader: Iterable[Any]) -> Iterator[Any]:
        """One pass over ``loader``, whose batches are numbered from ``step`` on; ``step`` follows them.

        ``step`` counts the batches that arrived here, not those that workers have made ahead: at any place
        in the loop, ``state_dict`` is what the next batch starts from. A pass may be left early:
        ``itertools.islice(collate.epoch(loader), n)``.

        Args:
            loader: A DataLoader with this object as its ``collate_fn``, or what holds one: a progress bar
                (``collate.epoch(tqdm(loader))``), a prefetcher, a loader that Accelerate prepared.

        Yields:
            The loader's batches.

        Raises:
            MixError: If ``loader`` collates otherwise; at the next batch, if since the last one another pass
                was begun or ``step`` was set.
        """
        start, found = self.step, self._loader_in(loader)
        drop_early_workers(found)
        self._announce(resumption(found), found)
        self._under_way = under_way = UnderWay(loader, found)
        try:
            for batch in under_way:
                if under_way.received == 1 and not self._is_made_here():
                    raise MixError.of("loader", loader, TAKES_ITS_OWN)
                self.mixer.step = start + under_way.received
                yield batch
        finally:
            if self._under_way is under_way:  # else the next pass has begun, and this loop is over for good
                self._leave()

    def state_dict(self) -> dict[str, int]:
        """All that has to be kept to go on with the same draws: ``{"seed": ..., "step": ...}``."""
        return self.mixer.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where ``state_dict`` was taken; the data has to go on at the same place.

        Raises:
            MixError: If ``state`` is not what ``state_dict`` returns.
        """
        if isinstance(state, Mapping):  # all else is the mixer's to refuse
            _check_seed(state.get("seed"))
        self.mixer.load_state_dict(state)
        self._announce()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_under_way": None, "_left": None}  # a loop is of this process

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not self._shared.is_shared():  # a copy or a checkpoint, for which no other process waits
            self._shared.share_memory_()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.mixer!r})"

    # How the two meet

    def _loader_in(self, holder: Iterable[Any]) -> DataLoader[Any] | None:
        """The innermost loader with this collation in what holds it; None where none is to be seen."""
        if isinstance(holder, DataLoader) and holder.collate_fn is not self:
            raise MixError.of("loader", holder.collate_fn, TAKES_ITS_OWN)
        return next((loader for loader in loaders_in(holder) if loader.collate_fn is self), None)

    def _is_made_here(self) -> bool:
        """Whether a batch of the pass under way was made by this object, or by its copy in a worker."""
        return self._made > 0 or int(self._shared[CLAIM]) >> 32 == self._pass

    def _announce(
        self, resumed: Resumption = FROM_THE_START, following: DataLoader[Any] | None = None
    ) -> None:
        """A new pass starts at ``step``. Its number is written last: who sees it finds the rest there."""
        _check_seed(self.mixer.seed)
        self._leave()  # a loop that was neither ended nor closed
        if self._left is not None and self._left.finish(following):
            self._left = None
        self._start, self._first, self._made = self.mixer.step - resumed.replayed, resumed.first, 0
        self._shared[START] = self._start
        self._shared[SEED] = self.mixer.seed - (self.mixer.seed >> 63 << 64)  # 64 bits, with a sign
        self._pass += 1
        self._shared[PASS] = self._pass

    def _leave(self) -> None:
        """The pass under way, if any, is over."""
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            self._left = under_way.leave()

    def _next_step(self) -> int | None:
        """The global step of the batch at hand; None where the mixer counts by itself."""
        worker = get_worker_info()
        if worker is None:  # what holds the loader may read ahead of the batches that have arrived
            return None if self._under_way is None else self._count(0, 1)
        if not self._follows(worker.seed - worker.id):
            if counts_steps(self.mixer):
                raise MixError(
                    "schedule takes a count of all workers' batches: iterate with `for batch in "
                    "collate.epoch(loader)`, or assign to collate.step before each pass over the loader"
                )
            self._enabled = bool(self._shared[ENABLED])
            return None
        return self._count(worker.id, worker.num_workers)

    def _count(self, worker: int, workers: int) -> int:
        """The step of the next batch that this process makes of the pass."""
        place = (worker - self._first) % workers  # of its own among the first batches, one a worker
        step = self._start + place + self._made * workers
        self._made += 1
        return max(0, step)  # a loader may replay more batches than were counted; nobody gets to see those

    def _follows(self, loader_seed: int) -> bool:
        """Take over what the main process has said; False where it has not announced this pass."""
        announced = int(self._shared[PASS])
        if announced != self._pass and _is_kept():
            self._pass, self._first, self._made = announced, 0, 0
            self._start = int(self._shared[START])
            self._enabled = bool(self._shared[ENABLED])
            self.mixer.seed = int(self._shared[SEED]) % 2**64
        return self._pass > 0 and self._is_of(loader_seed)

    def _is_of(self, loader_seed: int) -> bool:
        """Whether the pass belongs to this set of workers: the first to make a batch of it claims it.

        Each set has a seed of its own, drawn with the loader's iterator. A second set in one pass means that
        the loop was started anew without a word: its steps would repeat the first's. A claim carries the
        number of its pass, so that it ends with it, and is read once: the next pass may be announced, and
        claimed, at any moment.
        """
        claimed, own = int(self._shared[CLAIM]), _claim(self._pass, loader_seed)
        if claimed >> 32 < self._pass:
            self._shared[CLAIM] = claimed = own
        return claimed == own or claimed >> 32 > self._pass

    def _mix(self, batch: Any, step: int | None) -> Any:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            return self.mixer.mix(batch, kinds=self.kinds, step=step)
        mixed = self.mixer(*batch, kinds=self.kinds, step=step)
        kind: Any = type(batch)
        return kind(*mixed) if hasattr(batch, "_fields") else kind(mixed)


def _is_kept() -> bool:
    """Whether the loader of the worker that calls this keeps it for more than one pass.

    One that is not kept may still be there when a later pass is announced, where an exception holds on to
    its loader's iterator. torch tells the loop of a worker which it is, and nobody else.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "_worker_loop" and "persistent_workers" in frame.f_code.co_varnames:
            return bool(frame.f_locals["persistent_workers"])
        frame = frame.f_back
    return True


def _check_seed(seed: Any) -> None:
    if isinstance(seed, int) and seed >= 2**64:  # it is shared as 64 bits
        raise MixError.of("seed", seed, "a number below 2**64, to reach DataLoader workers")


def _claim(number: int, loader_seed: int) -> int:
    """A pass and the set of workers that makes it, as one number; later passes have larger ones."""
    return number << 32 | loader_seed % 2**32
