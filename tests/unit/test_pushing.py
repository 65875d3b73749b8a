"""What the exit code of a push tells."""

from __future__ import annotations

import pytest

from coldstart.errors import NodeError
from coldstart.events import Skipped
from coldstart.model import Push
from coldstart.pushing import Pushes

SKIPPED = Skipped("one", "app", "no Docker engine there")


def test_nothing_was_pushed() -> None:
    """Nowhere was anything that could take any image: that is no success."""
    with pytest.raises(NodeError, match="nothing was pushed"):
        Pushes(skipped=[SKIPPED]).judge()


def test_some_was_pushed() -> None:
    """A node without an engine has the programs."""
    Pushes(pushed=[Push("one", "it", "hello", "fetched", 1, 1)], skipped=[SKIPPED]).judge()
