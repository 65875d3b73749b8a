from dataclasses import dataclass, field
from typing import Mapping, Tuple


@dataclass(frozen=True)
class Options:
    """env, args: for the container (args replace the image's command; `{nonce}` is filled in).

    net: `own` (the container's own address), `proxied` (a published port), `auto` (own where it can be reached).
    probe: `early` (from `command` on; needs CAP_NET_ADMIN), `after-api`, `auto`.
    memory_bytes: the container's limit, 0: none. evict: `image` (layers only) or `image+runtime` (runc, shim, too).
    """

    env: Mapping[str, str] = field(default_factory=dict)
    args: Tuple[str, ...] = ()
    net: str = field(default="auto", metadata={"choices": ("auto", "own", "proxied")})
    probe: str = field(default="auto", metadata={"choices": ("auto", "early", "after-api")})
    memory_bytes: int = 0
    evict: str = field(default="image", metadata={"choices": ("image", "image+runtime")})


class Runtime:
    packaging = "docker-archive"
    ready_kinds = ("http", "tcp", "output", "exit")
    starts = ("warm", "page-cold")
    typical_boot_ns = 1_000_000_000
    example = {"runtime": "docker", "image": "hello"}
