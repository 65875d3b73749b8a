"""The controller over links in memory: a node scripted message by message, and what comes of it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from coldstart import controller, nodetask
from coldstart.agent.records import Boot, to_json
from coldstart.errors import ProtocolError
from coldstart.events import BootDone, LinkLost, NodeDone, NodeUp, Skipped, Started, TargetReady
from coldstart.link import Conversation
from coldstart.memory import Far, MemoryLink
from coldstart.model import Load, Node, Playbook, Ready, Target
from coldstart.plan import expand, remaining

FACTS = {"arch": "x86_64"}


def request(*, boots: int = 3, nodes: tuple[str, ...] = ("one",), sync: str = "loop", **options) -> controller.Request:
    hosts = tuple(Node(name, settings={"coldstart_docker_host": "unix:///x"}) for name in nodes)
    target = Target("t", "fake", {"": "none"}, Ready(port=80))
    playbook = Playbook("p", (target,), ("warm", "page-cold"), Load(boots=boots), sync=sync)
    return controller.Request("run", hosts, playbook, expand(hosts, playbook, 1), **options)


class ScriptedNode:
    """A node that works, but for `faults`: one per link, then none. What it was told is kept."""

    def __init__(self, *faults: str) -> None:
        self._faults = list(faults)
        self.told: list[dict[str, object]] = []
        self.booted: list[tuple[int, int]] = []
        self._orders: list[dict[str, object]] = []

    async def connect(self, node, bundle) -> MemoryLink:
        fault = self._faults.pop(0) if self._faults else ""
        return MemoryLink(lambda far: self._serve(far, fault), stderr="sh: last words\n")

    async def _serve(self, far: Far, fault: str) -> None:
        if fault == "banner":
            far.send(b"Welcome to Ubuntu\n")
        while (message := await far.hear()) is not None:
            self.told.append(message)
            if not self._answer(far, fault, message):
                return

    def _answer(self, far: Far, fault: str, message) -> bool:
        kind = message["type"]
        if kind == "hello" and fault.startswith("busy"):
            far.say("busy", run=fault.partition(" ")[2])
        elif kind == "hello":
            far.say(
                "hello",
                facts=FACTS,
                swept={"removed": ["process 7"], "failed": []},
                free={},
                short="only 5 MiB" if fault == "short" else "",
            )
        elif kind == "prepare" and fault == "unavailable":
            far.say("unavailable", target="t", reason="no engine", hint="install one")
        elif kind == "prepare":
            cannot = {"page-cold": "no permission" if fault == "no cold" else "", "image-absent": "no images"}
            far.say("prepared", labels={"net": "own"}, facts={}, image_bytes=5, warnings=["w"], cannot=cannot)
        elif kind == "arm":
            far.say("armed")
        elif kind == "stage":
            self._orders = message["orders"]
            far.say("staged")
        elif kind == "start":
            return self._loop(far, fault, self._orders, message["at_ns"])
        elif kind == "bye":
            far.say("bye", failed=["network x"] if fault == "leftovers" else [])
        return True

    def _loop(self, far: Far, fault: str, orders, at_ns: int) -> bool:
        for number, order in enumerate(orders):
            if (fault == "cut" and number == 2) or fault == "dead":
                return False
            if fault == "fault":
                far.say("fault", text="a bug")
                return True
            self.booted.append((order["trial"], order["index"]))
            marks = {"ready": 5, "api_return": 3}
            times = {"planned_ns": at_ns, "achieved_ns": at_ns + 70} if number == 0 else {}
            far.say("boot", boot=to_json(Boot(order["trial"], order["index"], "ok", marks_ns=marks, **times)))
        far.say("done", imported=["json.tool"] if fault == "imports" else [])
        return True


def swept(wanted: controller.Request, node: ScriptedNode):
    async def collect():
        async with aclosing(controller.sweep(wanted, node.connect)) as events:
            return [event async for event in events]

    return asyncio.run(collect())


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def test_a_sweep():
    """Every boot of the plan, once, in the plan's order; and a goodbye."""
    wanted, node = request(), ScriptedNode()
    events = swept(wanted, node)
    assert events[0] == NodeUp("one", FACTS, ("process 7",))
    assert of(events, TargetReady) == [TargetReady("one", "t", {"net": "own"}, {}, 5, 0, ("w",))]
    assert node.booted == [(order.trial, order.index) for order in wanted.plan.orders["one"]]
    assert [(e.boot.trial, e.boot.index) for e in of(events, BootDone)] == node.booted
    assert events[-1] == NodeDone("one")
    assert [message["type"] for message in node.told] == ["hello", "prepare", "arm", "stage", "start", "bye"]
    floors = {"memory_floor_bytes": str(128 << 20), "disk_floor_bytes": str(512 << 20)}
    assert node.told[0]["settings"] == {"coldstart_docker_host": "unix:///x", **floors}


