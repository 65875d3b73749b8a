"""What every kind of test shares."""

from __future__ import annotations

import os
import select
import signal
import time

import pytest

from coldstart.agent import engine as engines
from coldstart.agent import lock, spawn
from coldstart.agent.dockerapi import SYSTEM_SOCKET
from coldstart.agent.runtimes import Unavailable

PATIENCE_S = 120


@pytest.fixture(scope="session")
def started_engine(tmp_path_factory) -> str:
    """An engine for all tests where one is installed and none runs; why there is none, or ''. It bears no run's mark:
    it is nobody's leftover."""
    if engines.answers(SYSTEM_SOCKET):
        yield ""
        return
    try:
        pid = engines.borrow("", SYSTEM_SOCKET, str(tmp_path_factory.mktemp("engine") / "dockerd.log"))
    except Unavailable as error:
        yield f"{error} ({error.hint})"
        return
    yield ""
    spawn.kill(pid, signal.SIGTERM, limit_s=engines.STOP_LIMIT_S)


@pytest.fixture(autouse=True)
def _engine_runs(request) -> None:
    """Sweeps in live tests find an engine, and need not borrow one each."""
    if request.node.get_closest_marker("live"):
        request.getfixturevalue("started_engine")


@pytest.fixture
def engine(started_engine) -> str:
    """The engine's socket; skips with the reason where there is none."""
    if started_engine:
        pytest.skip(started_engine)
    return SYSTEM_SOCKET


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
