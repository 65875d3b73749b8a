"""The examples in docs/runtimes.md: playbooks as they stand, and none that says it is run without being."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from examples import NOT_RUN, RUN, examples

from coldstart import playbook

LIVE = Path(__file__).parents[1] / "live" / "test_own_machines.py"


@pytest.mark.parametrize("name", examples())
def test_each_is_a_playbook(name: str, tmp_path: Path) -> None:
    path = tmp_path / "playbook.yaml"
    path.write_text(examples()[name])
    assert {target.runtime for target in playbook.load(path).targets} == {"qemu"}


def test_each_says_whether_it_is_run() -> None:
    """And those that say so are what the live tests run."""
    said = {name for name, text in examples().items() if text.startswith(RUN)}
    silent = {name for name, text in examples().items() if not text.startswith((RUN, NOT_RUN))}
    assert not silent
    assert said == set(re.findall(r'\bsweep\(coldstart, "([^"]+)"', LIVE.read_text()))
