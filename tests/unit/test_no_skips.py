"""A run that must prove something fails when a test was skipped or did not run at all."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PLUGIN = Path(__file__).parents[1] / "no_skips.py"
TESTS = """
    import pytest

    def test_runs(): pass

    @pytest.mark.parametrize("runtime", ["docker", "process"])
    def test_each(runtime):
        if runtime == "docker" and {skip}:
            pytest.skip("no engine")

    @pytest.mark.xfail(strict=True)
    def test_known_to_fail(): assert False
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # loading coverage and hypothesis anew takes a second
    pytester.makeconftest(PLUGIN.read_text())
    pytester.makepyfile(test_some=TESTS.format(skip=True))
    return pytester


def test_skips_pass_unless_forbidden(project: pytest.Pytester) -> None:
    assert project.runpytest_inprocess().ret == 0


def test_forbidden_skips_are_named(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("--no-skips")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["skipped: test_some.py::test_each?docker?"])
    result.stdout.no_fnmatch_line("skipped: *test_known_to_fail*")


def test_a_skipped_module_is_a_skip(project: pytest.Pytester) -> None:
    project.makepyfile(test_some="import pytest; pytest.skip('no engine', allow_module_level=True)")
    result = project.runpytest_inprocess("--no-skips")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["skipped: test_some.py"])


def test_expected_tests_must_have_run(project: pytest.Pytester) -> None:
    project.makefile(
        ".txt", expected="# why\ntest_some.py::test_each\ntest_some.py::test_each[docker]\ntest_gone.py::test_x"
    )
    result = project.runpytest_inprocess("--expected", "expected.txt")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "expected, but did not run: test_gone.py::test_x",
            "expected, but did not run: test_some.py::test_each?docker?",
        ]
    )
    result.stdout.no_fnmatch_line("expected, but did not run: test_some.py::test_each")


def test_nothing_missing_passes(project: pytest.Pytester) -> None:
    project.makepyfile(test_some=TESTS.format(skip=False))
    project.makefile(".txt", expected="test_some.py::test_each[docker]\ntest_some.py::test_runs")
    assert project.runpytest_inprocess("--no-skips", "--expected", "expected.txt").ret == 0


def test_the_list_is_written_from_what_is_collected(project: pytest.Pytester) -> None:
    """The runtimes' exam keeps its parameters; other tests are listed once."""
    project.mkpydir("tests").joinpath("runtimes").mkdir()
    exam = project.path / "tests" / "runtimes" / "test_exam.py"
    exam.write_text(
        "import pytest\n@pytest.mark.parametrize('runtime', ['docker', 'fake'])\ndef test_x(runtime): pass\n"
    )
    project.runpytest_inprocess("--collect-only", "--expected", "expected.txt", "--update-expected")
    lines = (project.path / "expected.txt").read_text().splitlines()[1:]
    assert lines == [
        "test_some.py::test_each",
        "test_some.py::test_known_to_fail",
        "test_some.py::test_runs",
        "tests/runtimes/test_exam.py::test_x[docker]",
        "tests/runtimes/test_exam.py::test_x[fake]",
    ]
