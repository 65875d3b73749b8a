"""Writes the parts of docs/ that the code already says: docs/cli.md, and the options in docs/runtimes.md.

`--check` writes nothing and fails if something would change. In runtimes.md only what stands between the two marker
lines is ours; the text around it is written by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from coldstart.agent import runtimes
from coldstart.cli import main as cli
from coldstart.playbook import option_keys

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN = "<!-- generated: options -->"
END = "<!-- end of generated: options -->"
# A playbook leaves the unit out of the name and writes it after the number: `tcp_ns` is `tcp: 4ms` there.
UNITS = {
    "_ns": ("duration", {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}),
    "_bytes": ("size", {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}),
}
WIDTH = 100  # the help text must not depend on the terminal of whoever writes the docs


# --- docs/cli.md ---


def verbs(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """Every verb with its help, depth first."""
    context = click.Context(command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found and not found.hidden:
                yield from verbs(found, child, context)


def cli_page() -> str:
    sections = (f"## {path}\n\n```text\n{text}\n```\n" for path, text in verbs(cli, "coldstart"))
    return "# Command line\n\nWritten by `make docs` from `--help`; change it there.\n\n" + "\n".join(sections)


# --- docs/runtimes.md ---


def with_unit(amount: int, sizes: dict[str, int]) -> str:
    """In the largest unit that leaves no fraction."""
    unit, size = next((unit, size) for unit, size in sizes.items() if amount % size == 0)
    return f"{amount // size}{unit}" if amount else "0"


def default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def row(name: str, field: dataclasses.Field[Any]) -> str:
    kind, value = str(field.type), default(field)
    for suffix, (quantity, sizes) in UNITS.items():
        if field.name.endswith(suffix):
            kind = quantity
            value = with_unit(value, sizes) if isinstance(value, int) else value
    values = ", ".join(f"`{choice}`" for choice in field.metadata.get("choices", ())) or kind
    return f"| `{name}` | {values} | {'required' if value is dataclasses.MISSING else f'`{value}`'} |"


def options(name: str) -> str:
    kind = runtimes.load(name).Options
    rows = [row(key, field) for key, field in option_keys(name).items()]
    table = ["| option | values | default |", "|---|---|---|", *rows] if rows else ["No options."]
    return "\n".join([f"### {name}", "", *written_doc(kind), *table, ""])


def written_doc(kind: type) -> list[str]:
    """Its docstring; not the signature that dataclasses put where there is none."""
    text = inspect.cleandoc(kind.__doc__ or "")
    return [] if text.startswith(f"{kind.__name__}(") else [text, ""]


def runtimes_page(now: str) -> str:
    before, begin, rest = now.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"docs/runtimes.md: the lines {BEGIN} and {END} must be there; put them where the options belong")
    block = "\n".join(options(name) for name in runtimes.names())
    return f"{before}{BEGIN}\n\n{block}\n{END}{after}"


# --- both ---


def pages() -> dict[Path, str]:
    """What each file should hold."""
    by_hand = DOCS / "runtimes.md"
    now = by_hand.read_text() if by_hand.exists() else f"# Runtimes\n\n{BEGIN}\n{END}\n"
    return {DOCS / "cli.md": cli_page(), by_hand: runtimes_page(now)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something would change")
    check = parser.parse_args().check
    stale = {path: text for path, text in pages().items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        print(f"docs/{path.name}: {'out of date; next: make docs' if check else 'written'}")
        if not check:
            path.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
