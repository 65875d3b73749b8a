"""Events into the store, onto the screen and into the exit code."""

from __future__ import annotations

import pytest

from coldstart.agent.records import Boot
from coldstart.errors import ColdstartError
from coldstart.events import BootDone, LinkLost, NodeDone, NodeUp, Skipped, TargetReady
from coldstart.model import Load, Node, Playbook, Ready, Run, Target
from coldstart.plan import expand
from coldstart.progress import Display
from coldstart.recorder import Recorder
from coldstart.store import Store
from coldstart.sweeping import Outcome

NODE = Node("n")
TARGET = Target("t", "fake", {"": "none"}, Ready(port=80))
PLAN = expand([NODE], Playbook("p", (TARGET,), ("warm", "page-cold"), Load(boots=2)), seed=1)
GOOD = Boot(0, 0, "ok", marks_ns={"ready": 5_000_000})
EVENTS = (
    NodeUp("n", {"arch": "x86_64"}, ("process 7",)),
    TargetReady("n", "t", {"net": "own"}, {"engine": "1"}, 5, 6, ("mind the gap",)),
    Skipped("n", "t", "no permission", "page-cold"),
    BootDone("n", GOOD),
    BootDone("n", Boot(0, 1, "timeout", "not ready within 1 s")),
    LinkLost("n", "n: link lost: x"),
    NodeDone("n", "n: gone", ("network x",)),
)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.db") as opened:
        yield opened


def recorder(store: Store) -> Recorder:
    return Recorder(store, "r", PLAN, lambda: store.begin(Run("r", "p", 1, 0), "", "", PLAN))


def test_every_event_reaches_the_store(store):
    """Boots, what the node said, what was skipped and why, and the node's facts."""
    record = recorder(store)
    for event in EVENTS:
        record.take(event)
    warm, cold = store.cells("r")
    assert warm.boots[0] == GOOD
    assert (warm.arch, warm.labels, warm.image_bytes, warm.transfer_bytes) == ("x86_64", {"net": "own"}, 5, 6)
    assert (cold.skipped, cold.boots) == ("no permission", ())
    assert store.facts("r") == {"n": {"arch": "x86_64", "engine": "1"}}
    assert (record.boots, record.failed) == (2, 1)
    assert (record.lost, record.leftovers) == ({"n": "n: gone"}, {"n": ("network x",)})


def test_a_sweep_that_reaches_nobody_leaves_no_trace(store):
    """A busy node is no run."""
    record = recorder(store)
    record.take(NodeDone("n", "n: node busy: run x"))
    assert (record.begun, store.runs()) == (False, [])


def test_off_a_terminal_there_are_notes_and_no_bars(capsys):
    """What a log should have, and no more."""
    with Display(PLAN) as display:
        for event in EVENTS:
            display.take(event)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "n: removed what a dead run had left: process 7",
        "n: t: mind the gap",
        "n: t page-cold skipped: no permission",
        "n: link lost: x; trying again",
        "n: gone",
    ]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome("r", 4, 1), 3),
        (Outcome("r", 0, 0), 4),
        (Outcome("r", 4, 1, lost={"n": "gone"}), 4),
        (Outcome("r", 4, 1, lost={"n": "gone"}, leftovers={"n": ("x",)}), 6),
        (Outcome("r", 4, 1, interrupted=2), 130),
        (Outcome("r", 4, 1, interrupted=15), 143),
        (Outcome("r", 4, 1, interrupted=1), 129),
    ],
)
def test_exit_codes(outcome, code):
    """The most urgent one."""
    with pytest.raises((ColdstartError, SystemExit)) as caught:
        outcome.judge(0)
    assert (caught.value.code if isinstance(caught.value, SystemExit) else caught.value.exit_code) == code


def test_nothing_to_complain_about():
    """All went well, or as badly as `--max-failures` allows."""
    Outcome("r", 4, 0).judge(0)
    Outcome("r", 4, 2).judge(2)
