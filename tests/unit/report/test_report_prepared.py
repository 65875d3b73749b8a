"""What `prepare` shows: the same for people and for scripts."""

from __future__ import annotations

import json

from coldstart.model import Prepared, TaskReport
from coldstart.report import prepared

RESULTS = [
    Prepared(
        "pi01",
        "edge",
        "Debian GNU/Linux 12",
        (
            TaskReport("python", "ok"),
            TaskReport("docker", "would-change", ("install docker.io (apt-get install docker.io)", "start it (x)")),
            TaskReport("groups", "changed", ("put pi into group docker (usermod -aG docker pi)",), "log in again"),
            TaskReport("qemu", "failed", ("install qemu (apt-get install qemu)",), "disk full: \x1b[2Jno space"),
            TaskReport("memory-cgroup", "not-applicable", note="no Pi"),
        ),
    ),
    Prepared("vm", "cloud", error="nobody answers (is it up?)"),
]


def test_as_text():
    """A line for each step; other people's text cannot steer the terminal."""
    assert prepared.as_text(RESULTS).splitlines() == [
        "edge/pi01: Debian GNU/Linux 12",
        "  python         nothing to do",
        "  docker         would install docker.io (apt-get install docker.io)",
        "                 would start it (x)",
        "  groups         did: put pi into group docker (usermod -aG docker pi)",
        "                 log in again",
        "  qemu           tried: install qemu (apt-get install qemu)",
        "                 FAILED: disk full: ?[2Jno space",
        "  memory-cgroup  does not apply: no Pi",
        "cloud/vm: could not be asked",
        "  FAILED: nobody answers (is it up?)",
        "",
        "2 nodes: 1 tasks to do, 1 tasks done, 2 nodes failed",
    ]
    assert prepared.as_text([]).strip() == "0 nodes: nothing to do"


def test_as_json():
    """Shapes that scripts can rely on."""
    pi, vm = json.loads(prepared.as_json(RESULTS))["nodes"]
    assert (pi["node"], pi["distribution"], pi["error"]) == ("pi01", "Debian GNU/Linux 12", "")
    assert pi["tasks"][1] == {
        "task": "docker",
        "state": "would-change",
        "steps": ["install docker.io (apt-get install docker.io)", "start it (x)"],
        "note": "",
    }
    assert vm == {
        "node": "vm", "site": "cloud", "distribution": "", "tasks": [], "error": "nobody answers (is it up?)",
    }  # fmt: skip
