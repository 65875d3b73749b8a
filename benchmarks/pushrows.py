"""What the deliveries of the push benchmark come to: rows of the table, and whether a goal is met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import depot, result
from benchmarks.depot import LAYER_BYTES, LAYERS, NARROW_MBIT, Leg
from benchmarks.result import Row
from coldstart import stats

BIG_BYTES = 100 << 20
CUT_BYTES, CUT_AT = 16 << 20, 0.6
WIRE_RATIO, SECONDS_RATIO, REPEAT_BYTES, RATE_RATIO, RESENT = 1.02, 0.4, 100_000, 0.8, 0.45


@dataclass
class Tally:
    """What was measured: of each side, one delivery a turn. broken: peers that cannot, and why."""

    legs: dict[str, list[Leg]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def add(self, side: str, leg: Leg) -> None:
        self.legs.setdefault(side, []).append(leg)


@dataclass(frozen=True)
class Cut:
    """Bytes of a blob that had come when the sessions were killed, and that were sent to the node from then on."""

    held_bytes: int
    after_bytes: int
    pushed_bytes: int


# -- one changed layer of five


@dataclass(frozen=True)
class Pair:
    """Our side and the peer's. has_goal: it is held against the goals; the others are for information."""

    mine: str
    theirs: str
    kind: str
    peer: str
    has_goal: bool = True


PAIRS = (
    Pair("engine", "save", "from the engine", "docker save | ssh docker load"),
    Pair("file", "load", "from a file", "ssh docker load < FILE"),
    Pair("file", "alone", "from a file", "the layer alone in an archive: ssh docker load < FILE", has_goal=False),
    Pair("file", "closed", "from a file", "coldstart without a forward: a whole archive", has_goal=False),
)


def layer_rows(tally: Tally, count: int, link: str = "") -> list[Row]:
    """Of the pairs that were measured. link: what it was, if not the fastest there is."""
    what = f"push, one changed layer of {LAYERS}, {nodes(count)}{link}"
    found: list[Row] = []
    for pair in PAIRS:
        if pair.theirs in tally.broken:
            found.append(Row(f"{what}, {pair.kind}", pair.peer, figure=f"not run: {tally.broken[pair.theirs]}"))
        elif pair.theirs in tally.legs:
            ours, peers = tally.legs[pair.mine], tally.legs[pair.theirs]
            found.append(_bytes(f"{what}, {pair.kind}", pair, ours, peers, count, has_goal=pair.has_goal and not link))
            found.append(_seconds(f"{what}, {pair.kind}", pair, ours, peers))
    return [*found, _repeat(f"{what}, the same again", tally.legs["repeat"], count)]


def _bytes(what: str, pair: Pair, ours: Sequence[Leg], peers: Sequence[Leg], count: int, *, has_goal: bool) -> Row:
    """All that passed the links, in sizes of the layer that changed."""
    shares = [[leg.links.both / (count * LAYER_BYTES) for leg in side] for side in (ours, peers)]
    each = [statistics.median(leg.links.both for leg in side) / count / 1e6 for side in (ours, peers)]
    return Row(
        f"{what}: bytes on the wire",
        pair.peer,
        len(ours),
        f"{each[0]:.2f} MB a node",
        f"{each[1]:.2f} MB a node",
        f"{share(shares[0])} the layer; the peer {share(shares[1])}",
        f"<= {WIRE_RATIO}x the layer" if has_goal else "",
        statistics.median(shares[0]) <= WIRE_RATIO if has_goal else None,
        {**_samples("ours", ours), **_samples("peer", peers)},
    )


def _seconds(what: str, pair: Pair, ours: Sequence[Leg], peers: Sequence[Leg]) -> Row:
    """Of the whole commands."""
    whole = [[leg.seconds for leg in side] for side in (ours, peers)]
    medians = [statistics.median(side) for side in whole]
    return Row(
        f"{what}: seconds",
        pair.peer,
        len(ours),
        seconds(ours),
        seconds(peers),
        result.ratio(*whole),
        f"<= {SECONDS_RATIO}x" if pair.has_goal else "",
        medians[0] <= SECONDS_RATIO * medians[1] if pair.has_goal else None,
        {**_samples("ours", ours), **_samples("peer", peers)},
    )


