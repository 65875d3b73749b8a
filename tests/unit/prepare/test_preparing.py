"""The verb `prepare` around the nodes: what it needs, what its exit code tells, and this machine's own shell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coldstart import packages, sudo
from coldstart.errors import NodeError
from coldstart.model import Node
from coldstart.packages import parse_os_release
from coldstart.prepare import TASKS
from coldstart.prepare.localshell import LocalShell
from coldstart.preparing import Preparation
from coldstart.sshlink import stillborn


def test_without_the_extra():
    """It says what to install, before anything is connected."""
    code = (
        "import sys; sys.modules['fabric'] = None; sys.argv = ['coldstart', 'prepare', 'local']\n"
        "from coldstart.cli import entry; entry()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("(pip install 'coldstart[prepare]')")


def test_nobody_else_pays_for_fabric():
    """It is imported by this verb alone."""
    code = "import sys, coldstart.cli, coldstart.sweeping, coldstart.checking; sys.exit('fabric' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_exit_code_tells_who_is_not_ready():
    """With the reason where it is one node's; the others are looked at."""
    local = {"ansible_connection": "local"}
    missing = {**local, "ansible_python_interpreter": "/nowhere/python"}
    done = Preparation([Node("a", settings=local), Node("b", settings=missing)], ["python"])
    assert [result.failed for result in done.look()] == [False, True]
    with pytest.raises(NodeError, match="1 of 2 nodes are not ready: b: python: no Python at /nowhere/python"):
        done.judge()


def test_this_machine_s_shell():
    """No shell reads the words, nothing is to be read, and what is no program or does not end is said."""
    shell = LocalShell()
    assert shell.run(["printf", "%s", "$HOME; `id`"]).stdout == "$HOME; `id`"
    assert shell.run(["cat"]).stdout == ""
    assert (shell.run(["false"]).code, shell.run(["/nowhere/program"]).code) == (1, 127)
    with pytest.raises(NodeError, match="no end of `sleep 9`"):
        shell.run(["sleep", "9"], limit_s=0.05)


@pytest.mark.parametrize(
    ("text", "name", "ids"),
    [
        ('ID="x y"\n', "x y", ("x y",)),
        ("# a comment\nID=debian\nPRETTY_NAME='It'\\''s'\n", "It's", ("debian",)),
        ('NAME="open\nID=debian\n', "open", ("debian",)),
        ("\0\n=\nID", "", ()),
    ],
)
def test_odd_texts(text: str, name: str, ids: tuple[str, ...]):
    """/etc/os-release is read as a shell would, and what is none does no harm."""
    found = parse_os_release(text)
    assert (found.name, found.ids) == (name, ids)


def test_every_family_installs_every_thing_or_says_where_it_is():
    """The table has no holes that nothing is said about."""
    for wanted, names in packages.PACKAGES.items():
        assert set(names) == set(packages.FAMILIES) or wanted in packages.ELSEWHERE, wanted


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("sudo: a password is required", "sudo-password"),
        ("sudo: a terminal is required to read the password", "sudo-password"),
        ("sudo: interactive authentication is required", "sudo-password"),
        ("Sorry\nsudo: user pi is not allowed to execute", "sudo-password"),
        ("bash: line 1: sudo: command not found", "sudo-absent"),
        ("sh: 1: sudo: not found", "sudo-absent"),
        ("zsh:1: command not found: sudo", "sudo-absent"),
        ("sudo: Command not found.", "sudo-absent"),
        ("fish: Unknown command: sudo", "sudo-absent"),
        ("sudo: python3: command not found", "no-python"),
    ],
)
def test_what_sudo_says(said: str, kind: str):
    """A program that sudo does not find is not sudo's absence."""
    assert (sudo.refusal(said) is None) == (kind == "no-python")
    assert stillborn("n", said, 1).kind == kind


def test_the_page_names_every_task_and_package():
    """docs/prepare.md and the table of packages are one."""
    page = (Path(__file__).parents[3] / "docs" / "prepare.md").read_text()
    rows = {row.split("|")[1].strip(" `"): row for row in page.splitlines() if row.startswith("| ")}
    for task in TASKS:
        assert task in rows
    named = {"python": "python", "docker": "docker", "podman": "podman", "qemu": "qemu-x86_64", "": "qemu-aarch64"}
    for row, wanted in named.items():
        cells = [cell.strip() for cell in rows[row].split("|")[3:7]]
        for cell, family in zip(cells, (packages.DEBIAN, packages.FEDORA, packages.RHEL, packages.ALPINE), strict=True):
            name = packages.PACKAGES[wanted].get(family)
            assert cell == f"`{name}`" if name else cell.startswith("none")
