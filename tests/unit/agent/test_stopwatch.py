"""The stopwatch, exactly: the boot loop as it is, over the simulator's virtual time."""

from __future__ import annotations

import os

import pytest

from coldstart.agent.bootloop import BootLoop
from coldstart.agent.oneboot import Cancelled, Prey
from coldstart.agent.records import Image, Order, Ready
from coldstart.agent.runtimes import Context, fake

MS = 1_000_000


@pytest.fixture
def cancel():
    read_end, write_end = os.pipe()
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


@pytest.fixture
def loop(cancel):
    return BootLoop(cancel[0])


def prey(*, timeout_ns: int = 20_000 * MS, **script) -> Prey:
    runtime = fake.Runtime(fake.Options(**script), Context("r", ""))
    ready = Ready(port=80, timeout_ns=timeout_ns)
    return Prey(runtime, ready, runtime.prepare(Image("none"), ready, {}))


def boots(loop, target: Prey, count: int = 1, **order):
    found = []
    orders = [Order(0, index, "t", **order) for index in range(count)]
    loop.run(orders, {"t": target}, found.append)
    return found


def test_the_script_is_found_again_to_the_nanosecond(loop):
    """Every mark, in every boot."""
    script = {"created_ns": 1 * MS, "api_return_ns": 7 * MS + 1, "tcp_ns": 3 * MS + 7, "ready_ns": 5 * MS + 13}
    for boot in boots(loop, prey(**script, gone_ns=2 * MS, reclaimed_ns=4 * MS), 20):
        assert boot.outcome == "ok"
        assert boot.marks_ns == {
            "created": 1 * MS,
            "tcp": 3 * MS + 7,
            "ready": 5 * MS + 13,
            "api_return": 7 * MS + 1,
            "stop": 7 * MS + 1,
            "gone": 9 * MS + 1,
            "reclaimed": 11 * MS + 1,
        }


def test_an_app_that_answers_before_its_start_call_returns_is_timed_right(loop):
    """`ready` is when it answered, not when the engine said so."""
    (boot,) = boots(loop, prey(ready_ns=10 * MS, api_return_ns=900 * MS))
    assert (boot.marks_ns["ready"], boot.marks_ns["api_return"]) == (10 * MS, 900 * MS)


def test_gap_and_hold_are_kept(loop):
    """The gap counts from the end of the boot before, the hold from ready; both in the plan's time."""
    first, second = boots(loop, prey(), 2, gap_ns=100 * MS, hold_ns=30 * MS)
    assert first.marks_ns["stop"] == first.marks_ns["ready"] + 30 * MS
    assert second.planned_ns == first.achieved_ns + first.marks_ns["reclaimed"] + 100 * MS
    assert second.achieved_ns == second.planned_ns


@pytest.mark.parametrize(
    ("fault", "outcome", "words"),
    [
        ("start-fails", "error:start", "the script says so"),
        ("exits", "error:exited", "ended with code 1"),
        ("never-answers", "timeout", "not ready within 0.5 s"),
        ("stale", "timeout", "not ready within 0.5 s"),
        ("hangs", "timeout", "not ready within 0.5 s"),
    ],
)
def test_faults_are_rows_with_a_reason(loop, fault, outcome, words):
    """A failed boot is recorded, never ready, and the next one runs."""
    failed, good = boots(loop, prey(timeout_ns=500 * MS, fault=fault, fault_every=1), 1) + boots(loop, prey())
    assert (failed.outcome, failed.detail) == (outcome, words)
    assert "ready" not in failed.marks_ns
    assert failed.resolution_ns is None
    assert good.outcome == "ok"


def test_a_fault_now_and_then(loop):
    """`fault_every`: one boot of so many."""
    outcomes = [boot.outcome for boot in boots(loop, prey(timeout_ns=100 * MS, fault="stale", fault_every=3), 7)]
    assert outcomes == ["ok", "ok", "timeout", "ok", "ok", "timeout", "ok"]


@pytest.mark.parametrize("fault", ["none", "never-answers", "hangs"])
def test_cancelled_at_any_moment(loop, cancel, fault):
    """The boot in progress is undone and not reported."""
    os.write(cancel[1], b"x")
    found = []
    with pytest.raises(Cancelled):
        loop.run([Order(0, 0, "t")], {"t": prey(fault=fault)}, found.append)
    assert found == []


def test_a_mark_keeps_its_first_instant(loop):
    """The loop's own `api_return` comes after the runtime's, and does not replace it."""
    (boot,) = boots(loop, prey(api_return_ns=2 * MS, ready_ns=50 * MS))
    assert boot.marks_ns["api_return"] == 2 * MS