def test_many_boots_go_in_batches(monkeypatch):
    """A message has a size limit; each batch is armed."""
    monkeypatch.setattr(nodetask, "BATCH", 4)
    node = ScriptedNode()
    events = swept(request(boots=5), node)
    assert len(of(events, BootDone)) == 10
    assert [len(m["orders"]) for m in node.told if m["type"] == "stage"] == [4, 4, 2]


def test_a_broken_link_is_opened_again_and_nothing_is_done_twice():
    """Only the boots that had not arrived are run."""
    node = ScriptedNode("cut", "cut")
    events = swept(request(), node)
    assert len(of(events, LinkLost)) == 2
    assert "sh: last words" in of(events, LinkLost)[0].reason
    assert sorted(node.booted) == sorted(set(node.booted))
    assert len(of(events, BootDone)) == 6
    assert events[-1] == NodeDone("one")


def test_the_agent_of_the_lost_link_may_still_be_cleaning_up():
    """`busy` with our own run passes."""
    events = swept(request(), ScriptedNode("cut", "busy run", "busy run"))
    assert len(of(events, BootDone)) == 6


def test_a_link_that_always_dies_is_given_up():
    """Three in a row without a single boot."""
    events = swept(request(), ScriptedNode(*["dead"] * 5))
    assert len(of(events, LinkLost)) == 2
    assert "link lost" in events[-1].error


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("busy other", "one: node busy: run other (wait for it, or end it)"),
        ("banner", "not a message of ours: b'Welcome to Ubuntu'"),
        ("imports", "imported ['json.tool'] while it was measuring"),
    ],
)
def test_what_cannot_pass_ends_the_node(fault, words):
    """With one line that says why."""
    events = swept(request(), ScriptedNode(fault))
    assert words in events[-1].error


def test_reconnecting_can_be_forbidden():
    """`--reconnect 0`."""
    events = swept(request(reconnect_s=0), ScriptedNode("cut"))
    assert of(events, LinkLost) == []
    assert "link lost" in events[-1].error


def test_what_a_node_lacks_is_skipped_with_the_reason():
    """Nothing is looped for it."""
    node = ScriptedNode("unavailable")
    events = swept(request(), node)
    assert of(events, Skipped) == [Skipped("one", "t", "no engine (install one)", s) for s in ("warm", "page-cold")]
    assert of(events, BootDone) == []


def test_page_cold_alone_can_be_impossible():
    """The warm boots are done all the same."""
    events = swept(request(), ScriptedNode("no cold"))
    assert of(events, Skipped) == [Skipped("one", "t", "no permission", "page-cold")]
    assert {event.boot.trial for event in of(events, BootDone)} == {0}


def test_leftovers_are_told():
    """What the node could not remove."""
    assert swept(request(), ScriptedNode("leftovers"))[-1].leftovers == ("network x",)


def test_resuming_runs_the_rest():
    """What is in the store is not asked for again."""
    wanted = request()
    done = frozenset({(0, 0), (1, 2)})
    node = ScriptedNode()
    rest = controller.Request("run", wanted.nodes, wanted.playbook, remaining(wanted.plan, done), done=done)
    assert len(of(swept(rest, node), BootDone)) == 4
    assert not done & set(node.booted)


