"""How an estimate is held against a known truth."""

from __future__ import annotations

from benchmarks import clockerror
from benchmarks.clockerror import Case
from coldstart.clock import Sample

S = 1_000_000_000
MS = 1_000_000


def ping(clock: clockerror.Clock, at_ns: int, out_ns: int, back_ns: int) -> Sample:
    stamp = clock(at_ns + out_ns)
    return Sample(at_ns, at_ns + out_ns + back_ns, stamp, stamp, stamp)


def test_asymmetry_stays_inside():
    """All of the round trip one way: wrong by half of it, and the bound says so."""
    found = clockerror.cases([ping(lambda ns: ns + 7 * S, S, 30 * MS, 0)], lambda ns: ns + 7 * S)
    assert {case.error_ns for case in found} == {15 * MS}
    assert all(case.inside for case in found)


def test_each_ping_and_all_so_far_at_every_age():
    pings = [ping(lambda ns: ns, at_ns, MS, MS) for at_ns in (S, 2 * S)]
    ages = len(clockerror.AGES_NS)
    assert len(clockerror.cases(pings, lambda ns: ns)) == 2 * 2 * ages
    assert len(clockerror.cases(pings, lambda ns: ns, alone=False)) == 2 * ages


def test_what_is_outside_is_counted():
    """A clock faster than any bound allows for."""
    fast = clockerror.drifting(0, 5_000)
    found = clockerror.cases([ping(fast, S, 1000, 1000)], fast, alone=False)
    row = clockerror.row("fast", "known", found)
    assert [case.inside for case in found] == [True, False, False, False, False]
    assert row.met is False
    assert row.figure.startswith("20.00% inside")
    assert "the others by 21.9" in row.figure


def test_drift_and_slew():
    assert clockerror.drifting(10 * S, 100)(11 * S) == 11 * S + 100_000
    turned = clockerror.slewed(0, -100, S)
    assert turned(S) == S - 100_000
    assert turned(2 * S) == 2 * S - 200_000 + 500_000


def test_what_nobody_could_know_is_apart():
    """Answered before it began or right after, and about an instant after it."""
    begun = 10 * S
    before, across, soon, later = (
        Case(0, 0, heard_ns, heard_ns + 2 * S) for heard_ns in (7 * S, 9 * S, 11 * S, 13 * S)
    )
    seen, unseen = clockerror.told_apart([before, across, soon, later], begun)
    assert (seen, unseen) == ([before, later], [across, soon])
