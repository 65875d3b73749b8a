"""The command line as scripts use it: what is on stdout, the exit code, and one line on stderr that helps.

Sweeps run for real, agent and all, over the simulator: half a second each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.live
PLAYBOOK = """
name: simulated
ready: {http: {port: 80}, timeout: 200ms}
targets:
  quick: {runtime: fake, image: none, ready_after: 5ms, tcp: 4ms}
  slow: {runtime: fake, image: none, ready_after: 50ms, tcp: 40ms, api_return: 60ms}
  broken: {runtime: fake, image: none, fault: exits}
start: [warm, page-cold]
load: {boots: 8, gap: 1ms}
"""


@pytest.fixture
def coldstart(tmp_path):
    """Run the program in a folder of its own, with its own store, cache and lock."""
    (tmp_path / "simulated.yaml").write_text(PLAYBOOK)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "COLDSTART_LOCK": str(tmp_path / "lock"),
    }

    def run(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "coldstart"), *args]
        return subprocess.run(
            command, cwd=tmp_path, env={**env, **more}, capture_output=True, text=True, timeout=60, check=False
        )

    return run


SWEEP = ("sweep", "local", "--playbook", "simulated.yaml", "--target", "quick", "--target", "slow")


def test_a_sweep_as_json(coldstart):
    """stdout is the object and nothing else; the scripted times are in it exactly."""
    result = coldstart(*SWEEP, "--format", "json", "--seed", "7")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    ready = {(c["target"], c["start"]): c["ready_seconds"]["median"] for c in document["cells"]}
    assert ready == {(t, s): v for t, v in (("quick", 0.005), ("slow", 0.05)) for s in ("warm", "page-cold")}
    assert document["seed"] == 7
    assert {c["boots"] for c in document["cells"]} == {8}
    assert [c["ratio"] for c in document["comparisons"]] == [10.0, 10.0]


def test_what_was_swept_can_be_read_again(coldstart):
    """runs, show, export; by `latest` and by prefix; show prints what sweep printed."""
    swept = coldstart(*SWEEP)
    assert swept.returncode == 0, swept.stderr
    shown = coldstart("show", "latest")
    assert shown.stdout == swept.stdout
    (run,) = json.loads(coldstart("runs", "--format", "json").stdout)
    assert (run["state"], run["boots"], run["failed"]) == ("finished", 32, 0)
    lines = coldstart("export", run["run"][:12]).stdout.splitlines()
    assert len(lines) == 32
    assert json.loads(lines[0])["marks_ns"]["ready"] in (5_000_000, 50_000_000)
    table = coldstart("export", "--format", "csv").stdout.splitlines()
    assert len(table) == 33
    assert "ready_ns" in table[0]


def test_the_same_seed_the_same_order(coldstart):
    """Down to every boot; another seed, another order."""
    plans = [coldstart("plan", "local", "--playbook", "simulated.yaml", "--seed", s, "--format", "json") for s in "778"]
    first, second, third = (json.loads(plan.stdout)["orders"]["localhost"] for plan in plans)
    assert first == second
    assert first != third
    assert sorted(first) == sorted(third)


@pytest.mark.parametrize("verb", [("plan", "local"), ("sweep", "local", "--dry-run")])
def test_planning_touches_nothing(coldstart, tmp_path, verb):
    """No store, no cache, no lock."""
    before = sorted(tmp_path.rglob("*"))
    result = coldstart(*verb, "--playbook", "simulated.yaml")
    assert result.returncode == 0, result.stderr
    assert "about" in result.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_failed_boots_are_exit_3_unless_allowed(coldstart):
    """The table is printed all the same."""
    narrow = ("sweep", "local", "--playbook", "simulated.yaml", "--target", "broken", "--boots", "2")
    result = coldstart(*narrow)
    assert result.returncode == 3
    assert "error:exited" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("coldstart: 4 of 4 boots failed (")
    assert coldstart(*narrow, "--max-failures", "4").returncode == 0


def test_resuming(coldstart):
    """A finished run has nothing left to do; another selection is another sweep."""
    assert coldstart(*SWEEP).returncode == 0
    again = coldstart(*SWEEP, "--resume", "latest", "--format", "json")
    assert again.returncode == 0, again.stderr
    assert {c["boots"] for c in json.loads(again.stdout)["cells"]} == {8}
    other = coldstart(*SWEEP, "--boots", "3", "--resume", "latest")
    assert other.returncode == 2
    assert "was another sweep" in other.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("sweep", "local", "--playbook", "qiuck"), "quick"),
        (("sweep", "nowhere.yaml"), "local"),
        (("sweep", "local", "--boots", "0"), "--boots 0: at least 1"),
        (("sweep", "local", "--target", "contaner"), "container"),
        (("sweep", "local", "--start", "lukewarm"), "warm"),
        (("sweep", "local", "--limit", "mars"), "mars"),
        (("sweep", "odd.yaml"), "odd.yaml:3: "),
        (("sweep", "bad.yaml"), "bad.yaml:2: "),
        (("sweep", "local", "--playbook", "bad.yaml"), "bad.yaml:2: "),
        (("show",), "coldstart sweep"),
        (("export", "20261122"), ""),
        (("sweep", "local", "--store", "bad.yaml"), "--store FILE"),
        (("clean", "local", "--run", "x", "--all"), "exclude each other"),
        (("sweep",), "Missing argument 'INVENTORY'"),
        (("swep", "local"), "swep"),
    ],
)
def test_what_is_wrong_is_exit_2_and_one_line(coldstart, tmp_path, args, words):
    """Who, what, and the next step; no traceback, and nothing on stdout."""
    (tmp_path / "bad.yaml").write_text("all:\n  hosts: {a: {b: '{{ c }}'}}\n")
    (tmp_path / "odd.yaml").write_text("all:\n  hosts:\n    far: {ansible_host: -oProxyCommand=x}\n")
    result = coldstart(*args)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    assert words in result.stderr


def test_help_names_every_verb(coldstart):
    """Each with a sentence."""
    text = coldstart("--help").stdout
    for verb in ("sweep", "plan", "runs", "show", "export", "clean", "images", "completion"):
        assert f"  {verb} " in text


def test_help_imports_nothing_heavy():
    """numpy, pydantic, ruamel, rich and asyncio wait for the verb that needs them."""
    code = "import sys, coldstart.cli; print(*{'numpy', 'pydantic', 'ruamel', 'rich', 'asyncio'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(coldstart, shell):
    """What the shell evaluates calls us back."""
    assert "_COLDSTART_COMPLETE" in coldstart("completion", shell).stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [("coldstart sw", "sweep"), ("coldstart sweep lo", "local"), ("coldstart sweep local --playbook q", "quick")],
)
def test_completing(coldstart, words, expected):
    """Verbs, shipped inventories and playbooks."""
    count = str(len(words.split()) - 1)
    result = coldstart(COMP_WORDS=words, COMP_CWORD=count, _COLDSTART_COMPLETE="bash_complete")
    assert f"plain,{expected}" in result.stdout.splitlines()


def test_completing_a_run(coldstart):
    """From the store; and no error when there is none."""
    ask = {"COMP_WORDS": "coldstart show 2", "COMP_CWORD": "2", "_COLDSTART_COMPLETE": "bash_complete"}
    assert coldstart(**ask).stdout.strip() == ""
    coldstart(*SWEEP)
    assert coldstart(**ask).stdout.startswith("plain,2")


def test_cleaning_a_clean_node(coldstart):
    """Says so."""
    result = coldstart("clean", "local", COLDSTART_DOCKER_HOST="")
    assert (result.returncode, result.stdout) == (0, "localhost: nothing of ours was left\n")
