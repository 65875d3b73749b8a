"""The decoder gives the same messages however the bytes are cut, and refuses everything else, once and for all."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldstart.agent.session import Session
from coldstart.agent.wire import CHUNK_BYTES, LIMIT_BYTES, Decoder, Encoder, WireError

FUZZ_INPUTS = 100_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.text(min_size=1).filter(lambda k: k not in ("v", "seq", "type", "kind", "self")), JSON, max_size=4
)


def encoded(*kinds: str) -> bytes:
    encoder = Encoder()
    return b"".join(encoder.encode(kind, n=number) for number, kind in enumerate(kinds))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_the_same_messages_however_they_are_cut(size):
    """Byte by byte or all at once."""
    data, decoder = encoded("hello", "boot", "done"), Decoder()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    messages = [message for piece in pieces for message in decoder.feed(piece)]
    assert [message["type"] for message in messages] == ["hello", "boot", "done"]
    assert [message["seq"] for message in messages] == [0, 1, 2]


@given(st.lists(FIELDS, max_size=4), st.lists(st.integers(0, 400), max_size=5))
def test_what_is_encoded_is_decoded(fields, cuts):
    """Any JSON, cut anywhere."""
    encoder, decoder = Encoder(), Decoder()
    data = b"".join(encoder.encode("x", **each) for each in fields)
    ends = sorted(min(cut, len(data)) for cut in cuts)
    pieces = [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]
    messages = [message for piece in pieces for message in decoder.feed(piece)]
    assert [{k: v for k, v in m.items() if k not in ("v", "seq", "type")} for m in messages] == fields


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"Welcome to Ubuntu 24.04 LTS\n", "not a message of ours: b'Welcome to Ubuntu"),
        (b"\n", "not a message of ours: b''"),
        (b"[1]\n", "not an object"),
        (b"{}\n", "version None of the protocol"),
        (b'{"v":2,"seq":0,"type":"x"}\n', "version 2 of the protocol"),
        (b'{"v":true,"seq":0,"type":"x"}\n', "version True of the protocol"),
        (b'{"v":1,"type":"x"}\n', "no sequence number"),
        (b'{"v":1,"seq":0.0,"type":"x"}\n', "no sequence number"),
        (b'{"v":1,"seq":true,"type":"x"}\n', "no sequence number"),
        (b'{"v":1,"seq":0,"type":7}\n', "no sequence number or no type"),
        (b'{"v":1,"seq":1,"type":"x"}\n', "message 1 came where 0 was due"),
        (b'{"v":1,"seq":0,"type":"\xff"}\n', "not a message of ours"),
        (b"[" * 100_000 + b"\n", "not a message of ours"),
        (b'{"v":1,"seq":' + b"9" * 10_000 + b',"type":"x"}\n', "not a message of ours"),
    ],
)
def test_refuses(line, words):
    """What is not ours is quoted, so that a login banner explains itself."""
    with pytest.raises(WireError, match="^" + words.replace("(", r"\(").replace("[", r"\[")):
        Decoder().feed(line)


def test_a_line_without_end_is_refused_before_memory_is_full():
    """One byte more than a message may have is enough."""
    decoder = Decoder()
    assert decoder.feed(b"x" * (LIMIT_BYTES - 1)) == []
    with pytest.raises(WireError, match="more than"):
        decoder.feed(b"xx")


def test_messages_before_an_error_are_not_lost():
    """They were valid; the error shows with the next bytes, and for ever."""
    decoder = Decoder()
    assert [m["type"] for m in decoder.feed(encoded("boot") + b"garbage\n")] == ["boot"]
    for _ in range(2):
        with pytest.raises(WireError, match="garbage"):
            decoder.feed(b"")


def test_a_message_too_large_is_refused_by_the_sender():
    """And its number is not used up."""
    encoder = Encoder()
    with pytest.raises(ValueError, match="more than a message may have"):
        encoder.encode("chunk", data="x" * LIMIT_BYTES)
    assert json.loads(encoder.encode("next"))["seq"] == 0


def test_a_chunk_fits_a_message():
    """The largest push message, base64 and all."""
    assert len(Encoder().encode("chunk", sha256="0" * 64, data="A" * (4 * CHUNK_BYTES // 3 + 4))) <= LIMIT_BYTES


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Cut, doubled, overwritten or with something in between."""
    at, other = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    noise = rng.choice([b"\n", b"{", b'"', b"\x00", b"\xff\xfe", b"null", b"1e999", b"Last login: now\r\n", b"[[[["])
    return rng.choice([data[:at], data[at:], data[:at] + noise + data[other:], data + data[at:other], noise])


def test_fuzz():
    """1e5 damaged streams: whole messages in order, or WireError, and whatever came through, a session that holds."""
    rng = random.Random(20170626)
    good = encoded("hello", "prepare", "boot")
    refused = 0
    for _ in range(FUZZ_INPUTS):
        data, decoder, session = mutated(rng, good), Decoder(), Session()
        cut = rng.randrange(len(data) + 1)
        try:
            messages = decoder.feed(data[:cut]) + decoder.feed(data[cut:])
        except WireError:
            refused += 1
            continue
        assert [(m["v"], m["seq"]) for m in messages] == [(1, n) for n in range(len(messages))]
        for message in messages:
            session.receive(message)
    assert FUZZ_INPUTS / 10 < refused < FUZZ_INPUTS  # the fuzz reaches both outcomes
