"""An engine that is installed but not running is started for the sweep, and stopped again whatever happens to it.

Played in namespaces of their own, with their own /run and /var/lib/docker, so that an engine which runs on this
machine is neither seen nor touched.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coldstart.agent import engine, spawn

pytestmark = pytest.mark.live

ROOM = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/lock
mount --bind "$1" /var/lib/docker
ip link set lo up
shift
exec "$@"
"""
COLDSTART = str(Path(sys.executable).parent / "coldstart")


@pytest.fixture
def room(tmp_path):
    """Start a command where no engine runs; what it borrows is gone when the test is over."""
    dockerd = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if os.geteuid() != 0 or dockerd is None:
        pytest.skip("needs root and an installed dockerd")
    Path("/var/lib/docker").mkdir(exist_ok=True)
    data = tmp_path / "docker"
    data.mkdir()
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COLDSTART_STORE": str(tmp_path / "store.db")}

    def start(*args: str) -> subprocess.Popen[str]:
        command = ["unshare", "--mount", "--net", "sh", "-c", ROOM, "room", str(data), COLDSTART, *args]
        return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start


def borrowed() -> list[int]:
    """Engines that somebody's run has started."""
    return [pid for pid in spawn.marked(engine.MARK, "", but="") if engine._is_dockerd(pid)]


def wait_for(condition, *, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition() and time.monotonic() < deadline:
        select.select([], [], [], 0.05)
    return bool(condition())


def test_started_for_the_sweep_and_stopped_after_it(room):
    """Containers are measured, and no engine runs before or after."""
    before = borrowed()
    with room("sweep", "local", "--boots", "2", "--format", "json") as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    cells = {(cell["target"], cell["start"]): cell for cell in json.loads(out)["cells"]}
    assert {cell["failed"] for cell in cells.values()} == {0}
    assert cells["container", "warm"]["boots"] == 2
    assert borrowed() == before


def test_stopped_when_the_controller_is_killed(room):
    """Nobody told the node anything: the closed stream is enough."""
    before = borrowed()
    with room("sweep", "local", "--boots", "500", "--target", "container") as process:
        assert wait_for(lambda: borrowed() != before, limit_s=30)
        process.send_signal(signal.SIGKILL)
    assert wait_for(lambda: borrowed() == before, limit_s=30)
