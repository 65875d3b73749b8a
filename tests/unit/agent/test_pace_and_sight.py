"""The probing budget, and what is made of what the probes saw."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coldstart.agent.pace import (
    BUDGET,
    CREDIT_NS,
    EARLY_INTERVAL_NS,
    HEDGE_NS,
    MAX_INTERVAL_NS,
    NEAR,
    NEAR_INTERVAL_NS,
    NOBODY,
    NOBODY_INTERVAL_NS,
    UNKNOWN,
    WAITING,
    Pace,
)
from coldstart.agent.ready import Seen
from coldstart.agent.sight import Sight

US = 1_000
MS = 1_000_000


def interval_ns(pace: Pace, *, elapsed_ns=0, stage=NEAR) -> int:
    return pace.interval_ns(elapsed_ns=elapsed_ns, stage=stage)


def test_the_finest_interval_at_first():
    """A process is there after a millisecond, and its first rounds are the dearest."""
    pace = Pace()
    pace.charge(300 * US)
    assert interval_ns(pace) == EARLY_INTERVAL_NS


def test_the_credit_is_kept_for_when_it_tells_most():
    """Sparse while nobody is there, by the budget alone while nobody knows, finer once the network is there."""
    pace = Pace()
    for _ in range(50):
        pace.charge(100 * US)
    intervals = [interval_ns(pace, elapsed_ns=200 * MS, stage=stage) for stage in (NOBODY, UNKNOWN, NEAR)]
    assert intervals == [NOBODY_INTERVAL_NS, 100 * US / BUDGET, NEAR_INTERVAL_NS]


def test_only_an_answer_is_due():
    """New connections are less urgent then."""
    assert interval_ns(Pace(), stage=WAITING) == HEDGE_NS


@given(st.integers(5 * US, 800 * US), st.sampled_from([UNKNOWN, NOBODY, NEAR, WAITING]))
def test_the_budget_holds_in_the_long_run(cost_ns, stage):
    """5 % of one core and the credit, whatever a round costs."""
    pace, elapsed_ns = Pace(), 0
    while elapsed_ns < 5_000 * MS:
        elapsed_ns += interval_ns(pace, elapsed_ns=elapsed_ns, stage=stage)
        pace.charge(cost_ns)
    assert pace.spent_ns <= CREDIT_NS + BUDGET * elapsed_ns + 2 * cost_ns


def test_the_interval_has_an_upper_bound():
    """However dear a round is."""
    pace = Pace()
    pace.charge(100 * MS)
    assert interval_ns(pace) == MAX_INTERVAL_NS


def told(*seen: tuple[str, int, int]) -> Sight:
    sight = Sight()
    for what, probe, now_ns in seen:
        sight.note(Seen(what, probe), now_ns)
    return sight


def test_ready_is_the_first_byte_of_the_valid_answer():
    """Not of an invalid one before it, and not when its last byte came."""
    sight = told(
        ("opened", 0, 10), ("tcp", 0, 11), ("byte", 0, 12), ("failed", 0, 13),
        ("opened", 1, 20), ("tcp", 1, 21), ("byte", 1, 25), ("valid", 1, 29),
    )  # fmt: skip
    assert (sight.tcp_ns, sight.ready_ns, sight.resolution_ns) == (11, 25, 11)


def test_the_first_probe_has_no_resolution():
    """Nothing had failed before it."""
    assert told(("opened", 0, 10), ("byte", 0, 12), ("valid", 0, 13)).resolution_ns is None


def test_an_older_probe_may_win():
    """Then what counts is the one opened before the winner."""
    sight = told(("opened", 0, 10), ("opened", 1, 20), ("opened", 2, 30), ("byte", 1, 45), ("valid", 1, 46))
    assert sight.resolution_ns == 35


def test_a_connection_that_waited_is_as_fine_as_the_probes_beside_it():
    """A SYN may wait for a machine from the start. That later ones waited as well tells when nobody was there yet."""
    waited = [("opened", 0, 10), ("opened", 1, 20), ("opened", 2, 30)]
    after = [("opened", 3, 42), ("byte", 0, 45), ("valid", 0, 46)]
    assert told(*waited, ("tcp", 0, 41), *after).resolution_ns == 11
    assert told(*waited, ("tcp", 0, 11), *after).resolution_ns is None  # taken at once: the workload was slow


def test_the_first_valid_answer_counts():
    """A second one changes nothing."""
    sight = told(("opened", 0, 10), ("valid", 0, 12), ("opened", 1, 20), ("valid", 1, 22))
    assert sight.ready_ns == 12
