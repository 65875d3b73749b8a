"""Skew, from what each node recorded on a clock of its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coldstart import synchrony
from coldstart.doubts import node_doubts
from coldstart.model import WaveStart
from coldstart.report import synchronised

MS = 1_000_000


def start(node: str, *, at_ns: int, offset_ns: int = 0, bound_ns: int = 0, late_ns: int = 0, wave: int = 0):
    """at_ns: on the controller's clock."""
    achieved_ns = at_ns + offset_ns
    return WaveStart(wave, node, achieved_ns - late_ns, achieved_ns, offset_ns, bound_ns, 2 * bound_ns)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(-(10**15), 10**15), st.integers(0, 10**7)), min_size=2))
def test_offsets_cancel(nodes):
    """Skew is on the controller's clock, whatever those of the nodes show."""
    starts = [start(f"n{i}", at_ns=at, offset_ns=off, bound_ns=bound) for i, (at, off, bound) in enumerate(nodes)]
    (found,) = synchrony.skews(starts)
    instants = [at for at, _, _ in nodes]
    assert found.skew_ns == max(instants) - min(instants)
    assert found.bound_ns <= 2 * max(bound for _, _, bound in nodes)
    assert found.nodes == len(nodes)


def test_a_wave_of_one_has_no_skew():
    """Nor is it spoken of."""
    alone = [start("a", at_ns=5)]
    assert synchrony.skews(alone) == []
    assert list(synchronised.lines(synchronised.build(alone, {}))) == []
    assert synchronised.build([], {}) is None


def test_in_words():
    """Skew, how surely it is known, and each clock."""
    waves = [
        start(node, at_ns=wave * 10**9 + at, bound_ns=MS, late_ns=at, wave=wave)
        for wave in range(3)
        for node, at in (("a", 0), ("b", (wave + 1) * MS))
    ]
    built = synchronised.build(waves, {"a": "cloud", "b": "edge"})
    assert list(synchronised.lines(built)) == [
        "2 nodes, 3 instants: skew 2.00 ms, 90 % within 2.80 ms, largest 3.00 ms, known to ±2.00 ms",
        "cloud/a: clock known to ±1.00 ms (round trip 2.00 ms), started 0 s late",
        "edge/b: clock known to ±1.00 ms (round trip 2.00 ms), started 2.00 ms late",
    ]


def test_doubts_about_nodes():
    """A suspend, a step, a late start, a clock that is hardly known."""
    facts = {"a": {"slept_ns": "3000000000", "stepped_ns": "0"}, "b": {"stepped_ns": "-20000000"}, "c": {}}
    starts = [start("c", at_ns=0, late_ns=20 * MS), start("d", at_ns=0, bound_ns=40 * MS)]
    found = {doubt.kind: (doubt.subject, doubt.text) for doubt in node_doubts(facts, starts)}
    assert found == {
        "suspended": ("a", "suspended during the sweep: a (3.00 s)"),
        "clock-set": ("b", "wall clock set during the sweep: b (20.0 ms)"),
        "late": ("c", "started after the agreed instant: c (20.0 ms)"),
        "clock-bound": ("d", "clock not known better than: d (40.0 ms)"),
    }
    assert node_doubts({"c": {}}, [start("c", at_ns=0)]) == []
