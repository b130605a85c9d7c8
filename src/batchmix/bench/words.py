"""What the page says beside the numbers; nothing here depends on a record."""

from __future__ import annotations

HEAD = """# Benchmarks

Made by `batchmix bench` from its records and from nothing else; `benchmarks/README.md` says how to run it and
how to read it. Every number is the median of rounds in which all contenders took turns in one process.
"""

TITLES = {
    "blend": "Mixing a batch",
    "images": "From uint8 images to the net",
    "loss": "The loss",
    "sampling": "Drawing",
    "price": "The whole price",
}

INTRO = {
    "blend": """\
A batch mixed once, with its draw and its targets: times as multiples of `dst.copy_(src)`, median
(quartiles) of rounds in which all take turns. After a slash, for what returns new memory: as multiples
of `src.clone()`. What a call overwrites is put back before it, untimed. A kernel in brackets was named,
else it is the automatic choice.""",
    "images": """\
uint8 images to normalised, mixed ones of the dtype named: ours in one pass, the others' chain as their
users write it (convert, scale, normalise, mix, convert), which `torch, chain` does in plain torch. As
multiples of `dst.copy_(uint8)`, which converts and does nothing else.""",
    "loss": """\
Forward and backward of cross entropy, as multiples of that with plain labels; K classes, a batch of 128.
Dense targets are made from the pair within the time, as the libraries that use them do once a batch.""",
    "sampling": """\
Weights, partners and boxes of one batch of 128, and what share that is of a training step of ResNet-18
on images of 32 pixels, measured in the same rounds.""",
    "price": """\
A training step of ResNet-18 with mixup and without, in turn in one process, from asking for a batch to
asking for the next. In brackets the 95% interval of the change of the median, by the bootstrap over turns of
four steps of each.""",
}

# What is known of why a goal is missed where it is, by the beginning of the goal.
CAUSES = {
    "mixup into a buffer": """\
the row `draw alone` shows how much of it is the draw: small operations that take as long for a small batch,
which is copied within the cache, as for a large one.""",
    "mixup into new memory": """\
the row `draw alone` shows how much of it is the draw.""",
    "CutMix in place": """\
the row `draw alone` shows how much of it is the draw, of a mask for every position of every sample.""",
    "uint8 to mixed": """\
the batch is small: it stays in the cache, so that the passes over memory that the others make cost them
little, and the draw, which `draw alone` in the tables above has, is much of what is left of ours.""",
    "mixup adds": """\
the draw, the mixing and the loss, which have tables of their own, take less than half a percent of such a
step together; for what goes beyond that no cause was found, and the intervals say how sure it is.""",
    "the loss": """\
the first row of its table has the time of the plain loss: for few classes that is Python's and autograd's
work around the kernels.""",
}