def test_one_node_s_trouble_is_not_another_s():
    """Two nodes, one of them busy."""
    good, bad = ScriptedNode(), ScriptedNode("busy other")

    async def connect(node, bundle):
        return await (good if node.name == "one" else bad).connect(node, bundle)

    async def collect():
        return [event async for event in controller.sweep(request(nodes=("one", "two")), connect)]

    events = asyncio.run(collect())
    errors = {event.node: event.error for event in of(events, NodeDone)}
    assert errors["one"] == ""
    assert "node busy" in errors["two"]
    assert len(of(events, BootDone)) == 6


def swept_on(wanted: controller.Request, **nodes: ScriptedNode):
    async def collect():
        return [e async for e in controller.sweep(wanted, lambda node, code: nodes[node.name].connect(node, code))]

    return asyncio.run(collect())


def test_nodes_are_released_at_one_instant():
    """Each is told it on its own clock; here that is ours for both. What they made of it is told."""
    one, two = ScriptedNode(), ScriptedNode()
    events = swept_on(request(nodes=("one", "two")), one=one, two=two)
    instants = [m["at_ns"] for node in (one, two) for m in node.told if m["type"] == "start"]
    starts = [event.start for event in of(events, Started)]
    assert abs(instants[0] - instants[1]) <= sum(start.bound_ns for start in starts)
    assert {(start.wave, start.node) for start in starts} == {(0, "one"), (0, "two")}
    assert all(start.achieved_ns - start.planned_ns == 70 for start in starts)


def test_a_lost_node_is_not_waited_for():
    """It lost its link before the start; the other one starts, and it goes on alone when it is back."""
    one, two = ScriptedNode(), ScriptedNode("dead", "dead")
    events = swept_on(request(nodes=("one", "two")), one=one, two=two)
    assert {event.node: event.error for event in of(events, NodeDone)} == {"one": "", "two": ""}
    assert len(of(events, BootDone)) == 12


def test_in_waves_all_boot_the_same():
    """One boot a wave, in one order for all; also where a node has only a part of it."""
    one, two = ScriptedNode(), ScriptedNode("no cold")
    events = swept_on(request(nodes=("one", "two"), sync="wave"), one=one, two=two)
    staged = {
        name: [(o["start"], o["index"]) for m in node.told if m["type"] == "stage" for o in m["orders"]]
        for name, node in (("one", one), ("two", two))
    }
    assert len(staged["one"]) == 6
    assert staged["two"] == [boot for boot in staged["one"] if boot[0] == "warm"]
    waves = {event.start.wave: [] for event in of(events, Started)}
    for event in of(events, Started):
        waves[event.start.wave].append(event.node)
    assert sorted(map(len, waves.values())) == [1, 1, 1, 2, 2, 2]


def test_a_node_below_its_floor_is_not_used():
    """Before anything is sent there."""
    node = ScriptedNode("short")
    events = swept(request(), node)
    assert "only 5 MiB" in events[-1].error
    assert "coldstart_memory_floor" in events[-1].error
    assert [message["type"] for message in node.told] == ["hello", "bye"]


def test_a_bug_is_one_node_s():
    """The others go on; it is said where it was."""

    class Broken:
        async def connect(self, node, bundle):
            raise ZeroDivisionError("oops")

    events = swept_on(request(nodes=("one", "two")), one=ScriptedNode(), two=Broken())
    errors = {event.node: event.error for event in of(events, NodeDone)}
    assert errors["one"] == ""
    assert "two: a bug, please report it: ZeroDivisionError: oops" in errors["two"]
    assert len(of(events, BootDone)) == 6


def test_leaving_early_says_goodbye():
    """Closing the iterator, as a signal does, ends the node in order."""
    node = ScriptedNode()

    async def leave():
        async with aclosing(controller.sweep(request(boots=100), node.connect)) as events:
            async for event in events:
                if isinstance(event, BootDone):
                    return

    asyncio.run(leave())
    assert node.told[-1]["type"] == "bye"


def test_an_unexpected_answer_is_named():
    """Both what came and what was due."""

    async def talk():
        async def script(far: Far):
            await far.hear()
            far.say("armed")
            await far.hear()

        conversation = Conversation("one", MemoryLink(script))
        try:
            await conversation.ask("hello", "hello")
        finally:
            await conversation.end()

    with pytest.raises(ProtocolError, match="one: 'armed' came where hello was due"):
        asyncio.run(talk())
