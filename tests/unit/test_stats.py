"""The statistics agree with scipy where it has them, cover what they promise, and never say more than the data."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from coldstart import stats
from coldstart.model import Boot, Cell, Load, Trial

PATEL = json.loads((Path(__file__).parent / "data" / "patel2017.json").read_text())
CONTAINER, UNIKERNEL = PATEL["hot_samples"]["container"], PATEL["hot_samples"]["unikernel"]
SAMPLES = st.lists(st.floats(min_value=1e-3, max_value=1e3), min_size=1, max_size=80)


def by_block(values: list[float]) -> dict[int, tuple[float, ...]]:
    return {index: (value,) for index, value in enumerate(values)}


def test_nothing_gives_nothing() -> None:
    """Without samples every figure is None, not zero."""
    assert stats.summarise([]) == stats.Summary(n=0)
    assert stats.quantile([], 0.5) is None


def test_one_sample_has_no_spread() -> None:
    """sd needs two, an interval needs six."""
    one = stats.summarise([2.0])
    assert (one.n, one.median, one.mean, one.sd, one.ci95) == (1, 2.0, 2.0, None, None)


@settings(max_examples=40, deadline=None)
@given(SAMPLES)
def test_summaries_agree_with_numpy_and_scipy(values: list[float]) -> None:
    """Median, mean, sample sd and p95 are the textbook's; so are the extremes."""
    summary = stats.summarise(values)
    assert summary.median == pytest.approx(np.median(values))
    assert summary.mean == pytest.approx(scipy.stats.tmean(values))
    assert summary.p95 == pytest.approx(np.quantile(values, 0.95, method="linear"))
    assert (summary.min, summary.max, summary.n) == (min(values), max(values), len(values))
    if len(values) > 1:
        assert summary.sd == pytest.approx(statistics.stdev(values), abs=1e-9)


@pytest.mark.parametrize("n", [*range(1, 60), 99, 100, 1000, 1075, 5000])
def test_the_median_interval_is_the_narrowest_that_covers(n: int) -> None:
    """By scipy's binomial: at least 95 % at these ranks, less at the next inner ones; none below n = 6."""
    interval = stats.summarise(np.arange(1.0, n + 1)).ci95
    below = scipy.stats.binom(n, 0.5)
    if n < 6:
        assert interval is None
        return
    assert interval is not None
    low, high = interval
    assert high == n + 1 - low
    assert 1 - 2 * below.cdf(low - 1) >= 0.95
    assert 1 - 2 * below.cdf(low) < 0.95


def test_the_median_interval_is_scipys() -> None:
    """scipy's test of a quantile, inverted, gives the same two samples."""
    values = np.random.default_rng(5).lognormal(size=41)
    theirs = scipy.stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    assert stats.summarise(values).ci95 == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize("n", [6, 10, 20, 30])
def test_the_median_interval_covers_as_promised(n: int) -> None:
    """In 1,000 skewed data sets the true median is inside at least 95 % of the time (less chance)."""
    rng = np.random.default_rng(n)
    intervals = [stats.summarise(rng.lognormal(size=n)).ci95 for _ in range(1000)]
    hits = sum(low <= 1 <= high for low, high in intervals if low is not None and high is not None)
    assert hits / 1000 >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_a_timeout_is_longer_than_everything() -> None:
    """Below half of them censored the median stands; the mean, sd and max are not known."""
    summary = stats.summarise([1.0, 2.0, 3.0, 4.0], censored=3)
    assert (summary.n, summary.censored, summary.median, summary.min) == (7, 3, 4.0, 1.0)
    assert (summary.mean, summary.sd, summary.max, summary.p95) == (None, None, None, None)
    assert summary.ci95 == (1.0, None)


def test_a_median_among_timeouts_is_unknown() -> None:
    """Half censored: the median of an even number would need a censored neighbour."""
    assert stats.summarise([1.0, 2.0], censored=2).median is None
    only = stats.summarise([], censored=8)
    assert (only.n, only.median, only.min, only.max, only.ci95) == (8, None, None, None, None)


