"""A node does what it is told only when it is told in order; anything else ends the session with one fault."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldstart.agent import actions
from coldstart.agent.records import Image, Order, Ready, to_json
from coldstart.agent.session import Session

HELLO = {"type": "hello", "run": "r", "settings": {}}
PREPARE = {
    "type": "prepare",
    "target": "t",
    "runtime": "fake",
    "options": {},
    "image": to_json(Image("none")),
    "ready": to_json(Ready(port=80)),
    "previous": None,
    "port": 0,
}
IMAGE = Image("app", reference="coldstart.local/app:1", id="sha256:1", digest="sha256:2")
ARM = {"type": "arm"}
STAGE = {"type": "stage", "orders": [to_json(Order(0, 1, "t"))]}
START = {"type": "start", "at_ns": 5}
DIGEST = "ab" * 32


def told(*messages):
    """The last reply and action of a session that was told all of these."""
    one = Session()
    results = [one.receive(message) for message in messages]
    return one, *results[-1]


def test_the_whole_way():
    """hello, prepare, arm, stage, start, and stage and start again."""
    one, replies, todo = told(HELLO, PREPARE, ARM, STAGE, START, STAGE, START)
    assert (one.state, replies) == ("armed", [])
    assert todo == [actions.Start(5)]


@pytest.mark.parametrize(
    ("message", "action"),
    [
        ({"type": "offer", "sha256": DIGEST, "size_bytes": 3}, actions.Offer(DIGEST, 3)),
        (
            {"type": "chunk", "sha256": DIGEST, "data": base64.b64encode(b"abc").decode()},
            actions.Chunk(DIGEST, b"abc"),
        ),
        ({"type": "clean", "run": "", "images": True}, actions.Clean("", images=True)),
        ({"type": "fetch", "sha256": DIGEST, "size_bytes": 3, "port": 4}, actions.Fetch(DIGEST, 3, 4)),
        (
            {"type": "install", "runtime": "docker", "options": {}, "image": to_json(IMAGE), "port": 0},
            actions.Install("docker", {}, IMAGE, 0),
        ),
        (
            {**PREPARE, "previous": to_json(IMAGE), "port": 65535},
            actions.Prepare("t", "fake", {}, Image("none"), Ready(port=80), IMAGE, 65535),
        ),
        (ARM, actions.Arm()),
        ({"type": "survey"}, actions.Survey()),
        (PREPARE, actions.Prepare("t", "fake", {}, Image("none"), Ready(port=80))),
    ],
)
def test_actions(message, action):
    """Every message becomes the action it names."""
    assert told(HELLO, message)[1:] == ([], [action])


@pytest.mark.parametrize(
    "messages", [(ARM,), (PREPARE,), (HELLO, STAGE), (HELLO, HELLO), (HELLO, PREPARE, STAGE), (HELLO, ARM, START)]
)
def test_out_of_order(messages):
    """Nothing is measured that was not prepared and armed."""
    one, replies, todo = told(*messages)
    assert one.state == "ended"
    assert "is not expected while" in replies[0][1]["text"]
    assert todo == [actions.End()]


def test_preparing_again_disarms():
    """What is prepared after ARM was not warmed."""
    assert told(HELLO, PREPARE, ARM, PREPARE, STAGE)[0].state == "ended"


def test_a_staged_boot_waits_for_its_instant():
    """And for nothing else: what came between would disturb it."""
    assert told(HELLO, ARM, STAGE)[2] == [actions.Stage((Order(0, 1, "t"),))]
    assert told(HELLO, ARM, STAGE, STAGE)[0].state == "ended"


@pytest.mark.parametrize("message", [{"type": "stage", "orders": []}, {**STAGE, "orders": [{"trial": 0}]}])
def test_nothing_to_stage(message):
    """There is always a first boot to prepare."""
    assert told(HELLO, ARM, message)[0].state == "ended"


@pytest.mark.parametrize("at_ns", [-1, 1.5, "5", True, None])
def test_no_instant(at_ns):
    """An instant is a whole number of nanoseconds."""
    assert told(HELLO, ARM, STAGE, {"type": "start", "at_ns": at_ns})[0].state == "ended"


@pytest.mark.parametrize(
    "message",
    [
        {"type": "offer", "sha256": "../../etc/passwd", "size_bytes": 3},
        {"type": "offer", "sha256": DIGEST.upper(), "size_bytes": 3},
        {"type": "offer", "sha256": DIGEST, "size_bytes": -1},
        {"type": "offer", "sha256": DIGEST, "size_bytes": True},
        {"type": "offer", "sha256": DIGEST},
        {"type": "chunk", "sha256": DIGEST, "data": "%%%"},
        {"type": "clean", "run": 7, "images": False},
        {**PREPARE, "image": {"name": "x", "shell": "y"}},
        {**PREPARE, "image": {}},
        {**PREPARE, "image": {"name": "x", "env": {"A": 1}}},
        {**PREPARE, "ready": {"timeout_ns": 1.5}},
        {**PREPARE, "ready": {"nonce": 1}},
        {**PREPARE, "ready": []},
        {**PREPARE, "image": {"name": "x", "args": [1]}},
        {"type": "reboot"},
    ],
)
def test_malformed(message):
    """A field that is missing, unknown or of the wrong type, and above all a path where a digest should be."""
    one, replies, todo = told(HELLO, message)
    assert one.state == "ended"
    assert replies[0][0] == "fault"
    assert todo == [actions.End()]


def test_an_ended_session_is_silent():
    """One fault is enough."""
    assert told(HELLO, {"type": "reboot"}, ARM)[1:] == ([], [])


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
MESSAGES = st.fixed_dictionaries(
    {"type": st.sampled_from([*"x", "hello", "offer", "chunk", "prepare", "arm", "stage", "start", "survey", "clean"])},
    optional={
        name: VALUES | st.dictionaries(st.text(max_size=5), VALUES, max_size=2)
        for name in (
            "run",
            "settings",
            "sha256",
            "size_bytes",
            "data",
            "target",
            "image",
            "ready",
            "orders",
            "images",
            "at_ns",
        )
    },
)


@given(st.lists(MESSAGES, max_size=6))
def test_never_raises(messages):
    """Whatever the fields hold, the answer is an action or a fault."""
    one = Session()
    for message in [HELLO, *messages]:
        replies, actions = one.receive(message)
        assert len(actions) <= 1
        assert all(kind == "fault" for kind, _ in replies)
