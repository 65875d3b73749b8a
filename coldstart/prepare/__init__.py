"""A bare node made ready for measuring: what is there (`state`), what is missing (`tasks`), and putting it there
(`work`), over whatever runs commands (`shell`).

Pure but for `work` and `fabricshell`: texts that commands printed become a State, a State becomes steps, and a step is
an argument vector. Nothing is ever removed, restarted or rebooted.
"""

from __future__ import annotations

TASKS = ("python", "docker", "podman", "qemu", "groups", "memory-cgroup")
OK, WOULD_CHANGE, CHANGED, FAILED, NOT_APPLICABLE = "ok", "would-change", "changed", "failed", "not-applicable"
