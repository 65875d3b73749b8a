"""From samples to what may be said of them: summaries, comparisons, and signs of trouble. Pure; numpy only.

Every sample counts. A boot that timed out is right-censored: longer than any that was seen, how much is unknown. So
it is +infinity for the median, its interval and p95 (None where they fall on one), and there is no mean, sd or max
with it. A boot that failed in another way says nothing about duration: it is counted elsewhere, and is not here.

Definitions. Quantile: numpy's `linear` (Hyndman and Fan's type 7); with censoring, None as soon as one of the two
neighbours is censored. Interval of the median: the pair of order statistics, symmetric in rank, whose exact binomial
coverage is at least 95 %; it exists from n = 6 on and assumes no distribution. Ratio of medians: percentile bootstrap
over blocks (the boots that ran side by side: a wave, or one turn of the interleaved order), which are not independent
inside. p-value: permutation of the two sides within blocks. Both are seeded: the same data give the same answer.

Limits. The bootstrap interval is approximate (a little narrow below n = 15). Above 500 blocks the resamples
are of 500 blocks and their spread is scaled by the root of the share (m out of n), to stay within memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coldstart.agent.records import OK, TIMEOUT
from coldstart.model import Boot, Cell

Array = NDArray[np.float64]
Blocks = Mapping[int, Sequence[float]]  # by block, its samples; inf is a censored one

CONFIDENCE = 0.95
RESAMPLES = 2000
LARGEST_FLIP = 2000  # blocks
LARGEST_RESAMPLE = 500


@dataclass(frozen=True)
class Summary:
    """What n samples say, in their own unit. censored: how many of the n are only known to be longer.

    sd: of the sample (ddof 1), from n = 2. ci95: of the median, from n = 6; its upper end None where censored.
    min, max: of what was seen; max None if any is censored.
    """

    n: int = 0
    censored: int = 0
    median: float | None = None
    mean: float | None = None
    sd: float | None = None
    p95: float | None = None
    min: float | None = None
    max: float | None = None
    ci95: tuple[float, float | None] | None = None


@dataclass(frozen=True)
class Comparison:
    """`a` against `b`. ratio: median(a) / median(b), None where censored; p_value: that they do not differ.

    reduction_percent: by how much a is less than b, of b. symmetric_percent: the difference of the mean of both.
    """

    n_a: int
    n_b: int
    ratio: float | None = None
    ci95: tuple[float, float] | None = None
    p_value: float | None = None
    reduction_percent: float | None = None
    symmetric_percent: float | None = None

    def verdict(self, p_adjusted: float | None = None) -> str:
        """`slower`, `faster` or `undecided`: a against b. The one method: permutation, and the interval must agree.

        p_adjusted: for several comparisons, what `holm` made of p_value.
        """
        p_value = self.p_value if p_adjusted is None else p_adjusted
        if p_value is None or self.ci95 is None or p_value > 1 - CONFIDENCE:
            return "undecided"
        low, high = self.ci95
        if low <= 1 <= high:
            return "undecided"
        return "slower" if low > 1 else "faster"


def summarise(values: ArrayLike, *, censored: int = 0) -> Summary:
    """Of the samples that were seen, and the number of those that were cut off."""
    seen = np.sort(np.asarray(values, dtype=np.float64))
    whole = np.concatenate([seen, np.full(censored, np.inf)])
    if not len(whole):
        return Summary()
    complete = not censored
    return Summary(
        n=len(whole),
        censored=censored,
        median=_at(whole, 0.5),
        mean=float(seen.mean()) if complete else None,
        sd=float(seen.std(ddof=1)) if complete and len(seen) > 1 else None,
        p95=_at(whole, 0.95),
        min=float(seen[0]) if len(seen) else None,
        max=float(seen[-1]) if complete else None,
        ci95=_median_interval(whole),
    )


def quantile(values: ArrayLike, q: float, *, censored: int = 0) -> float | None:
    """The q-quantile; None if it falls on a censored sample, or lies above p95 with less than one sample beyond it.

    So there is no p99 below n = 100: it would be a name for the maximum.
    """
    whole = np.concatenate([np.sort(np.asarray(values, dtype=np.float64)), np.full(censored, np.inf)])
    # The margin forgives that 1 - 0.99 is a little more than 0.01.
    if not len(whole) or (q > 0.95 and len(whole) * (1 - q) < 1 - 1e-9):
        return None
    return _at(whole, q)


def reduction_percent(a: float, b: float) -> float:
    """By how many percent of b is a less than b."""
    return 100 * (1 - a / b)


def symmetric_percent(a: float, b: float) -> float:
    """The difference in percent of the mean of both: larger than the reduction, and often mistaken for it."""
    return 100 * (b - a) / ((a + b) / 2)


def compare_pair(a: Blocks, b: Blocks, *, seed: int = 0) -> Comparison:
    """Compare the medians of two samples that ran in the same blocks; a block may lack either side."""
    blocks = sorted(set(a) | set(b))
    table_a, table_b = _tables(a, b, blocks)
    n_a, n_b = _count(table_a), _count(table_b)
    if not (n_a and n_b):
        return Comparison(n_a, n_b)
    median_a, median_b = (float(_medians(table.reshape(1, -1))[0]) for table in (table_a, table_b))
    if not (0 < median_a < math.inf and 0 < median_b < math.inf):
        return Comparison(n_a, n_b)
    rng = np.random.default_rng(seed)
    log_ratio = math.log(median_a / median_b)
    enough = min(n_a, n_b, len(blocks)) >= 6
    return Comparison(
        n_a=n_a,
        n_b=n_b,
        ratio=median_a / median_b,
        ci95=_ratio_interval(table_a, table_b, log_ratio, rng) if enough else None,
        p_value=_permutation_p(table_a, table_b, rng),
        reduction_percent=reduction_percent(median_a, median_b),
        symmetric_percent=symmetric_percent(median_a, median_b),
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Each p-value adjusted for there being several (Holm's step-down), in the order given."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def robust_z(values: ArrayLike) -> Array:
    """How many standard deviations each sample is off, by median and MAD, which outliers do not move.

    0.6745 makes the MAD of a normal distribution its sd. All zero where more than half of the samples are equal.
    """
    samples = np.asarray(values, dtype=np.float64)
    if not len(samples):
        return samples
    distance = samples - np.median(samples)
    mad = float(np.median(np.abs(distance)))
    return 0.6745 * distance / mad if mad else np.zeros_like(samples)


def drift(values: ArrayLike) -> float:
    """Spearman's rank correlation of the samples with their order: 1 ever slower, -1 ever faster, 0 no trend."""
    samples = np.asarray(values, dtype=np.float64)
    _, which, counts = np.unique(samples, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return 0.0
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]  # equal samples share the mean of their ranks
    return float(np.corrcoef(np.arange(len(samples)), ranks)[0, 1])


