from dataclasses import dataclass, field
from typing import Mapping, Tuple


@dataclass(frozen=True)
class Options:
    """env, args: for the program; `{nonce}`, `{address}` and `{port}` are filled in at every boot."""

    env: Mapping[str, str] = field(default_factory=dict)
    args: Tuple[str, ...] = ()


class Runtime:
    packaging = "executable"
    ready_kinds = ("http", "tcp", "output", "exit")
    starts = ("warm", "page-cold")
    typical_boot_ns = 30_000_000
    example = {"runtime": "process", "image": "hello"}
