"""What every kind of test shares."""

from __future__ import annotations

import os
import select
import time

import pytest

from coldstart.agent import lock

PATIENCE_S = 120


@pytest.fixture
def node():
    """This machine, for one test alone: whoever starts a run here removes everything that bears another run's mark."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            held = lock.take("tests")
            break
        except lock.Busy:
            if time.monotonic() > deadline:
                raise
            select.select([], [], [], 0.05)
    yield
    os.close(held)
