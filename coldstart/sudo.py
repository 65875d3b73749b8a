"""What `sudo -n` says against a command, understood. Pure."""

from __future__ import annotations

import re

from coldstart.errors import NodeError

# (pattern, kind, text, hint). `sudo: python3: command not found` is about python3.
_REFUSALS: tuple[tuple[str, str, str, str], ...] = (
    (r"sudo: .*(?:password|authentication) is required|sudo: .*terminal is required", "sudo-password",
     "sudo asks for a password",
     "allow `sudo -n`: NAME ALL=(ALL) NOPASSWD: ALL in /etc/sudoers.d/, or ansible_become: false"),
    (r"sudo: .*not (?:allowed|in the sudoers)", "sudo-password", "this user may not use sudo",
     "add the user to /etc/sudoers.d/, or ansible_become: false"),
    (r"sudo: (?:[Cc]ommand )?not found|not found: sudo|Unknown command:? .?sudo", "sudo-absent",
     "sudo is not installed", "install it, log in as root, or ansible_become: false"),
)  # fmt: skip


def refusal(said: str) -> NodeError | None:
    """None if sudo has nothing against it. The last line is quoted."""
    for pattern, kind, text, hint in _REFUSALS:
        if re.search(pattern, said):
            return NodeError(f"{text}: {said.strip().splitlines()[-1]}", hint=hint, kind=kind)
    return None
