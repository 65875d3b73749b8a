"""Waking up on time for an instant that several nodes share.

SCHED_FIFO, so that a busy node does not let the waiting thread lie; only while it waits, because whatever it starts
would inherit it - every virtual machine would then run in real time. SCHED_RESET_ON_FORK guards against the same even
if somebody forked meanwhile. Without the privilege (CAP_SYS_NICE) the wait is as punctual as the node happens to be.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

PRIORITY = 1  # any is above every ordinary process


@contextlib.contextmanager
def urgent() -> Iterator[None]:
    """For the calling thread alone (pid 0 is a thread to the kernel)."""
    before, param = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        # Not cleared, which would need more privilege than setting it did; of no effect on what is ordinary anyway.
        os.sched_setscheduler(0, before | os.SCHED_RESET_ON_FORK, param)
