"""The clock's bound holds whatever the network and the clock do, as long as the clock is one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coldstart.clock import LEAST_LEAD_NS, MAX_RATE, NodeClock, Sample, lead_ns

S = 1_000_000_000
MS = 1_000_000


def pinged(clock, at_ns: int, out_ns: int, back_ns: int, node_ns, *, slept_ns: int = 0, wall_ns: int = 0) -> None:
    """One ping, with the way there and the way back as long as given. node_ns: what the node's clock shows, of our
    time."""
    stamp = node_ns(at_ns + out_ns)
    clock.add(Sample(at_ns, at_ns + out_ns + back_ns, stamp, stamp + slept_ns, stamp + wall_ns))


ways = st.integers(0, 50 * MS)
pings = st.lists(st.tuples(st.integers(1, 20 * S), ways, ways), min_size=1, max_size=80)


@given(pings, st.integers(-(10**18), 10**18), st.floats(-MAX_RATE, MAX_RATE), st.integers(0, 30 * S))
def test_true_within_the_bound(sent, offset_ns, rate, later_ns):
    """Any asymmetry, any steady drift up to the assumed worst; at the last answer and long after."""

    def node(ns: int) -> int:
        return offset_ns + ns + int(ns * rate)

    clock, now_ns = NodeClock(), 0
    for gap_ns, out_ns, back_ns in sent:
        now_ns += gap_ns
        pinged(clock, now_ns, out_ns, back_ns, node)
        now_ns += out_ns + back_ns
    for ask_ns in (now_ns, now_ns + later_ns):
        found = clock.at(ask_ns)
        assert found is not None
        assert abs(node(ask_ns) - ask_ns - found.offset_ns) <= found.bound_ns + 2


@given(st.lists(st.floats(-MAX_RATE, MAX_RATE), min_size=2, max_size=40), ways)
def test_true_while_the_drift_changes(rates, way_ns):
    """A crystal that warms up: another rate between any two pings."""
    clock, now_ns, node_ns = NodeClock(), 0, 7 * S
    for rate in rates:
        now_ns, node_ns = now_ns + 5 * S, node_ns + 5 * S + int(5 * S * rate)
        stamp = node_ns
        clock.add(Sample(now_ns - way_ns, now_ns, stamp, stamp, stamp))
    found = clock.at(now_ns)
    assert found is not None
    assert abs(node_ns - now_ns - found.offset_ns) <= found.bound_ns + len(rates)


def test_the_best_ping_counts_until_it_is_too_old():
    """A short round trip beats a long one; but age costs 600 ppm."""
    clock = NodeClock()
    pinged(clock, 0, MS, MS, lambda ns: ns)
    pinged(clock, S, 10 * MS, 10 * MS, lambda ns: ns)
    best = clock.at(2 * S)
    assert (best.rtt_ns, best.offset_ns) == (2 * MS, 0)
    assert MS < best.bound_ns < 3 * MS
    assert clock.at(1000 * S).bound_ns > 500 * MS


def test_a_clock_that_runs_away_widens_the_bound():
    """A daemon that slews by 10 000 ppm: what was seen of it is believed from then on."""
    clock = NodeClock()
    for second in range(20):
        pinged(clock, second * S, MS // 10, MS // 10, lambda ns: ns + ns // 100)
    found = clock.at(29 * S)
    assert 90 * MS < found.bound_ns < 300 * MS
    assert abs(29 * S // 100 - found.offset_ns) <= found.bound_ns


def test_a_suspend_is_noticed_and_forgets():
    """BOOTTIME ran on, MONOTONIC did not; what was known of the offset is of before."""
    clock = NodeClock()
    pinged(clock, 0, MS, MS, lambda ns: ns)
    assert clock.slept_ns == 0
    pinged(clock, 60 * S, 9 * MS, 9 * MS, lambda ns: ns - 30 * S, slept_ns=30 * S)
    assert clock.slept_ns == 30 * S
    assert clock.at(61 * S).offset_ns == -30 * S


def test_a_step_of_the_wall_clock_is_noticed():
    """It changes nothing for the clock that counts."""
    clock = NodeClock()
    pinged(clock, 0, MS, MS, lambda ns: ns, wall_ns=5 * S)
    pinged(clock, S, MS, MS, lambda ns: ns, wall_ns=3 * S)
    assert (clock.stepped_ns, clock.slept_ns, clock.at(S).offset_ns) == (-2 * S, 0, 0)


def test_memory_is_bounded_and_keeps_the_best():
    """A burst of good pings survives hours of bad heartbeats only as long as it is good."""
    clock = NodeClock()
    pinged(clock, 0, 1000, 1000, lambda ns: ns)
    for number in range(1, 200):
        pinged(clock, number * S // 10, 40 * MS, 40 * MS, lambda ns: ns)
    assert clock.at(20 * S).rtt_ns == 2000


def test_nothing_is_known_before_the_first_answer():
    """Nor of the wall clock."""
    assert NodeClock().at(5) is None
    assert NodeClock().wall_offset() is None


@given(st.lists(st.integers(0, 10 * S)))
def test_the_lead_is_enough_for_the_slowest(rtts):
    """Half a round trip to hear of it, and room."""
    assert lead_ns(rtts) >= LEAST_LEAD_NS + max(rtts, default=0) // 2
