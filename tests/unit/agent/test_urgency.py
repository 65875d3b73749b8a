"""Real-time priority is for waiting alone: nothing that is started may have it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from coldstart.agent import floors, spawn, urgency
from coldstart.agent.bootloop import BootLoop
from coldstart.agent.oneboot import Prey
from coldstart.agent.records import Order, Ready
from coldstart.agent.runtimes import Context, fake

ORDINARY = str(os.SCHED_OTHER)


def policy(pid: int | str = "self") -> str:
    """Of a process, as the kernel shows it: field 41 of its stat."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[38]


def may_be_urgent() -> bool:
    with urgency.urgent():
        return os.sched_getscheduler(0) & os.SCHED_FIFO == os.SCHED_FIFO


def test_only_while_it_waits():
    """Before and after, the thread is what it was."""
    before = os.sched_getscheduler(0)
    with urgency.urgent():
        during = os.sched_getscheduler(0)
    assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == before & ~os.SCHED_RESET_ON_FORK
    assert during in (before, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK)


def test_what_is_started_meanwhile_is_ordinary():
    """Even a process that somebody spawned in the midst of it."""
    with urgency.urgent():
        null = os.open(os.devnull, os.O_WRONLY)
        pid = spawn.spawn(["/bin/sleep", "10"], dict(os.environ), null)
    try:
        assert policy(pid) == ORDINARY
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(null)


def test_another_thread_stays_ordinary():
    """The start call runs in one of its own."""
    found: list[int] = []
    with urgency.urgent():
        thread = threading.Thread(target=lambda: found.append(os.sched_getscheduler(0)))
        thread.start()
        thread.join()
    assert found == [os.SCHED_OTHER]


def test_without_the_right_to_it_is_just_a_wait(monkeypatch: pytest.MonkeyPatch):
    """A plain user's node is as punctual as it happens to be."""

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refused)
    with urgency.urgent():
        pass


def test_a_floor_is_a_reason_not_to_boot():
    """The boot is a row with the reason; the next one is tried again."""
    read_end, _ = os.pipe()
    short = ["only 5 MiB of memory are free", ""]
    loop = BootLoop(read_end, shortage=lambda: short.pop(0))
    try:
        runtime = fake.Runtime(fake.Options(), Context("r", ""))
        prey = Prey(runtime, Ready(port=80), runtime.prepare(None, Ready(port=80), {}))  # type: ignore[arg-type]
        found: list[object] = []
        loop.run([Order(0, index, "t") for index in range(2)], {"t": prey}, found.append)
    finally:
        loop.close()
        os.close(read_end)
    assert [(boot.outcome, boot.detail) for boot in found] == [  # type: ignore[attr-defined]
        ("error:floor", "only 5 MiB of memory are free"),
        ("ok", ""),
    ]


def test_floors(tmp_path: Path):
    """Each with what there is and what there should be."""
    assert floors.shortage({}, str(tmp_path)) == ""
    huge = str(1 << 60)
    assert "of memory are free, the floor is" in floors.shortage({"memory_floor_bytes": huge}, str(tmp_path))
    assert "of disk are free, the floor is" in floors.shortage({"disk_floor_bytes": huge}, str(tmp_path))
    assert floors.parse_available_bytes("MemFree: 1 kB\nMemAvailable:    2048 kB\n") == 2 << 20
    assert floors.parse_available_bytes("MemFree: 1 kB\n") == 0
