"""A node's first process: `python -S -m lab.boot SPEC`.

It joins the node's control groups, enters its network, makes all other namespaces and forks: the child is pid 1 there.
The child builds the root file system, starts the services and becomes `sleep`, which needs no memory to speak of; with
SIGCHLD ignored the kernel reaps for it. The parent returns when the services have been started, with the child's host
pid on stdout, or with the reason on stderr. Whatever ends pid 1 ends the node, mounts included.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lab import cgroups, kernel, rootfs

NAMESPACES = kernel.NEWNS | kernel.NEWUTS | kernel.NEWIPC | kernel.NEWPID | kernel.NEWCGROUP
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    cgroups.join(spec["group"])
    kernel.enter_net(spec["netns"])
    kernel.unshare(NAMESPACES)
    cgroups.join(cgroups.leaf(spec["group"]))
    if spec["uptime_s"] is not None:
        kernel.unshare(kernel.NEWTIME)
        shift_clocks(spec["uptime_s"])
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        become_first(spec, writer)
    os.close(writer)
    with os.fdopen(reader) as ended:
        problem = ended.read()
    if problem:
        sys.exit(problem)
    print(pid)


def shift_clocks(uptime_s: int) -> None:
    """Of the namespace that the next child is born in."""
    offsets = "".join(
        f"{clock} {int(uptime_s - time.clock_gettime(clock))} 0\n"
        for clock in (time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME)
    )
    Path("/proc/self/timens_offsets").write_text(offsets)


def become_first(spec: dict[str, Any], writer: int) -> None:
    """Never returns. `writer` closes without a word when the services have been started."""
    try:
        os.setsid()
        rootfs.build(spec)
        for argv in spec["services"]:
            start(argv)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        to_nowhere()
        os.execve("/bin/sleep", ["sleep", "infinity"], ENVIRONMENT)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        os.write(writer, f"{spec['shape']['name']} does not start: {error}".encode())
    os._exit(1)


def start(argv: list[str]) -> None:
    """One service, in a session of its own; it or its daemon goes on."""
    with open("/var/log/services.log", "ab") as log:
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True
        )


def to_nowhere() -> None:
    """Whoever started the lab may wait for the end of its output."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


if __name__ == "__main__":
    main()