def _repeat(what: str, legs: Sequence[Leg], count: int) -> Row:
    per_node = [leg.links.both / count for leg in legs]
    return Row(
        f"{what}: bytes on the wire",
        "",
        len(legs),
        seconds(legs),
        "",
        f"{statistics.median(per_node) / 1e3:.1f} KB a node, at most {max(per_node) / 1e3:.1f}",
        f"<= {REPEAT_BYTES / 1e3:g} KB a node",
        max(per_node) <= REPEAT_BYTES,
        _samples("ours", legs),
    )


# -- all of it, to nodes that have nothing


def cold_rows(tally: Tally, count: int) -> list[Row]:
    kinds = (("file", "a program"), ("engine", "an image of one layer"))
    return [
        _cold(
            tally, (f"push, {name} of {BIG_BYTES >> 20} MiB to {nodes(count)}: transfer", mine, f"{peer} {mine}", peer)
        )
        for mine, name in kinds
        for peer in ("scp", "scp -O")
    ]


def _cold(tally: Tally, who: tuple[str, str, str, str]) -> Row:
    what, mine, theirs, peer = who
    name = f"{peer}, {'sftp' if peer == 'scp' else 'the old protocol'}, {depot.CIPHER.partition('@')[0]}"
    if theirs in tally.broken:
        return Row(what, name, figure=f"not run: {tally.broken[theirs]}")
    ours, peers = tally.legs[mine], tally.legs[theirs]
    rates = [[leg.bytes_per_s for leg in side] for side in (ours, peers)]
    return Row(
        what,
        name,
        len(ours),
        f"{statistics.median(rates[0]) / 1e6:.0f} MB/s; {seconds(ours)} in all",
        f"{statistics.median(rates[1]) / 1e6:.0f} MB/s; {seconds(peers)} in all",
        result.ratio(*rates),
        f">= {RATE_RATIO}x",
        statistics.median(rates[0]) >= RATE_RATIO * statistics.median(rates[1]),
        {**_samples("ours", ours), **_samples("peer", peers)},
    )


# -- cut


def cut_row(what: str, cuts: Sequence[Cut]) -> Row:
    after = [cut.after_bytes / CUT_BYTES for cut in cuts]
    held = [cut.held_bytes / CUT_BYTES for cut in cuts]
    return Row(
        f"{what}: bytes sent after it",
        f"a link of {NARROW_MBIT} Mbit/s",
        len(cuts),
        f"{CUT_BYTES >> 20} MiB, {statistics.median(held):.1%} of it there at the cut",
        "",
        f"{share(after)} the blob, at most {max(after):.3f}x",
        f"<= {RESENT}x",
        statistics.median(after) <= RESENT,
        {"after_share": after, "held_share": held, "pushed_bytes": [cut.pushed_bytes for cut in cuts]},
    )


# -- in words


def nodes(count: int) -> str:
    return f"{count} node{'s' if count > 1 else ''}"


def share(values: Sequence[float]) -> str:
    """The median, with its interval."""
    found = stats.summarise(values)
    interval = "[-]" if found.ci95 is None else f"[{found.ci95[0]:.3f}, {found.ci95[1]:.3f}]"
    return f"{found.median or 0.0:.3f}x {interval}"


def seconds(legs: Sequence[Leg]) -> str:
    """Of the whole command; of ours, how much of it was the push by its own account."""
    whole = f"{statistics.median(leg.seconds for leg in legs):.2f} s"
    own = [max(push["seconds"] for push in leg.pushed) for leg in legs if leg.pushed]
    return f"{whole} ({statistics.median(own):.2f} s of it pushing)" if own else whole


def _samples(side: str, legs: Sequence[Leg]) -> dict[str, Sequence[float]]:
    found: dict[str, Sequence[float]] = {
        f"{side}_s": [leg.seconds for leg in legs],
        f"{side}_to_nodes_bytes": [leg.links.received for leg in legs],
        f"{side}_from_nodes_bytes": [leg.links.sent for leg in legs],
        f"{side}_frames": [leg.links.frames for leg in legs],
        f"{side}_bytes_per_s": [leg.bytes_per_s for leg in legs],
    }
    if all(leg.pushed for leg in legs):
        found[f"{side}_pushing_s"] = [max(push["seconds"] for push in leg.pushed) for leg in legs]
    return found
