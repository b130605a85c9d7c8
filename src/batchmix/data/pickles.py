"""Pickles read as data: nothing but NumPy arrays, lists, dictionaries and plain values."""

from __future__ import annotations

import io
import pickle

import numpy as np

from batchmix.errors import DataError

# NumPy's own array builder, taken from an array so that no private module is named.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,  # written by NumPy 1
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,  # written by NumPy 2
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        # A pickle runs code only through the names it looks up; every name but these is refused.
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise DataError(f"the pickle asks for {module}.{name}; only NumPy arrays are read") from None


def load_pickle(content: bytes) -> object:
    """Load a pickle, python-2 ones included, without running code that it carries.

    Args:
        content: The pickle; strings written by python 2 come back as bytes.

    Returns:
        The object.

    Raises:
        DataError: If the pickle asks for anything but NumPy arrays, or is damaged.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except DataError:
        raise
    except Exception as error:  # damaged pickles raise nearly anything, from KeyError to MemoryError
        raise DataError(f"the pickle is damaged: {error}") from error
