"""The guard, played as the controller sees it: a real agent at the other end of two pipes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

import pytest

from coldstart.agent.records import Image, Order, Ready, to_json
from coldstart.agent.wire import Decoder, Encoder

PATIENCE_S = 20
MANY = 5_000


@pytest.fixture
def agent(tmp_path):
    """An agent with a lock and a cache of its own; it must be gone at the end."""
    env = {**os.environ, "COLDSTART_LOCK": str(tmp_path / "lock"), "XDG_CACHE_HOME": str(tmp_path)}
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "coldstart.agent"]
    with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        yield process
        process.kill()


def simulated(encoder: Encoder, boots: int) -> bytes:
    """What makes an agent busy: so many boots of the simulator."""
    image, ready = to_json(Image("none")), to_json(Ready(port=80))
    orders = [to_json(Order(0, index, "t")) for index in range(boots)]
    batches = [orders[at : at + 1000] for at in range(0, boots, 1000)]
    return b"".join(
        [
            encoder.encode("hello", run="watchdog-test", settings={}),
            encoder.encode("prepare", target="t", runtime="fake", options={}, image=image, ready=ready),
            encoder.encode("arm"),
            *(encoder.encode("stage", orders=batch) for batch in batches),
        ]
    )


def test_a_goodbye_among_boots_is_heard(agent):
    """However it falls between two messages of the measurer: the wave is cut, and the last word is `bye`."""
    encoder = Encoder()
    out, err = agent.communicate(simulated(encoder, MANY) + encoder.encode("bye"), timeout=PATIENCE_S)
    kinds = [message["type"] for message in Decoder().feed(out)]
    assert (agent.returncode, err, kinds[-1]) == (0, b"", "bye")
    assert kinds.count("boot") < MANY


def test_a_controller_that_reads_nothing_does_not_hold_the_node(agent):
    """A stopped one, say: what waits for it has a limit, and then the run is over."""
    encoder = Encoder()
    os.write(agent.stdin.fileno(), encoder.encode("hello", run="watchdog-test", settings={}))
    os.set_blocking(agent.stdin.fileno(), False)
    deadline = time.monotonic() + PATIENCE_S
    left = b""
    while agent.poll() is None and time.monotonic() < deadline:
        left = left or b"".join(encoder.encode("ping", id=n) for n in range(100))
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            left = left[os.write(agent.stdin.fileno(), left) :]
    assert agent.returncode == 0
    kinds = {message["type"] for message in Decoder().feed(agent.stdout.read().rpartition(b"\n")[0] + b"\n")}
    assert kinds <= {"hello", "pong"}  # it was not the protocol that ended it


def test_nonsense_ends_it_with_one_word(agent):
    """A line that is no message."""
    out, _ = agent.communicate(b"Welcome\n", timeout=PATIENCE_S)
    (message,) = Decoder().feed(out)
    assert (message["type"], message["final"]) == ("fault", True)
    assert "not a message of ours: b'Welcome'" in message["text"]


def test_a_cache_that_cannot_be_made_is_said(agent, tmp_path):
    """A file where the folder should be: final, because the next link would meet it again."""
    (tmp_path / "coldstart").touch()
    out, err = agent.communicate(Encoder().encode("hello", run="watchdog-test", settings={}), timeout=PATIENCE_S)
    fault = Decoder().feed(out)[0]
    assert (fault["type"], fault["final"], err) == ("fault", True, b"")
    assert str(tmp_path) in fault["text"]
