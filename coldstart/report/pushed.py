"""What a push brought where: as a table for people and as JSON for scripts."""

from __future__ import annotations

from collections.abc import Sequence

from coldstart.model import Push
from coldstart.report.document import dumps, pushed
from coldstart.report.text import table
from coldstart.units import format_bytes, format_duration

_HEADERS = (("node", False), ("image", False), ("how", False), ("sent", True), ("took", True))


def as_table(pushes: Sequence[Push], *, width: int | None = None) -> str:
    """width: of the terminal, None if it is not one."""
    rows = [
        [push.node, push.image, push.how, format_bytes(push.transfer_bytes), format_duration(push.duration_ns)]
        for push in pushes
    ]
    return table(rows, _HEADERS, width=width)


def as_json(pushes: Sequence[Push]) -> str:
    return dumps({"pushes": pushed(pushes)}) + "\n"
