"""What `make check` (--fast) and `make test` run: every part, in order, with its wall time; fails if any fails.

A part that fails does not stop the others: one run shows all there is to mend. Under CI and root nothing may be
skipped and every live test of tests/live/expected.txt must have run; elsewhere (no engine, no root) skips are shown
with their reasons and counted in the last line.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
EXPECTED = "tests/live/expected.txt"


@dataclass(frozen=True)
class Part:
    name: str
    argv: tuple[str, ...]
    live: bool = False


@dataclass(frozen=True)
class Result:
    name: str
    passed: bool
    seconds: float
    skipped: int


def tool(name: str, *args: str) -> tuple[str, ...]:
    return (str(BIN / name), *args)


def pytest(*args: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pytest", "-p", "no_skips", *args)


def parts(*, strict: bool) -> list[Part]:
    """strict: no test may be skipped, no expected live test may be missing."""
    no_skips = ("--no-skips",) if strict else ()
    expected = ("--expected", EXPECTED) if strict else ()
    return [
        Part("format", tool("ruff", "format", "--check", ".")),
        Part("lint", tool("ruff", "check", ".")),
        Part("types", tool("mypy")),
        Part("layers", tool("lint-imports", "--no-logo")),
        Part("docs", (sys.executable, "scripts/docs.py", "--check")),
        Part("unit", pytest("-m", "not live", "-n", "auto", *no_skips)),
        Part("live", pytest("-m", "live", *no_skips, *expected), live=True),
    ]


def environment() -> dict[str, str]:
    """tests/ on the path is where pytest finds the plug-in no_skips."""
    path = [str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def run(part: Part, scratch: Path) -> Result:
    print(f"\n=== {part.name}: {' '.join(part.argv)}", flush=True)
    junit = scratch / f"{part.name}.xml"
    argv = [*part.argv, f"--junitxml={junit}"] if "pytest" in part.argv else part.argv
    begin = time.monotonic()
    status = subprocess.run(argv, cwd=ROOT, env=environment(), check=False).returncode
    return Result(part.name, status == 0, time.monotonic() - begin, skipped_in(junit))


def skipped_in(junit: Path) -> int:
    if not junit.exists():
        return 0
    return sum(int(suite.get("skipped", 0)) for suite in ET.parse(junit).iter("testsuite"))


def show(results: list[Result]) -> None:
    print(f"\n{'part':<8} {'verdict':<8} {'seconds':>8}")
    for result in results:
        print(f"{result.name:<8} {'passed' if result.passed else 'FAILED':<8} {result.seconds:8.1f}")
    failed = [result.name for result in results if not result.passed]
    skipped = sum(result.skipped for result in results)
    verdict = f"FAILED: {', '.join(failed)}" if failed else "all passed"
    skips = f", but {skipped} tests were skipped (reasons above)" if skipped else ""
    print(f"{verdict} in {sum(result.seconds for result in results):.0f} s{skips}")


def update_expected() -> int:
    argv = pytest("-m", "live", "--collect-only", "-q", "--expected", EXPECTED, "--update-expected")
    return subprocess.run(argv, cwd=ROOT, env=environment(), check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="all but the live tests")
    parser.add_argument("--update-expected", action="store_true", help=f"write {EXPECTED} from what is collected now")
    options = parser.parse_args()
    if options.update_expected:
        return update_expected()
    strict = os.environ.get("CI") == "true" and os.geteuid() == 0
    with tempfile.TemporaryDirectory() as scratch:
        todo = [part for part in parts(strict=strict) if not (options.fast and part.live)]
        results = [run(part, Path(scratch)) for part in todo]
    show(results)
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
