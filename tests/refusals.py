"""The form of an error that is the caller's: one line with the argument, what it takes and what it got."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from batchmix import MixError


def assert_named(argument: str, call: Callable[[], object]) -> None:
    """Fail unless the call is refused in one line that begins with the argument."""
    with pytest.raises(MixError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(f"{argument} takes ")
    assert ", got " in message
    assert "\n" not in message
