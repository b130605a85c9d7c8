"""PyTorch Lightning, the package ``pytorch_lightning``: the callback of ``batchmix.adapters.lightning``.

Use it::

    from batchmix.adapters.pytorch_lightning import MixUpCallback

    trainer = Trainer(callbacks=[MixUpCallback(alpha=0.4)])

It is one framework under two names, and each Trainer knows its own ``Callback`` only. Where is the batch
intercepted, how is the loss reached, how is evaluation left untouched? As in ``batchmix.adapters.lightning``.
"""

from __future__ import annotations

from batchmix.errors import needs

with needs("pytorch-lightning"):
    from pytorch_lightning import Callback

from batchmix.adapters.lightning import MixUpCallback as _MixUpCallback

__all__ = ["MixUpCallback"]


class MixUpCallback(_MixUpCallback, Callback):
    """Mixes the training batches of a Trainer, with the arguments of the other package's callback."""