# -- of a cell: durations in seconds ----------------------------------------------------------------------------


def ready(cell: Cell) -> Summary:
    """`command` to `ready`; timeouts are censored."""
    timeouts = sum(boot.outcome == TIMEOUT for boot in cell.boots)
    return summarise(span_seconds(cell, "", "ready"), censored=timeouts)


def phase(cell: Cell, mark: str, *, since: str = "") -> Summary:
    """From `since` (`command` if empty) to `mark`, of the boots that went well and have both."""
    return summarise(span_seconds(cell, since, mark))


def span_seconds(cell: Cell, since: str, mark: str) -> list[float]:
    """Of the boots that went well and have both marks, in the order in which they ran."""
    good = [boot.marks_ns for boot in cell.boots if boot.outcome == OK]
    if not since:
        return [marks[mark] / 1e9 for marks in good if mark in marks]
    return [(marks[mark] - marks[since]) / 1e9 for marks in good if mark in marks and since in marks]


def resolution(cell: Cell) -> Summary:
    """How sharply `ready` was seen: from the last probe that failed to the first that did not."""
    return summarise([b.resolution_ns / 1e9 for b in cell.boots if b.outcome == OK and b.resolution_ns is not None])


def blocks(cell: Cell) -> dict[int, tuple[float, ...]]:
    """`ready` by the boot's index: in interleaved order the boots of one index ran in the same turn."""
    seconds = {boot.index: _ready_or_censored(boot) for boot in cell.boots}
    return {index: (value,) for index, value in seconds.items() if value is not None}


def _ready_or_censored(boot: Boot) -> float | None:
    if boot.outcome == TIMEOUT:
        return math.inf
    return boot.marks_ns["ready"] / 1e9 if boot.outcome == OK else None


# -- inside -----------------------------------------------------------------------------------------------------


def _at(ascending: Array, q: float) -> float | None:
    """Type 7 quantile of a sorted array; None if either neighbour that has weight is infinite."""
    place = q * (len(ascending) - 1)
    low = math.floor(place)
    share = place - low
    high = ascending[low + 1] if share else ascending[low]
    if math.isinf(high):
        return None
    return float(ascending[low] + share * (high - ascending[low]))


def _median_interval(ascending: Array) -> tuple[float, float | None] | None:
    below = _rank_below(len(ascending))
    if not below:
        return None
    low, high = float(ascending[below - 1]), float(ascending[-below])
    if math.isinf(low):
        return None
    return (low, None if math.isinf(high) else high)


