"""What an image costs on its way to nodes, in bytes and seconds: `coldstart push` beside what people do by hand.

The nodes, the images and who delivers: `depot.py`; what is counted: `traffic.py`. Within a turn everybody delivers the
same bytes to the same nodes, which are cleared in between; who begins rotates from turn to turn.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from benchmarks import depot, result
from benchmarks import pushrows as rows
from benchmarks.booting import Cancel, Failed
from benchmarks.depot import CLOSED, DESK, LAYER_BYTES, LAYERS, NARROW, NARROW_MBIT, OPEN, Container, Depot, Leg
from benchmarks.fanout import rotated
from benchmarks.pushrows import BIG_BYTES, CUT_AT, CUT_BYTES, Cut, Tally
from benchmarks.result import Row

DEFAULT_N = 10
COUNTS = (1, len(OPEN))  # of nodes
BY_US = ("engine", "file", "closed")  # these may not fail; a peer that does is left out

_Case = TypeVar("_Case")


def run(n: int, cancel: Cancel) -> list[Row]:
    with depot.opened(cancel) as site:
        layers = Layers(site)
        work: list[tuple[str, Callable[[int], list[Row]]]] = [
            *((f"one changed layer, {rows.nodes(count)}", partial(layers.rows, OPEN[:count])) for count in COUNTS),
            ("one changed layer, a slow link", partial(layers.rows, (NARROW,))),
            *((f"cold, {rows.nodes(count)}", Cold(site, OPEN[:count]).rows) for count in COUNTS),
            ("cut", partial(cut_rows, site)),
        ]
        return [row for what, measured in work for row in _noted(what, measured, n)]


def _noted(what: str, measured: Callable[[int], list[Row]], n: int) -> list[Row]:
    """A part that fails does not take the others with it."""
    try:
        return measured(n)
    except Failed as error:
        return [result.not_run(f"push, {what}", error)]


class Sides(Generic[_Case]):
    """Who delivers what of one turn, by name."""

    def __init__(self, site: Depot, names: Sequence[str], sides: Mapping[str, Callable[[_Case, Tally], None]]) -> None:
        self._site, self._names, self._sides = site, names, sides

    def measured(self, n: int, cases: Callable[[], Iterator[_Case]]) -> Tally:
        """cases: a context that makes the bytes of one turn. The first turn is for bytecode and page cache only."""
        tally = Tally()
        for turn in range(-1, n):
            with contextmanager(cases)() as case:
                for side in rotated([*self._sides], turn):
                    self._try(side, case, tally)
            if turn < 0:
                tally.legs.clear()
        return tally

    def _try(self, side: str, case: _Case, tally: Tally) -> None:
        if side in tally.broken:
            return
        try:
            self._sides[side](case, tally)
        except Failed as error:
            if side in BY_US:
                raise
            tally.broken[side] = str(error)
        finally:
            self._site.clear(self._names)


# -- one changed layer of five


class Layers:
    """Every node has an image, brought by coldstart; then its uppermost layer changes."""

    def __init__(self, site: Depot) -> None:
        self._site = site
        self._below: list[bytes] = []

    def rows(self, names: Sequence[str], n: int) -> list[Row]:
        if not self._below:
            self._stock()
        sides = self._sides(names)
        more = (CLOSED,) if "closed" in sides else ()
        tally = Sides(self._site, (*names, *more), sides).measured(n, self._changed)
        return rows.layer_rows(tally, len(names), f" over {NARROW_MBIT} Mbit/s" if NARROW in names else "")

    def _stock(self) -> None:
        below = [os.urandom(LAYER_BYTES) for _ in range(LAYERS - 1)]
        first = depot.container(self._site.folder / "first.tar", [*below, os.urandom(LAYER_BYTES)])
        self._site.load_at_desk(first.path)
        self._site.push((*OPEN, CLOSED, NARROW), str(first.path))
        self._site.take_stock()
        first.path.unlink()
        self._below = below

    def _changed(self) -> Iterator[Container]:
        """In a file and in the desk's engine."""
        changed = depot.container(self._site.folder / "changed.tar", [*self._below, os.urandom(LAYER_BYTES)])
        self._site.load_at_desk(changed.path)
        try:
            yield changed
        finally:
            self._site.clear([DESK])
            changed.path.unlink()

    def _sides(self, names: Sequence[str]) -> dict[str, Callable[[Container, Tally], None]]:
        """Where one layer takes seconds, the goal's only; with one node, also the other ways there are."""
        site = self._site

        def engine(case: Container, tally: Tally) -> None:
            cache = site.new_cache()
            tally.add("engine", came(site.push(names, case.tag, cache=cache), "pulled", names))
            tally.add("repeat", came(site.push(names, case.tag, cache=cache), "present", names))

        def file(case: Container, tally: Tally) -> None:
            tally.add("file", came(site.push(names, str(case.path)), "pulled", names))

        def by_hand(command: str) -> Leg:
            leg = site.shell(names, command)
            if lacking := [name for name in names if not site.brought(name)]:
                raise Failed(f"{command}: no image came to {', '.join(lacking)}")
            return leg

        def save(case: Container, tally: Tally) -> None:
            tally.add("save", by_hand(f"docker save {case.tag} | {{ssh}} {{node}} docker load"))

        def load(case: Container, tally: Tally) -> None:
            tally.add("load", by_hand(f"{{ssh}} {{node}} docker load <{case.path}"))

        def alone(case: Container, tally: Tally) -> None:
            path = case.partial(site.folder / "partial.tar")
            tally.add("alone", by_hand(f"{{ssh}} {{node}} docker load <{path}"))

        def closed(case: Container, tally: Tally) -> None:
            tally.add("closed", came(site.push([CLOSED], str(case.path)), "loaded", [CLOSED]))

        found: dict[str, Callable[[Container, Tally], None]] = {"engine": engine, "save": save}
        if NARROW not in names:
            found |= {"file": file, "load": load}
            found |= {"alone": alone, "closed": closed} if len(names) == 1 else {}
        return found


