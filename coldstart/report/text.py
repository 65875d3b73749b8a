"""The report for people: a table, the comparisons in sentences, then the doubts with advice.

On a terminal it fits the width: the columns that matter least are left out, and named. Elsewhere (width None) every
row is one line that says all of itself, without colours, lines or cuts, for grep and diff.
"""

from __future__ import annotations

import io
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from coldstart.report import synchronised, words
from coldstart.report.words import COLUMNS, Column

UNBOUNDED = 100_000  # columns of a console that never wraps
EMPTY = ("", words.NONE)
MOST_LINES = 40  # of one section on a terminal; a fleet has hundreds
CAPTION = "From `command` to `ready`, the median first; reclaimed: the median from `stop`."


def render(document: Mapping[str, Any], *, width: int | None = None, colour: bool = False) -> str:
    """width: of the terminal, None if it is not one."""
    console = _console(width or UNBOUNDED, colour)
    cells = [cell for cell in document["cells"] if cell["boots"]]
    _say(console, [words.heading(document)], width, style="bold")
    _say(console, [f"store {document['store']}"] if document["store"] else [], width)
    console.print()
    _say(console, [CAPTION if cells else "No boots yet."], width)
    if cells:
        left_out = _print_table(console, cells, width)
        _say(console, left_out, width, style="dim")
    for title, lines, style in _sections(document):
        if lines:
            console.print()
            _say(console, [title], width, style="bold")
            _say(console, lines if width is None else _cut(lines), width, style=style)
    return _captured(console)


def table(rows: Sequence[Sequence[str]], headers: Sequence[tuple[str, bool]], *, width: int | None = None) -> str:
    """Rows as a table. headers: each with whether its column is aligned to the right."""
    console = _console(width or UNBOUNDED, colour=False)
    console.print(_table(headers, rows, plain=width is None))
    return _captured(console)


def _sections(document: Mapping[str, Any]) -> Iterator[tuple[str, list[str], str]]:
    comparisons = document["comparisons"]
    per_node = max(Counter(entry["node"] for entry in comparisons).values(), default=0)
    adjusted = f", adjusted for up to {per_node} comparisons on a node" if per_node > 1 else ""
    title = f"Ratios of medians with 95 % interval; p by permutation within blocks{adjusted}:"
    yield title, [words.comparison(entry) for entry in comparisons], ""
    yield "Started together:", list(synchronised.lines(document["sync"])), ""
    yield "Missing:", [words.missing(entry) for entry in document["missing"]], "red"
    yield "Not run:", [words.not_run(cell) for cell in document["cells"] if cell["skipped"]], ""
    yield "Doubts:", [words.warning(entry) for entry in document["warnings"]], "yellow"


def _print_table(console: Console, cells: Sequence[Mapping[str, Any]], width: int | None) -> list[str]:
    """Print what fits; returns the line that says what did not."""
    used = [column for column in COLUMNS if any(column.text(cell) not in EMPTY for cell in cells)]
    shown = used if width is None else _fitting(used, cells, width)
    console.print(_cells_table(shown, cells, plain=width is None))
    missing = ", ".join(column.header for column in used if column not in shown)
    return [f"Left out for want of width: {missing} (--format json has all)."] if missing else []


def _cut(lines: list[str]) -> list[str]:
    more = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], f"... and {more} more (--format json has all)"] if more > 0 else lines


def _fitting(columns: Sequence[Column], cells: Sequence[Mapping[str, Any]], width: int) -> list[Column]:
    """As many columns as fit, the highest rank (and among equals the rightmost) leaving first."""
    kept = list(columns)
    wide = _console(UNBOUNDED, colour=False)
    while wide.measure(_cells_table(kept, cells, plain=False)).maximum > width:
        last = max(kept, key=lambda column: (column.rank, kept.index(column)))
        if not last.rank:
            break
        kept.remove(last)
    return kept


def _cells_table(columns: Sequence[Column], cells: Sequence[Mapping[str, Any]], *, plain: bool) -> Table:
    headers = [(column.header, column.right) for column in columns]
    result = _table(headers, (), plain=plain)
    before = ""
    for cell in cells:
        row = [column.text(cell) for column in columns]
        place = words.where(cell)
        if not plain and place == before:
            row[0] = ""  # a person sees the group; grep needs the word in every line
        elif before and not plain:
            result.add_section()
        before = place
        result.add_row(*row, style="red" if cell["failed"] else "")
    return result


def _table(headers: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]], *, plain: bool) -> Table:
    result = Table(box=None if plain else box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for header, right in headers:
        # On the narrowest terminals names are folded, figures never: half of one would be a wrong one.
        justify: JustifyMethod = "right" if right else "left"
        result.add_column(header, justify=justify, no_wrap=plain or right, overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result


def _say(console: Console, lines: Sequence[str], width: int | None, *, style: str = "") -> None:
    for line in lines:
        for part in _wrapped(line, width) if width else [line]:
            console.print(Text(part, style=style), soft_wrap=True)


def _wrapped(line: str, width: int) -> list[str]:
    """Never between a figure and its unit or name: `p = 0.01`, `12 %`."""
    held = line.replace(" = ", "\xa0=\xa0").replace(" %", "\xa0%")
    parts = textwrap.wrap(held, width, subsequent_indent="  ", break_on_hyphens=False)
    return [part.replace("\xa0", " ") for part in parts]


def _console(width: int, colour: bool) -> Console:
    """Writes to memory. Never markup or emoji: names of targets and reasons are other people's text."""
    return Console(
        file=io.StringIO(),
        width=width,
        color_system="standard" if colour else None,
        force_terminal=colour,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )


def _captured(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return "".join(line.rstrip() + "\n" for line in console.file.getvalue().splitlines())
