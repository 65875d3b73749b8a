"""How a container is reached, and from when on it may be asked: decided by trying, once per target.

Best: its own address, probed from the start, which needs the bridge in this network namespace and the right to make its
neighbour entries permanent. A published port is second best: its proxy accepts before anything listens, so only an
answer with the boot's nonce can be believed; and it asks for its container's hardware address as early as it is asked
itself, so it must not be asked before the start call has returned.
"""

from __future__ import annotations

from dataclasses import dataclass

from coldstart.agent.dockernet import Network, may_add_neighbours
from coldstart.agent.records import Ready
from coldstart.agent.runtimes import Unavailable


@dataclass(frozen=True)
class Way:
    """proxied: through a published port; early: from `command` on; warnings: what is second best about it."""

    proxied: bool
    early: bool
    warnings: tuple[str, ...] = ()


def choose(network: Network, net: str, probe: str, ready: Ready) -> Way:
    """The best way that the options `net` and `probe` allow; Unavailable if there is none."""
    proxied = net == "proxied" or not network.here()
    if proxied:
        _check_proxied(net, ready)
    possible = not proxied and may_add_neighbours(network)
    if probe == "early" and not possible:
        raise Unavailable("probe: early needs CAP_NET_ADMIN and net: own", "run as root, or use probe: auto")
    early = possible and probe != "after-api"
    if early or probe == "after-api":
        return Way(proxied, early)
    why = "through a proxy" if proxied else "without CAP_NET_ADMIN"
    warning = f"{why} the first probe waits for the start call to return: `ready` is an upper bound"
    return Way(proxied, early, (warning,))


def _check_proxied(net: str, ready: Ready) -> None:
    if net == "own":
        raise Unavailable("the containers' network is not in this network namespace", "use net: proxied")
    if ready.kind == "tcp" or (ready.kind == "http" and not ready.nonce):
        raise Unavailable(
            "through a published port only an answer with this boot's nonce can be believed",
            "let the image answer with the header X-Coldstart-Nonce: $COLDSTART_NONCE and set nonce: true",
        )
