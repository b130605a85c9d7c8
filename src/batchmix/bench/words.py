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
users write it (convert, scale, normalise, mix), which `torch, chain` does in plain torch. A chain computes
in float32 and converts at the end, but where its row says `in bfloat16`: there it converts first, and rounds
at every operation. As multiples of `dst.copy_(uint8)`, which converts and does nothing else.""",
    "loss": """\
Forward and backward of cross entropy, as multiples of that with plain labels; K classes, a batch of 128.
Dense targets are made within the time, as the libraries that use them do once a batch; where a row names a
library's formula, by the operations of that library, with one weight for the batch.""",
    "sampling": """\
Weights, partners and boxes of one batch of 128, and what share that is of a training step of ResNet-18
on images of 32 pixels, measured in the same rounds.""",
    "price": """\
A training step of ResNet-18 with mixup and without, in turn in one process, from asking for a batch to
asking for the next. In brackets the 95% interval of the change of the median, by the bootstrap over turns of
four steps of each.""",
}

# What is known, of any machine, of why a goal is missed where it is, by the beginning of the goal.
CAUSES = {
    "mixup into a buffer": """\
the rows `draw alone` and `blend alone` show what of it is the draw (small operations, whose time does not
depend on the size of the images) and what the mixing.""",
    "mixup into new memory": """\
the rows `draw alone` and `blend alone` show what of it is the draw, and what the mixing into a buffer.""",
    "CutMix in place": """\
the row `draw alone` shows what of it is the draw, of a mask for every position of every sample.""",
    "uint8 to mixed": """\
the draw is part of ours: `draw alone` in the tables of mixing a batch shows how long it takes.""",
    "mixup adds": """\
the intervals say how sure that is; the draw, the mixing and the loss, of which the price is made, have tables
of their own.""",
    "the loss": """\
the first row of its table has the time of the plain loss: for few classes that is Python's and autograd's
work around the kernels.""",
}
# What is known beside that of CPUs alone.
CAUSES_ON_CPU = {
    "uint8 to mixed": """\
A batch that fits into the cache costs the others little for each pass that they make over it.""",
}
