from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """The script of every boot, in ns after `command`; cold_ns is added to `ready_ns` of a page-cold start.

    fault: what goes wrong, from the `fault_from`-th boot on (0: at every boot).
    """

    created_ns: int = 1_000_000
    api_return_ns: int = 3_000_000
    tcp_ns: int = 4_000_000
    ready_ns: int = 5_000_000
    gone_ns: int = 2_000_000
    reclaimed_ns: int = 3_000_000
    cold_ns: int = 5_000_000
    fault: str = field(default="none", metadata={"choices": ("none", "start-fails", "exits", "never-answers", "stale", "warm-when-cold")})
    fault_from: int = 0


class Runtime:
    packaging = "none"
    ready_kinds = ("http", "tcp")
    starts = ("warm", "page-cold")
    typical_boot_ns = 10_000_000
    example = {"runtime": "fake", "image": "none"}