def _rank_below(n: int) -> int:
    """The largest k with P(k-th smallest <= median <= k-th largest) >= 95 %, 0 if there is none."""
    k = np.arange(1, n // 2 + 1)
    # Binomial(n, 1/2), by logarithms: 2**-n is zero in floating point from n = 1075 on.
    log_mass = np.concatenate([[0.0], np.cumsum(np.log((n - k + 1) / k))]) - n * math.log(2)
    tail = np.cumsum(np.exp(log_mass))  # P(at most 0, 1, ... samples below the median)
    return int(np.searchsorted(tail, (1 - CONFIDENCE) / 2, side="right"))


def _tables(a: Blocks, b: Blocks, blocks: Sequence[int]) -> tuple[Array, Array]:
    """One row per block, one column per sample of it, nan where a block has fewer."""
    width = max((len(samples) for side in (a, b) for samples in side.values()), default=0) or 1
    row = {block: number for number, block in enumerate(blocks)}
    tables = np.full((2, len(blocks), width), np.nan)
    for table, side in zip(tables, (a, b), strict=True):
        flat = [(row[block], slot, value) for block, samples in side.items() for slot, value in enumerate(samples)]
        rows, slots, values = zip(*flat, strict=True) if flat else ((), (), ())
        table[list(rows), list(slots)] = values
    return tables[0], tables[1]


def _count(table: Array) -> int:
    return int(np.count_nonzero(~np.isnan(table)))


def _medians(rows: Array) -> Array:
    """The median of each row without its nans (sorted last, after inf); nan for a row that has nothing else."""
    rows = np.sort(rows, axis=1)
    n = np.count_nonzero(~np.isnan(rows), axis=1)
    middle = np.stack([np.maximum(n - 1, 0) // 2, np.minimum(n // 2, rows.shape[1] - 1)], axis=1)
    result: Array = np.take_along_axis(rows, middle, axis=1).mean(axis=1)
    return result


def _log_ratios(a: Array, b: Array) -> Array:
    """Of resamples (resample, block, slot); nan where a side has nothing finite to stand for it."""
    medians_a, medians_b = (_medians(side.reshape(len(side), -1)) for side in (a, b))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(medians_a) - np.log(medians_b))


def _picks(table: Array, rng: np.random.Generator) -> tuple[NDArray[np.int64], float]:
    """For each resample its blocks, drawn with replacement; and the factor that scales its deviation to all."""
    size = min(len(table), max(1, LARGEST_RESAMPLE // table.shape[1]))
    return rng.integers(len(table), size=(RESAMPLES, size)), math.sqrt(size / len(table))


def _ratio_interval(a: Array, b: Array, log_ratio: float, rng: np.random.Generator) -> tuple[float, float] | None:
    picks, scale = _picks(a, rng)
    ratios = _log_ratios(a[picks], b[picks])
    if not np.isfinite(ratios).all():  # some resample has its median among the timeouts: no honest bound
        return None
    deviation = np.quantile(ratios - log_ratio, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) * scale
    low, high = np.exp(log_ratio + deviation)
    return (float(low), float(high))


def _permutation_p(a: Array, b: Array, rng: np.random.Generator) -> float:
    """Could the sides have been exchanged in every block? Sign flips of the blocks' differences in pooled rank.

    Ranks, because medians of tied samples hardly move when sides are exchanged. Only blocks with both sides say
    anything. Beyond LARGEST_FLIP blocks the sum of so many flips is normal.
    """
    ranks = _ranks(np.stack([a, b]))
    count = np.count_nonzero(~np.isnan(ranks), axis=2)
    both = (count > 0).all(axis=0)
    means = np.nansum(ranks, axis=2)[:, both] / count[:, both]
    differences = means[0] - means[1]
    observed = abs(float(differences.sum()))
    if observed == 0:
        return 1.0
    if len(differences) > LARGEST_FLIP:
        return math.erfc(observed / math.sqrt(2 * float((differences**2).sum())))
    flips = rng.choice((-1.0, 1.0), size=(RESAMPLES, len(differences)))
    extreme = np.abs(flips @ differences) >= observed * (1 - 1e-9)  # the margin forgives rounding
    return float((1 + np.count_nonzero(extreme)) / (1 + RESAMPLES))


def _ranks(values: Array) -> Array:
    """Each value's rank among all of them, ties sharing theirs; nan stays nan."""
    known = ~np.isnan(values)
    _, inverse, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    ranks = np.full(values.shape, np.nan)
    ranks[known] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks
