"""Every error a user can meet, sorted by what they can do about it.

An error says who (file:line, node, target), what, and the next step (`hint`). Its class decides the exit code.
Foreign exceptions are translated where their library is used; what is not listed here is a bug and exits 1.
"""

from __future__ import annotations


class ColdstartError(Exception):
    """The root: one line for the user, an exit code for scripts."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(ColdstartError):
    """The command line asks for what cannot be: correct it."""

    exit_code = 2


class DocumentError(UsageError):
    """An inventory or playbook is invalid: edit the named line."""


class ImageError(UsageError):
    """An image cannot be found or is not what its runtime takes: name another."""


class StoreError(UsageError):
    """The store cannot be used: name another file, or make room."""


class TooManyFailures(ColdstartError):
    """More boots failed than `--max-failures` allows: read the outcomes."""

    exit_code = 3


class NodeError(ColdstartError):
    """A node cannot be reached, or is lost: look at the node. kind: a word for what is wrong, for `check`."""

    exit_code = 4

    def __init__(self, message: str, *, hint: str = "", kind: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class ProtocolError(NodeError):
    """What came over the link is not our protocol: look at the node's login files or at its version."""


class LeftoversError(ColdstartError):
    """Something of ours could not be removed: remove it by hand."""

    exit_code = 6
