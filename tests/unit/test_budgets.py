"""The sizes that CONTRIBUTING.md allows: what is larger is taken apart, not excused."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from statistics import median, quantiles

import coldstart

PACKAGE = Path(coldstart.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def test_files() -> None:
    sizes = {str(path.relative_to(PACKAGE)): path.read_text().count("\n") for path in FILES}
    assert {name: size for name, size in sizes.items() if size > 400} == {}


def test_functions() -> None:
    """From `def` to the last line; half have at most 8, nine of ten at most 30, none more than 60."""
    sizes = {
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: size for name, size in sizes.items() if size > 60} == {}
    assert median(sizes.values()) <= 8
    assert quantiles(sizes.values(), n=10)[-1] <= 30


def test_every_module_has_its_line_in_the_architecture() -> None:
    """But reports, which are one layer, and what its folder says all of."""
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    names = {path.stem for path in FILES if path.parent.name not in ("report", "prepare") and path.stem != "__init__"}
    assert {name for name in names if not re.search(rf"`(?:\w+/)*{name}`", text)} == set()
