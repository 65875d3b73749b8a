"""The report as Markdown, for an issue or a README: one table, the comparisons and the doubts as lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coldstart.report import synchronised, words
from coldstart.report.words import COLUMNS


def render(document: Mapping[str, Any]) -> str:
    cells = [cell for cell in document["cells"] if cell["boots"]]
    blocks = [[f"## {_plain(words.heading(document))}"]]
    if cells:
        blocks.append(list(_table(cells)))
    blocks += _section("Comparisons", [words.comparison(entry) for entry in document["comparisons"]])
    blocks += _section("Started together", list(synchronised.lines(document["sync"])))
    blocks += _section("Missing", [words.missing(entry) for entry in document["missing"]])
    blocks += _section("Not run", [words.not_run(cell) for cell in document["cells"] if cell["skipped"]])
    blocks += _section("Doubts", [words.warning(entry) for entry in document["warnings"]])
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _table(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield _row([column.header for column in COLUMNS])
    yield _row(["---:" if column.right else "---" for column in COLUMNS])
    for cell in cells:
        yield _row([_plain(column.text(cell)) for column in COLUMNS])


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _section(title: str, lines: Sequence[str]) -> list[list[str]]:
    return [[f"### {title}"], [f"- {_plain(line)}" for line in lines]] if lines else []


def _plain(text: str) -> str:
    """Names and reasons are other people's text: what Markdown would act on is escaped, a line stays one line."""
    for character in "\\`*_<>|#[]":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
