"""The errors batchmix raises, open to every module."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


class MixError(ValueError):
    """A call that batchmix cannot carry out as written.

    The message is one line: the argument, what it got, what it takes.
    """

    @classmethod
    def of(cls, argument: str, got: object, takes: str) -> MixError:
        """Build the usual line.

        Args:
            argument: Name of the argument as the caller wrote it.
            got: The value; shown with ``repr``, shortened where it is long.
            takes: What the argument takes, as the end of the sentence "takes ...".

        Example:
            >>> print(MixError.of("alpha", -1, "a number >= 0"))
            alpha takes a number >= 0, got -1
        """
        return cls(f"{argument} takes {takes}, got {shorten(got)}")


class DataError(RuntimeError):
    """Data that could not be found, fetched, verified or stored; the message says what to do by hand."""


def shorten(value: object, length: int = 60) -> str:
    """The value's ``repr`` on one line of at most ``length`` characters.

    Example:
        >>> shorten("a" * 10, length=8)
        "'aaaa..."
    """
    return cut(" ".join(repr(value).split()), length)


def cut(line: str, length: int) -> str:
    """The line, of which as much as there is room for where it is longer than ``length`` characters."""
    return line if len(line) <= length else line[: length - 3] + "..."


def why(error: BaseException) -> str:
    r"""What somebody else's error says, on one line without colours; its type where it says nothing.

    Example:
        >>> why(OSError("the disk\nis full")), why(KeyError())
        ('the disk is full', 'KeyError')
    """
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split()) or type(error).__name__


def one_line(error: BaseException) -> str:
    """What an error is and says, on one line; of our own what it says is enough.

    Example:
        >>> one_line(ZeroDivisionError("division by zero")), one_line(MixError("p takes a number, got None"))
        ('ZeroDivisionError: division by zero', 'p takes a number, got None')
    """
    said, name = why(error), type(error).__name__
    return said if isinstance(error, (MixError, DataError)) or said == name else f"{name}: {said}"


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Around the imports of an optional framework: a missing one is named, with the command that installs it.

    Args:
        extra: Name of the extra in ``pip install 'batchmix[extra]'``.

    Raises:
        ModuleNotFoundError: If a module imported inside is not installed.

    Example:
        >>> with needs("fastai"):
        ...     import fastbook
        Traceback (most recent call last):
        ModuleNotFoundError: this needs fastbook: pip install 'batchmix[fastai]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("batchmix"):
            raise
        missing = error.name.partition(".")[0]
        message = f"this needs {missing}: pip install 'batchmix[{extra}]'"
        raise ModuleNotFoundError(message, name=error.name) from None
