"""docs/inventory.md names every variable and every option of ssh that is read, and its precedence is the real one."""

import re
from pathlib import Path

import pytest

from coldstart import sshargs, variables

PAGE = (Path(__file__).parents[2] / "docs" / "inventory.md").read_text()


@pytest.mark.parametrize("name", sorted(variables._MEANT))
def test_every_variable_is_there(name):
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", sorted(set(sshargs._MEANT) - {"ConfigFile"}))
def test_every_option_is_there(name):
    assert re.search(rf"\b{name}\b", PAGE)


def test_nothing_else_is():
    known = {*variables._MEANT, *variables.HARMLESS, "ansible_group_priority"}
    named = set(re.findall(r"`((?:ansible|coldstart)_\w*[a-z])`", PAGE))
    assert named <= known
