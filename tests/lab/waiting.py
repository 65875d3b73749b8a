"""Waiting for something to become true: by asking again and again, never by a guessed sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LIMIT_S = 30.0
_PAUSE_S = 0.005


class TooLateError(Exception):
    """What was waited for did not come."""


def until(condition: Callable[[], T], what: str, limit_s: float = LIMIT_S) -> T:
    """Its first true value."""
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TooLateError(f"{what}: not within {limit_s:g} s")
        time.sleep(_PAUSE_S)