@settings(max_examples=40, deadline=None)
@given(SAMPLES, st.integers(min_value=0, max_value=5), st.floats(min_value=0, max_value=0.95))
def test_censored_quantiles_are_bounded_by_any_completion(values: list[float], censored: int, q: float) -> None:
    """Whatever the timeouts would have taken, a quantile that is given is the true one."""
    for end in (1e3, 1e9):
        truth = float(np.quantile([*values, *[end] * censored], q))
        given_quantile = stats.quantile(values, q, censored=censored)
        assert given_quantile is None or given_quantile == pytest.approx(truth)


def test_no_p99_below_a_hundred() -> None:
    """A tail quantile needs a sample beyond it."""
    assert stats.quantile(range(99), 0.99) is None
    assert stats.quantile(range(100), 0.99) == pytest.approx(98.01)
    assert stats.quantile(range(5), 0.95) == pytest.approx(3.8)
    assert stats.quantile(range(999), 0.999) is None


def test_patels_figures() -> None:
    """His samples give his means and sample sds; "37.91 %" is the symmetric difference, 31.87 % the reduction."""
    container, unikernel = stats.summarise(CONTAINER), stats.summarise(UNIKERNEL)
    assert (container.mean, container.sd) == (pytest.approx(1.0043, abs=5e-5), pytest.approx(0.0235, abs=5e-5))
    assert (unikernel.mean, unikernel.sd) == (pytest.approx(0.6859, abs=5e-5), pytest.approx(0.0289, abs=5e-5))
    assert container.mean is not None
    assert unikernel.mean is not None
    assert 31.7 <= stats.reduction_percent(unikernel.mean, container.mean) <= 31.9
    assert 37.6 <= stats.symmetric_percent(unikernel.mean, container.mean) <= 37.9
    assert stats.reduction_percent(0.684, 1.004) == pytest.approx(PATEL["true_reduction_percent"]["hot"], abs=0.005)
    assert stats.symmetric_percent(0.684, 1.004) == pytest.approx(PATEL["published"]["claims"]["hot_percent"], abs=0.01)
    assert stats.reduction_percent(0.760, 1.085) == pytest.approx(PATEL["true_reduction_percent"]["cold"], abs=0.005)
    assert stats.reduction_percent(39, 704) == pytest.approx(PATEL["true_reduction_percent"]["image"], abs=0.005)


def test_patels_comparison() -> None:
    """The unikernel is faster by his own samples, with an interval around the ratio of medians."""
    pair = stats.compare_pair(by_block(UNIKERNEL), by_block(CONTAINER), seed=1)
    assert pair.ratio == pytest.approx(0.681 / 1.002)
    assert pair.ci95 is not None
    assert pair.ci95[0] <= pair.ratio <= pair.ci95[1]
    assert pair.ci95[1] - pair.ci95[0] < 0.05
    assert pair.p_value is not None
    assert pair.p_value < 0.01
    assert pair.verdict() == "faster"
    assert stats.compare_pair(by_block(CONTAINER), by_block(UNIKERNEL)).verdict() == "slower"


def test_comparisons_are_reproducible() -> None:
    """The same data and seed give the same answer, to the last bit."""
    first, second = (stats.compare_pair(by_block(CONTAINER), by_block(UNIKERNEL), seed=3) for _ in range(2))
    assert first == second


def test_the_same_samples_do_not_differ() -> None:
    """Ratio one, p one, undecided."""
    same = stats.compare_pair(by_block(CONTAINER), by_block(CONTAINER))
    assert (same.ratio, same.p_value, same.reduction_percent, same.verdict()) == (1.0, 1.0, 0.0, "undecided")


def test_equal_systems_are_rarely_called_different() -> None:
    """Under drift that both share, blocks keep the error at 5 %: 100 comparisons of equals, at most a few wrong."""
    rng = np.random.default_rng(11)
    wrong = 0
    for _ in range(100):
        trend = np.linspace(1.0, 1.1, 15)
        a, b = (trend * rng.lognormal(sigma=0.03, size=15) for _ in range(2))
        wrong += stats.compare_pair(by_block(a.tolist()), by_block(b.tolist())).verdict() != "undecided"
    assert wrong / 100 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100)


