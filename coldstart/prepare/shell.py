"""What runs commands on a node, and what it means when one fails. Pure: who does it is `fabricshell`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from coldstart import sudo

LOOK_S = 30.0
STEP_S = 1800.0  # a board with an SD card unpacks QEMU for minutes


@dataclass(frozen=True)
class Ran:
    """How a command ended. 127: there is no such command."""

    code: int
    stdout: str = ""
    stderr: str = ""


class Shell(Protocol):
    """A node's. `run` raises NodeError if the node is lost; a command that fails is a Ran."""

    def run(self, argv: Sequence[str], *, limit_s: float = LOOK_S) -> Ran: ...

    def close(self) -> None: ...


_NETWORK = "the node gets packages from its own sources: is it online, is a proxy needed, is its clock right?"
_SOURCES = "look at its package sources (Ubuntu: universe; Alpine: community), or install it by hand"
_ROOM = "make room there: df -h"
# What package managers say: (pattern, text, next step); the first that is found counts.
_REASONS: tuple[tuple[str, str, str], ...] = (
    (r"No space left on device|enough free space|At least .* more space needed|Disk quota exceeded",
     "disk full", _ROOM),
    (r"Could not get lock|Unable to (?:acquire|lock)|is locked by another process",
     "another package manager runs there", "wait for it, then again"),
    (r"dpkg was interrupted|not fully installed or removed",
     "an earlier installation was cut short", "sudo dpkg --configure -a there, then again"),
    (r"Unable to locate package|has no installation candidate|No match for argument|Unable to find a match"
     r"|\(no such package\)", "package not found", _SOURCES),
    (r"Temporary failure resolving|Could not resolve|Could not connect|Failed to fetch|Unable to fetch"
     r"|Network is unreachable|Connection (?:timed out|refused)|Curl error|Cannot download|Failed to download"
     r"|temporary error|network error", "no network", _NETWORK),
    (r"Unmet dependencies\. Try", "packages there do not fit together",
     "sudo apt-get --fix-broken install there, then again"),
    (r"remove is disabled|conflicts with|conflicting requests|unmet dependencies|unable to select packages",
     "it does not go together with what is installed there", "see by hand what stands in the way"),
)  # fmt: skip


def reason(argv: Sequence[str], ran: Ran) -> tuple[str, str]:
    """Why a command failed, in one line, and the next step."""
    errors, rest = ([line.strip() for line in text.splitlines() if line.strip()] for text in (ran.stderr, ran.stdout))
    for lines in (errors, rest):  # apt gives dpkg a terminal: what that complains of is on stdout
        for pattern, text, hint in _REASONS:
            if found := [line for line in lines if re.search(pattern, line)]:
                return f"{text}: {found[0]}", hint
    if refused := sudo.refusal(ran.stderr):
        return refused.message, refused.hint
    last = [line for line in rest if line.startswith("dpkg: error")] or errors or rest or [f"exit code {ran.code}"]
    return last[-1], f"run it there by hand: {' '.join(argv)}"