def came(leg: Leg, how: str, names: Sequence[str]) -> Leg:
    """Failed if it did not come this way to every node: the figure would be of something else."""
    hows = {push["node"]: push["how"] for push in leg.pushed}
    if hows != dict.fromkeys(names, how):
        raise Failed(f"expected to be {how} by {', '.join(names)}, was {hows}")
    return leg


# -- all of it, to nodes that have nothing


@dataclass(frozen=True)
class Big:
    """The same number of bytes, as a program and as an image of one layer."""

    program: Path
    container: Container


class Cold:
    """Nodes that have nothing of it."""

    def __init__(self, site: Depot, names: Sequence[str]) -> None:
        self._site, self._names = site, names

    def rows(self, n: int) -> list[Row]:
        if not self._site.stock:
            self._site.take_stock()
        tally = Sides(self._site, self._names, self._sides()).measured(n, self._big)
        return rows.cold_rows(tally, len(self._names))

    def _big(self) -> Iterator[Big]:
        folder = self._site.folder
        made = depot.program(folder / "program", BIG_BYTES)
        case = Big(made, depot.container(folder / "big.tar", [os.urandom(BIG_BYTES)]))
        try:
            yield case
        finally:
            made.unlink()
            case.container.path.unlink()

    def _sides(self) -> dict[str, Callable[[Big, Tally], None]]:
        site, names = self._site, self._names

        def file(case: Big, tally: Tally) -> None:
            leg = site.push(names, str(case.program), runtime="process")
            tally.add("file", came(leg, "fetched", names))

        def engine(case: Big, tally: Tally) -> None:
            tally.add("engine", came(site.push(names, str(case.container.path)), "pulled", names))

        def copy(side: str, option: str, of: Callable[[Big], Path]) -> Callable[[Big, Tally], None]:
            def copied(case: Big, tally: Tally) -> None:
                command = f"{{scp}}{option} {of(case)} {{node}}:{depot.ARRIVED}"
                tally.add(side, site.shell(names, command))

            return copied

        return {
            "file": file,
            "scp file": copy("scp file", "", lambda case: case.program),
            "scp -O file": copy("scp -O file", " -O", lambda case: case.program),
            "engine": engine,
            "scp engine": copy("scp engine", "", lambda case: case.container.path),
            "scp -O engine": copy("scp -O engine", " -O", lambda case: case.container.path),
        }


# -- cut


def cut_rows(site: Depot, n: int) -> list[Row]:
    if not site.stock:
        site.take_stock()
    cuts: dict[str, list[Cut]] = {}
    for turn in range(n):
        for kind in rotated(("process", "docker"), turn):
            cuts.setdefault(kind, []).append(_cut(site, kind))
    names = {"process": "a program", "docker": "a container's layer"}
    return [rows.cut_row(f"push of {names[kind]}, cut at {CUT_AT:.0%}", cuts[kind]) for kind in names]


def _cut(site: Depot, kind: str) -> Cut:
    node, path = site.lab.nodes[NARROW], site.folder / "cut"
    if kind == "process":
        depot.program(path, CUT_BYTES)
    else:
        depot.container(path, [os.urandom(CUT_BYTES)])
    argv, environ = site.push_command([NARROW], str(path), kind), site.environ(site.new_cache())
    try:
        with site.links([NARROW]) as links, depot.started([argv], environ) as (task,):
            depot.wait(lambda: task.ended() or depot.parts(node) > CUT_AT * CUT_BYTES, site.cancel)
            before, held = links.count(), depot.parts(node)
            if not node.kill_sshd_sessions():
                raise Failed(f"it was over before it could be cut: {task.output()[-200:]}")
            depot.wait(task.ended, site.cancel)
            (pushed,) = json.loads(task.output())["pushes"]
            return Cut(held, (links.count() - before).received, pushed["transfer_bytes"])
    finally:
        site.clear([NARROW])
        path.unlink()
