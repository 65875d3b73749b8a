"""A pytest plug-in for runs that must prove something: a skipped or vanished test is a failure.

--no-skips fails the run if any selected test was skipped. --expected FILE fails it if a test listed there did not run:
a file that is no longer collected, or a mark that no longer selects, would otherwise go unnoticed. A line of FILE is a
test's id, or its id without the parameters (one case is then enough); `#` begins a comment.
"""

from __future__ import annotations

from pathlib import Path

import pytest

UPDATE = ".venv/bin/python scripts/test.py --update-expected"
HEADER = f"# Live tests that must run wherever nothing may be skipped. Written by {UPDATE}\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("no_skips", "tests that must run")
    group.addoption("--no-skips", action="store_true", help="a skipped test fails the run")
    group.addoption("--expected", type=Path, metavar="FILE", help="every test listed in FILE must have run")
    group.addoption("--update-expected", action="store_true", help="write --expected's FILE from what is collected")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Watch(config), "no_skips_watch")


class Watch:
    """Sees every report go by and judges at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.no_skips: bool = config.getoption("no_skips")
        self.expected: Path | None = config.getoption("expected")
        self.update: bool = config.getoption("update_expected")
        self.skipped: list[str] = []
        self.ran: set[str] = set()
        self.complaints: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped.append(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # An expected failure is reported as skipped, but has run.
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)
        elif report.when == "call":
            self.ran |= {report.nodeid, without_parameters(report.nodeid)}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if self.update and self.expected:
            lines = sorted({listed(item.nodeid) for item in session.items})
            self.expected.write_text(HEADER + "".join(f"{line}\n" for line in lines))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.config.option.collectonly:
            return
        if self.no_skips:
            self.complaints += [f"skipped: {name}" for name in self.skipped]
        if self.expected:
            missing = sorted(set(read(self.expected)) - self.ran)
            self.complaints += [f"expected, but did not run: {name}" for name in missing]
        if self.complaints and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.complaints:
            return
        terminalreporter.section("tests that had to run", red=True)
        for line in self.complaints:
            terminalreporter.line(line)
        terminalreporter.line(f"next: mend what keeps them from running; if they are gone on purpose: {UPDATE}")


def read(expected: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in expected.read_text().splitlines())
    return [line for line in lines if line]


def without_parameters(nodeid: str) -> str:
    return nodeid.partition("[")[0]


def listed(nodeid: str) -> str:
    """The runtimes' exam is listed runtime by runtime: there, the parameter says what would be missing."""
    return nodeid if nodeid.startswith("tests/runtimes/") else without_parameters(nodeid)