def test_the_ratio_interval_covers_about_as_promised() -> None:
    """A true ratio of 2 is inside in about 95 % of 100 data sets of 20 blocks."""
    rng = np.random.default_rng(12)
    hits = 0
    for _ in range(100):
        a, b = 2 * rng.lognormal(sigma=0.1, size=20), rng.lognormal(sigma=0.1, size=20)
        interval = stats.compare_pair(by_block(a.tolist()), by_block(b.tolist())).ci95
        assert interval is not None
        hits += interval[0] <= 2 <= interval[1]
    assert hits / 100 >= 0.90


def test_many_blocks_give_the_interval_of_all_of_them() -> None:
    """Above the size of a resample the interval narrows with the root of n, as the full bootstrap's would."""
    rng = np.random.default_rng(13)
    a, b = 1.05 * rng.lognormal(sigma=0.2, size=9000), rng.lognormal(sigma=0.2, size=9000)
    pair = stats.compare_pair(by_block(a.tolist()), by_block(b.tolist()))
    assert pair.ci95 is not None
    standard_error = math.sqrt(2 * math.pi / 2 * 0.2**2 / 9000)  # of log(median ratio), both sides
    assert math.log(pair.ci95[1] / pair.ci95[0]) == pytest.approx(2 * 1.96 * standard_error, rel=0.15)
    assert pair.verdict() == "slower"


def test_waves_are_swapped_as_a_whole() -> None:
    """Boots of one wave are not independent: 3 waves of 20 cannot show what 60 single boots could."""
    rng = np.random.default_rng(14)
    a = {wave: tuple(rng.normal(1.1, 0.01, size=20)) for wave in range(3)}
    b = {wave: tuple(rng.normal(1.0, 0.01, size=20)) for wave in range(3)}
    pair = stats.compare_pair(a, b)
    assert (pair.n_a, pair.n_b, pair.ci95, pair.verdict()) == (60, 60, None, "undecided")
    assert pair.p_value is not None
    assert pair.p_value > 0.2  # two of the eight ways to swap are as extreme


def test_blocks_may_lack_a_side() -> None:
    """A boot that failed leaves its block with one side only; the other still counts."""
    a, b = by_block(UNIKERNEL), by_block(CONTAINER)
    del a[3], b[7]
    pair = stats.compare_pair(a, b)
    assert (pair.n_a, pair.n_b, pair.verdict()) == (14, 14, "faster")


@pytest.mark.parametrize("b", [{}, {0: ()}, by_block([math.inf] * 8), by_block([0.0] * 8)])
def test_what_cannot_be_compared_is_not(b: dict[int, tuple[float, ...]]) -> None:
    """No samples, a median among the timeouts or of zero: no ratio and no verdict."""
    pair = stats.compare_pair(by_block([1.0] * 8), b)
    assert (pair.ratio, pair.ci95, pair.p_value, pair.verdict()) == (None, None, None, "undecided")


def test_a_few_timeouts_leave_the_ratio_but_may_cost_the_interval() -> None:
    """Resamples whose median is a timeout have no finite ratio: then there is no interval, hence no verdict."""
    slow = [*CONTAINER[:9], *[math.inf] * 6]
    pair = stats.compare_pair(by_block(slow), by_block(UNIKERNEL))
    assert pair.ratio is not None
    assert (pair.ci95, pair.verdict()) == (None, "undecided")
    assert stats.compare_pair(by_block([*CONTAINER[:14], math.inf]), by_block(UNIKERNEL)).verdict() == "slower"


def test_a_verdict_needs_both_p_and_interval() -> None:
    """Whichever of the two hesitates wins; several comparisons are judged by the adjusted p."""
    sure = stats.Comparison(9, 9, ratio=2.0, ci95=(1.5, 2.5), p_value=0.01)
    assert sure.verdict() == "slower"
    assert sure.verdict(0.2) == "undecided"
    assert stats.Comparison(9, 9, ratio=1.1, ci95=(0.9, 1.3), p_value=0.01).verdict() == "undecided"


