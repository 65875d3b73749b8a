"""The table is honest and readable: units everywhere, nothing cut, greppable when it is not on a terminal."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from coldstart.model import Cell, Run
from coldstart.report import document, markdown, runs, text, words


def test_without_a_terminal_every_row_says_all_of_itself(built: dict[str, Any]) -> None:
    """No colours, no lines, no wrapping: one row, one line, its node and target in it."""
    lines = text.render(built).splitlines()
    assert all(ord(character) < 0x2500 and character != "\x1b" for line in lines for character in line)
    [row] = [line for line in lines if line.startswith("cloud/vm1  container")]
    for figure in (
        "30.4 ms",
        "30.1 .. 30.8 ms",
        "30.4 ms ± 303 us",
        "3.00 ms",
        "1.14 MiB",
        "3.00 MiB pss",
        "net=bridge",
    ):
        assert figure in row
    assert not any(line != line.rstrip() for line in lines)


def test_the_head_says_what_was_run_and_where_it_is(built: dict[str, Any]) -> None:
    """Run, playbook, state, time, seed, store."""
    head = text.render(built).splitlines()[:2]
    assert head[0] == "run 20261122-184530-3fa9: quick, finished, 2026-11-22 18:45:30 UTC, seed 7"
    assert head[1] == "store /var/lib/coldstart.db"


def test_comparisons_are_sentences(built: dict[str, Any]) -> None:
    """Who, by what factor, between which bounds, of how many, how sure."""
    shown = text.render(built)
    assert "vm1 warm: container takes 12.4x [" in shown
    assert "] the time of process, n = 10, p = 0.0" in shown
    assert "percent" not in shown  # the symmetric difference is never shown here


def test_failures_skips_and_doubts_are_shown(built: dict[str, Any]) -> None:
    """A censored cell has no mean; what did not run says why; doubts come with advice."""
    shown = text.render(built)
    [row] = [line for line in shown.splitlines() if line.startswith("edge/pi01  unikernel")]
    assert "12.0 .. 12.9 ms" not in row
    assert "12.0 ms .. longer" in row
    assert "Not run:\nedge/pi01 nanos warm: no image for aarch64\n" in shown
    assert "n < 30 in every cell" in shown
    assert "Narrower intervals need --boots 30 or more." in shown
    assert "<b>within</b>" in shown


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_on_a_terminal_it_fits(built: dict[str, Any], width: int) -> None:
    """Columns that matter least are left out, and named; nothing is longer than the line or cut with an ellipsis."""
    shown = text.render(built, width=width)
    assert max(len(line) for line in shown.splitlines()) <= width
    assert "…" not in shown
    assert ("Left out" in shown) is (width < 200)
    assert "median" in shown
    assert shown.count("cloud/vm1") == 1  # the group is named once


def test_colour_only_when_asked(built: dict[str, Any]) -> None:
    """A pipe never gets escape codes."""
    assert "\x1b[" in text.render(built, width=100, colour=True)
    assert "\x1b[" not in text.render(built, width=100)


def test_the_narrowest_terminal_folds(built: dict[str, Any]) -> None:
    """Even there no figure is cut."""
    shown = text.render(built, width=30)
    assert "2.45 ms" in shown
    assert "…" not in shown


def test_other_peoples_text_is_text(run: Run, cells: list[Cell]) -> None:
    """A name that looks like markup is shown as it is."""
    trial = dataclasses.replace(cells[0].trial, target="[red]x[/red]:warning:")
    built = document.build(run, [dataclasses.replace(cells[0], trial=trial)])
    assert "[red]x[/red]:warning:" in text.render(built)


def test_each_nodes_rows_stay_together(run: Run, cells: list[Cell]) -> None:
    """Whatever the order of the plan."""
    rows = text.render(document.build(run, [cells[0], cells[2], cells[1]])).splitlines()
    places = [line.split()[0] for line in rows if line.startswith(("cloud/", "edge/"))]
    assert places == ["cloud/vm1", "cloud/vm1", "edge/pi01"]


def test_a_run_without_boots(run: Run) -> None:
    """Says so; says how far an unfinished one came."""
    shown = text.render(document.build(dataclasses.replace(run, state="interrupted"), []))
    assert "No boots yet." in shown
    assert "interrupted with 0 of 0 boots" in shown


def test_a_fleets_sentences_are_cut_on_a_terminal_only(built: dict[str, Any]) -> None:
    """Hundreds of comparisons are for scripts."""
    many = copy.deepcopy(built)
    many["comparisons"] *= 100
    assert "... and 60 more (--format json has all)" in text.render(many, width=120)
    assert text.render(many).count("takes 12.4x") == 100


PAIR = {
    "a": "unikernel",
    "b": "container",
    "node": "vm1",
    "start": "warm",
    "n": [15, 14],
    "ratio": 0.6796,
    "ci95": (0.667, 0.6989),
    "reduction_percent": 32.04,
    "p_adjusted": 0.0005,
    "verdict": "faster",
    "caveats": [],
}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "unikernel takes 32.0 % less time than container: 0.680x [0.667, 0.699], n = 15 and 14, p < 0.001"),
        (
            {"verdict": "undecided", "p_adjusted": 0.2, "ratio": 1.0, "ci95": None, "n": [4, 4]},
            "unikernel to container: 1.00x [no interval], too few boots for a verdict, n = 4, p = 0.2",
        ),
        (
            {"verdict": "undecided", "p_adjusted": 0.07, "ratio": 9.0, "ci95": (8.1, 10.2), "n": [8, 8]},
            "unikernel to container: 9.00x [8.10, 10.2], too few boots for a verdict, n = 8, p = 0.07",
        ),
        (
            {"verdict": "undecided", "p_adjusted": 0.4, "ratio": 1.01, "ci95": (0.97, 1.06)},
            "no difference shown between unikernel and container: 1.01x [0.970, 1.06], n = 15 and 14, p = 0.4",
        ),
        (
            {"verdict": "slower", "ratio": 1234.5, "ci95": (1001, 100.4), "caveats": ["accel=tcg against accel=kvm"]},
            "unikernel takes 1234x [1001, 100] the time of container, n = 15 and 14, p < 0.001,"
            " accel=tcg against accel=kvm",
        ),
        ({"ratio": None}, "unikernel and container cannot be compared: a median is a timeout"),
        ({"ratio": None, "n": [3, 0]}, "unikernel and container cannot be compared: one has no boot that went well"),
    ],
)
def test_the_sentences(changes: dict[str, Any], sentence: str) -> None:
    """Faster is a reduction, slower a factor, undecided says what is lacking."""
    assert words.comparison({**PAIR, **changes}) == "vm1 warm: " + sentence


def test_spans_name_a_shared_unit_once() -> None:
    """And say that an end is not known."""
    assert words.span(0.005, 0.0055) == "5.00 .. 5.50 ms"
    assert words.span(0.9, 1.2) == "900 ms .. 1.20 s"
    assert words.span(59.0, 95.0) == "59.0 s .. 1m35s"
    assert words.span(1.0, None) == "1.00 s .. longer"
    assert words.span(None, None) == "-"


def test_words_for_what_is_not_known() -> None:
    """A dash; a median among timeouts is called that; one boot has no spread."""
    nothing = {"n": 0, "median": None, "ci95": None, "mean": None, "sd": None}
    assert (words.median(None), words.median(nothing), words.interval(nothing), words.spread(nothing)) == ("-",) * 4
    assert words.median({**nothing, "n": 3}) == "timeout"
    assert words.spread({**nothing, "mean": 1.0}) == "1.00 s"
    assert words.size(None) == "-"
    assert words.memory({"memory_bytes": {"pss": None, "cgroup_peak": 2048}}) == "2.00 KiB cgroup_peak"


def test_markdown_escapes_and_keeps_lines_whole(built: dict[str, Any]) -> None:
    """A pipe or a tag in a name does not break the table or the page."""
    bad = copy.deepcopy(built)
    bad["cells"][0]["target"] = "a|b\nc"
    shown = markdown.render(bad)
    assert "| a\\|b c |" in shown
    assert "\\<b\\>within" in shown
    table = [line for line in shown.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "### Comparisons" in shown
    assert "### Not run" in shown


def test_markdown_of_nothing(run: Run) -> None:
    """Only the heading."""
    assert markdown.render(document.build(run, [])).count("\n") == 1


def test_runs_as_a_table(run: Run) -> None:
    """One line per run with how long it took; a running one has no end."""
    shown = runs.as_table([dataclasses.replace(run, id="later", state="running", finished_ns=None), run])
    header, later, first = shown.splitlines()
    assert header.split()[0] == "run"
    assert later.split()[:3] == ["later", "quick", "running"]
    assert " - " in later
    assert "2026-11-22 18:45:30" in first
    assert "1m00s" in first
    assert "─" not in shown
    assert "─" in runs.as_table([run], width=100)
