"""What an error says."""

from __future__ import annotations

import pytest

from batchmix import MixError


def one_line(raised: pytest.ExceptionInfo[MixError]) -> str:
    """The message, which has to be of one line."""
    message = str(raised.value)
    assert "\n" not in message
    return message