def test_holm_is_the_textbooks() -> None:
    """Step-down, monotone, capped at one, in the order given."""
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert stats.holm([0.9, 0.8]) == (1.0, 1.0)
    assert stats.holm([]) == ()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=20))
def test_holm_never_makes_a_p_smaller(p_values: list[float]) -> None:
    """It keeps their order and is at most Bonferroni's."""
    adjusted = stats.holm(p_values)
    assert all(p <= q <= min(1, p * len(p_values)) + 1e-12 for p, q in zip(p_values, adjusted, strict=True))
    assert [q for _, q in sorted(zip(p_values, adjusted, strict=True))] == sorted(adjusted)


def test_robust_z_is_the_modified_z_score() -> None:
    """As scipy's MAD says; nothing is an outlier where most samples are equal."""
    values = [1.0, 1.1, 0.9, 1.05, 5.0]
    scale = scipy.stats.median_abs_deviation(values, scale=0.6745)
    assert stats.robust_z(values) == pytest.approx((np.array(values) - 1.05) / scale)
    assert not stats.robust_z([1.0, 1.0, 1.0, 9.0]).any()
    assert len(stats.robust_z([])) == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=9), min_size=3, max_size=40))
def test_drift_is_spearmans_rho(values: list[int]) -> None:
    """Ties share their mean rank; a constant has no trend."""
    if len(set(values)) == 1:
        assert stats.drift(values) == 0.0
    else:
        assert stats.drift(values) == pytest.approx(scipy.stats.spearmanr(range(len(values)), values).statistic)


def test_a_cell_is_read_by_outcome() -> None:
    """Timeouts are censored; a not-cold or broken boot is in no figure; phases come from boots that went well."""
    boots = (
        Boot(0, 0, "ok", marks_ns={"api_return": 10**9, "ready": 2 * 10**9, "stop": 3 * 10**9, "reclaimed": 4 * 10**9}),
        Boot(0, 1, "timeout", marks_ns={"api_return": 5 * 10**9}),
        Boot(0, 2, "ok", marks_ns={"ready": 4 * 10**9, "stop": 5 * 10**9}, resolution_ns=10**6),
        Boot(0, 3, "not-cold", marks_ns={"ready": 1}, resolution_ns=7),
        Boot(0, 4, "error:exited"),
    )
    cell = Cell(Trial(0, "vm1", "cloud", "container", "docker", "warm", Load()), boots=boots)
    summary = stats.ready(cell)
    assert (summary.n, summary.censored, summary.median, summary.mean) == (3, 1, 4.0, None)
    assert stats.phase(cell, "api_return").mean == 1.0
    assert stats.phase(cell, "reclaimed", since="stop").mean == 1.0
    assert stats.resolution(cell).max == 0.001
    assert stats.blocks(cell) == {0: (2.0,), 1: (math.inf,), 2: (4.0,)}


def test_tied_samples_that_differ_everywhere_are_told_apart() -> None:
    """A simulator's 5 ms against 9 ms, every time: a median of exchanged sides hardly moves, ranks do."""
    fast, slow = (dict.fromkeys(range(30), (value,)) for value in (0.005, 0.009))
    found = stats.compare_pair(slow, fast)
    assert (found.ratio, found.ci95) == (pytest.approx(1.8), (pytest.approx(1.8), pytest.approx(1.8)))
    assert found.p_value is not None
    assert found.p_value < 0.001
    assert stats.compare_pair(fast, fast).p_value == 1


def test_many_blocks_use_the_normal_limit(monkeypatch) -> None:
    """And it agrees with the flips where both can be done."""
    rng = np.random.default_rng(5)
    a = {block: (value,) for block, value in enumerate(rng.lognormal(0.0, 1, 300))}
    b = {block: (value,) for block, value in enumerate(rng.lognormal(0.15, 1, 300))}
    by_flips = stats.compare_pair(a, b).p_value
    monkeypatch.setattr(stats, "LARGEST_FLIP", 100)
    assert stats.compare_pair(a, b).p_value == pytest.approx(by_flips, abs=0.03)
