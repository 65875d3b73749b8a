"""Each doubt appears when there is reason, once for all cells it is about, and not otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest

from coldstart import stats
from coldstart.doubts import Doubt, doubts
from coldstart.model import Boot, Cell, Load, Trial

MS = 1_000_000


def a_boot(index: int, ready_ms: float = 100.0) -> Boot:
    wobble = (index * 7 % 11) / 10  # neither constant nor a trend
    return Boot(
        trial=0,
        index=index,
        outcome="ok",
        marks_ns={"ready": int((ready_ms + wobble) * MS)},
        resolution_ns=MS,
        memory_bytes={"pss": 4096},
    )


def a_cell(
    change: Callable[[Boot], Boot] = lambda boot: boot, *, target: str = "container", start: str = "warm", n: int = 40
) -> Cell:
    trial = Trial(0, "pi01", "edge", target, "docker", start, Load(boots=n))
    return Cell(trial, "aarch64", boots=tuple(change(a_boot(index)) for index in range(n)))


def said(*cells: Cell) -> dict[str, Doubt]:
    found = doubts(cells, [stats.ready(cell) for cell in cells])
    assert len({doubt.kind for doubt in found}) == len(found)
    return {doubt.kind: doubt for doubt in found}


def test_a_good_cell_raises_no_doubt() -> None:
    """Nothing to say is said by nothing; so it is of a cell that has not run."""
    assert said(a_cell(), a_cell(start="page-cold")) == {}
    assert said(dataclasses.replace(a_cell(n=0), skipped="no engine")) == {}


def test_few_boots_are_one_line_for_all_cells() -> None:
    """Many small cells make one doubt, which says how to get more."""
    doubt = said(a_cell(n=10), a_cell(n=20, start="page-cold"))["few"]
    assert doubt.text == "n < 30 in every cell, the smallest has n = 10"
    assert "--boots 30" in doubt.advice
    assert said(a_cell(), a_cell(n=29, target="vm"))["few"].text.startswith("n < 30 in pi01 vm warm (n = 29)")


def test_failed_boots_give_their_most_common_reason() -> None:
    """Timeouts and errors are counted together; a long reason is cut, one of many lines made one."""

    def fail(boot: Boot) -> Boot:
        outcomes = {
            0: ("timeout", "no answer\n within 20 s"),
            1: ("error:exited", "code 1"),
            2: ("timeout", "no answer within 20 s"),
        }
        outcome, detail = outcomes.get(boot.index, ("ok", ""))
        return dataclasses.replace(boot, outcome=outcome, detail=detail)

    text = said(a_cell(fail))["failed"].text
    assert text == "boots failed: pi01 container warm (3 of 40, most often timeout: no answer within 20 s)"

    def fail_at_length(boot: Boot) -> Boot:
        return dataclasses.replace(boot, outcome="error:start", detail="x" * 1000) if boot.index == 0 else boot

    assert len(said(a_cell(fail_at_length))["failed"].text) < 250
    plain = said(a_cell(lambda b: dataclasses.replace(b, outcome="not-cold", detail="")))["failed"].text
    assert plain == "boots failed: pi01 container warm (40 of 40, not-cold)"


def test_an_outlier_is_counted_not_dropped() -> None:
    """Ten robust standard deviations off."""
    cell = a_cell(lambda boot: a_boot(boot.index, 500 if boot.index == 20 else 100))
    assert said(cell).keys() == {"outliers"}
    assert "pi01 container warm (1 of 40)" in said(cell)["outliers"].text


@pytest.mark.parametrize(("growth", "doubted"), [(0.5, True), (-0.5, True), (0.02, False), (0.0, False)])
def test_drift_is_told_if_it_matters(growth: float, doubted: bool) -> None:
    """A trend of the median by 5 % or more; a real but tiny one is not worth a line."""
    cell = a_cell(lambda boot: a_boot(boot.index, 100 + growth * boot.index))
    assert ("drift" in said(cell)) is doubted


def test_drift_says_how_much() -> None:
    """The sign tells in which direction."""
    cell = a_cell(lambda boot: a_boot(boot.index, 100 + 0.5 * boot.index))
    assert "(+12 %)" in said(cell)["drift"].text
    assert "drift" not in said(a_cell(lambda boot: a_boot(boot.index, 100 + 50 * boot.index), n=8))


def test_slow_probes_are_told() -> None:
    """The 99th percentile of the resolution, above 10 ms."""
    cell = a_cell(lambda boot: dataclasses.replace(boot, resolution_ns=12 * MS if boot.index == 3 else None))
    assert "12.0 ms" in said(cell)["resolution"].text


def test_disturbed_boots_are_counted_by_cause() -> None:
    """Flags are grouped; the most common comes first."""

    def disturb(boot: Boot) -> Boot:
        flags = {0: ("disturbed:steal", "disturbed:throttled"), 1: ("disturbed:steal",)}
        return dataclasses.replace(boot, flags=flags.get(boot.index, ()))

    assert "(2 steal, 1 throttled)" in said(a_cell(disturb))["disturbed"].text


def test_what_was_not_given_back_is_told() -> None:
    """With an example; it is not the host's doing."""
    found = said(a_cell(lambda boot: dataclasses.replace(boot, flags=("not-reclaimed:port 80",))))
    assert "40 boots, not-reclaimed:port 80" in found["left-behind"].text
    assert "disturbed" not in found


def test_unreadable_memory_is_told() -> None:
    """No reading at all, though instances were ready."""
    assert "memory" in said(a_cell(lambda boot: dataclasses.replace(boot, memory_bytes={})))
    dead = a_cell(lambda boot: dataclasses.replace(boot, outcome="timeout", marks_ns={}, memory_bytes={}))
    assert said(dead).keys() == {"failed", "few"} - {"few"}


@pytest.mark.parametrize(
    ("label", "kind"),
    [(("probe", "after-api"), "probe"), (("net", "proxied"), "proxied"), (("accel", "tcg"), "emulated")],
)
def test_labels_that_change_the_figure_are_told(label: tuple[str, str], kind: str) -> None:
    """What is measured differently says so, with the way to measure it well."""
    cell = dataclasses.replace(a_cell(), labels=dict([label]))
    doubt = said(cell, a_cell(target="other"))[kind]
    assert (doubt.subject, bool(doubt.advice)) == ("pi01 container warm", True)


def test_many_cells_stay_one_short_line() -> None:
    """Three are named, the rest counted; the subject has them all, for scripts."""

    def cells() -> Iterator[Cell]:
        for number in range(6):
            yield dataclasses.replace(a_cell(target=f"t{number}"), labels={"accel": "tcg"})

    doubt = said(*cells())["emulated"]
    assert doubt.text.endswith("pi01 t0 warm, pi01 t1 warm, pi01 t2 warm and 3 more")
    assert doubt.subject.count("warm") == 6
