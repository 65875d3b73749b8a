"""The unikernel's network: frames in, frames out. Every frame it sends is checked to the last field, by other code."""

from __future__ import annotations

import random
import struct

import pytest
from client import Client, Network, Peer, converse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unikernel import (
    ACK,
    ADDRESS,
    FIN,
    MAC,
    PEER,
    PEER_MAC,
    PSH,
    RST,
    SYN,
    Machine,
    Segment,
    checksum,
    ip,
    parse,
    payload_of,
    reply,
    tcp,
)

GET = b"GET / HTTP/1.1\r\nHost: hello\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"
FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# --- below TCP ---


def arp(operation: int, target: int, sender: int = PEER) -> bytes:
    head = struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation)
    body = head + PEER_MAC + struct.pack(">I", sender) + bytes(6) + struct.pack(">I", target)
    return b"\xff" * 6 + PEER_MAC + b"\x08\x06" + body


def test_announces_itself(machine: Machine) -> None:
    """Who has it? I have."""
    (frame,) = machine.announce()
    head = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1)
    assert frame[6:42] == MAC + b"\x08\x06" + head + MAC + struct.pack(">I", ADDRESS) + frame[32:38] + frame[28:32]
    assert frame[38:] == struct.pack(">I", ADDRESS) + bytes(18)


def test_answers_arp(machine: Machine) -> None:
    (frame,) = machine.frames(arp(1, ADDRESS))
    head = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 2)
    body = MAC + struct.pack(">I", ADDRESS) + PEER_MAC + struct.pack(">I", PEER)
    assert frame == PEER_MAC + MAC + b"\x08\x06" + head + body + bytes(18)


@pytest.mark.parametrize("frame", [arp(1, ADDRESS + 1), arp(2, ADDRESS), arp(1, ADDRESS)[:41]])
def test_other_arp_is_not_for_it(machine: Machine, frame: bytes) -> None:
    assert machine.frames(frame) == []


@pytest.mark.parametrize("size", [0, 1, 56, 1472])
def test_answers_ping(machine: Machine, size: int) -> None:
    data = bytes(index % 256 for index in range(size))
    request = struct.pack(">BBHHH", 8, 0, 0, 77, 1) + data
    (frame,) = machine.frames(ip(request[:2] + struct.pack(">H", checksum(request)) + request[4:], 1))
    answer = payload_of(frame, 1)
    assert checksum(answer) == 0
    assert (answer[:2], answer[4:]) == (b"\0\0", request[4:])


def syn_frame(**changes: int) -> bytes:
    return tcp(Segment(40000, 1, 0, SYN, 64240, b""), **changes)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (14, b"\x55"),  # IP version
        (14, b"\x44"),  # header shorter than the shortest
        (14, b"\x4f"),  # header longer than the packet
        (16, b"\x00\x13"),  # total length shorter than the header
        (16, b"\x05\xdc"),  # total length beyond the frame
        (20, b"\x20\x00"),  # more fragments
        (20, b"\x00\x01"),  # a later fragment
        (24, b"\x00\x00"),  # header checksum
        (30, b"\x0a\x4d\x00\x03"),  # for somebody else
        (50, b"\x12\x34"),  # TCP checksum
        (46, b"\x40\x02"),  # TCP header shorter than the shortest
        (46, b"\xf0\x02"),  # TCP header beyond the segment
    ],
)
def test_what_is_wrong_is_not_answered(machine: Machine, where: int, value: bytes) -> None:
    right = syn_frame()
    assert len(machine.frames(right)) == 1
    machine.start()
    wrong = bytearray(right)
    wrong[where : where + len(value)] = value
    if where != 24:
        wrong[24:26] = bytes(2)
        wrong[24:26] = struct.pack(">H", checksum(bytes(wrong[14:34])))
    if where == 46:
        segment = bytes(wrong[34:])
        segment = segment[:16] + bytes(2) + segment[18:]
        pseudo_header = struct.pack(">IIHH", PEER, ADDRESS, 6, len(segment))
        wrong[50:52] = struct.pack(">H", checksum(pseudo_header + segment))
    assert machine.frames(bytes(wrong)) == []


@pytest.mark.parametrize("source", [0, ADDRESS, 0xE0000001, 0xFFFFFFFF])
def test_nobody_can_be_answered_there(machine: Machine, source: int) -> None:
    assert machine.frames(syn_frame(source=source)) == []


def test_ip_options_are_skipped(machine: Machine) -> None:
    segment = tcp(Segment(40000, 1, 0, SYN, 64240, b""))[34:]
    (answer,) = machine.segments(ip(segment, 6, options=b"\x01" * 8))
    assert answer.flags == SYN | ACK


def test_padding_is_not_data(machine: Machine) -> None:
    (answer,) = machine.segments(syn_frame() + bytes(6))
    assert answer.ack == 2


# --- a conversation ---


def test_one_request(machine: Machine) -> None:
    client = Client(machine).open()
    assert client.ask(GET) == reply()
    assert client.ask(b"GET /x HTTP/1.1\r\n\r\n") == reply("404 Not Found", "not found\n")
    assert client.ask(CLOSE) == reply(kept=False)
    assert client.hear(FIN | ACK) == b""
    assert client.send(ACK) == []


def test_answer_that_closes_is_one_segment(machine: Machine) -> None:
    client = Client(machine).open()
    (answer,) = client.send(PSH | ACK, CLOSE)
    assert (answer.flags, answer.data) == (ACK | PSH | FIN, reply(kept=False))


def test_segments_of_one_byte(machine: Machine) -> None:
    """All but the last are acknowledged at once."""
    client = Client(machine).open()
    for byte in GET[:-1]:
        assert client.hear(ACK, bytes([byte])) == b""
    assert client.hear(ACK, GET[-1:]) == reply()


def test_a_thousand_requests_on_one_connection(machine: Machine) -> None:
    client = Client(machine).open()
    for _ in range(1000):
        assert client.ask(GET) == reply()


def test_a_thousand_connections(machine: Machine) -> None:
    """Every other one leaves without a word."""
    for number in range(1000):
        client = Client(machine, 1024 + number).open()
        assert client.ask(CLOSE if number % 2 else GET) == reply(kept=not number % 2)
        if number % 2:
            client.hear(FIN | ACK)


def test_repeated_syn(machine: Machine) -> None:
    client = Client(machine)
    first = client.send(SYN)
    client.seq = 0xFFFFFFFE
    assert client.send(SYN) == first
    assert machine.connections == 1


def test_repeated_request(machine: Machine) -> None:
    """The answer again, and again until it is acknowledged; then it is only said that it is known."""
    client = Client(machine).open()
    begin = client.seq
    first = client.send(PSH | ACK, GET)
    assert client.send(PSH | ACK, GET, seq=begin) == first
    client.ack = first[0].seq + len(first[0].data)
    assert client.send(ACK) == []
    assert [answer.data for answer in client.send(PSH | ACK, GET, seq=begin)] == [b""]
    assert client.ask(GET) == reply()


def test_request_that_overlaps(machine: Machine) -> None:
    """Repeated with more behind it."""
    client = Client(machine).open()
    begin = client.seq
    assert client.hear(ACK, GET[:9]) == b""
    client.seq = begin
    assert client.hear(PSH | ACK, GET) == reply()


def test_gap(machine: Machine) -> None:
    """What came too early is asked for again."""
    client = Client(machine).open()
    (answer,) = client.send(ACK, GET[5:], seq=client.seq + 5)
    assert (answer.data, answer.ack) == (b"", client.seq)
    assert client.ask(GET) == reply()


def test_pipelined(machine: Machine) -> None:
    """One at a time: the next answer is sent once the one before is acknowledged."""
    client = Client(machine).open()
    begin = client.seq
    (first,) = client.send(PSH | ACK, GET * 3)
    assert (first.data, first.ack) == (reply(), (begin + len(GET)) & 0xFFFFFFFF)
    for count in (2, 3):
        client.ack = (client.ack + len(reply())) & 0xFFFFFFFF
        (answer,) = client.send(ACK)
        assert (answer.data, answer.ack) == (reply(), (begin + count * len(GET)) & 0xFFFFFFFF)
    client.ack = (client.ack + len(reply())) & 0xFFFFFFFF
    assert client.send(ACK) == []


def test_nothing_but_the_answer_acknowledges_the_request(machine: Machine) -> None:
    """As long as it is outstanding, whatever is said is the answer."""
    client = Client(machine).open()
    seq = client.seq
    (answer,) = client.send(PSH | ACK, GET)
    for heard in (
        client.send(ACK, b"G", seq=seq + 500),  # a gap
        client.send(SYN, seq=seq),
        client.send(RST, seq=client.seq + 5),
        client.send(ACK, ack=answer.seq + 5000),  # of what was never sent
        client.send(PSH | ACK, GET, seq=seq),
    ):
        assert heard == [answer]


def test_answers_wait_for_room(machine: Machine) -> None:
    """A window that cannot take it whole gets no answer, nor is the request acknowledged; an update gets it."""
    client = Client(machine).open()
    client.window = len(reply()) - 1
    begin = client.seq
    (heard,) = client.send(PSH | ACK, GET)
    assert (heard.data, heard.ack) == (b"", begin)
    (heard,) = client.send(PSH | ACK, GET, seq=begin)
    assert (heard.data, heard.ack) == (b"", begin)
    client.window += 1
    (heard,) = client.send(ACK)
    assert (heard.data, heard.ack) == (reply(), client.seq)


def test_largest_request(machine: Machine) -> None:
    client = Client(machine).open()
    largest = b"GET / HTTP/1.1\r\nX: ".ljust(2044, b"x") + b"\r\n\r\n"
    assert client.ask(largest[:1460]) == b""
    assert client.ask(largest[1460:]) == reply()


def test_too_large(machine: Machine) -> None:
    """Refused, and all the rest is taken and forgotten, so that the answer is not lost."""
    client = Client(machine).open()
    heard = b"".join(client.ask(b"x" * 1000) for _ in range(2))
    (answer,) = client.send(ACK, b"x" * 1000)
    right = reply("431 Request Header Fields Too Large", "request too large\n", kept=False)
    assert (heard, answer.data, answer.flags & FIN) == (b"", right, FIN)
    client.seq, client.ack = answer.ack, (answer.seq + answer.extent) & 0xFFFFFFFF
    for _ in range(100):
        assert client.ask(b"x" * 1460) == b""
    assert client.hear(FIN | ACK) == b""


def test_what_has_no_room_has_not_come(machine: Machine) -> None:
    """Neither the bytes nor the FIN behind them are acknowledged."""
    client = Client(machine).open()
    begin = client.seq
    client.ask(b"x" * 1460)
    (answer,) = client.send(FIN | ACK, b"x" * 1000)
    assert answer.ack == (begin + 2048) & 0xFFFFFFFF


def test_room_after_the_last_answer(machine: Machine) -> None:
    """Never more than was promised, however much is taken while the answer is outstanding."""
    client = Client(machine).open()
    begin = client.seq
    (answer,) = client.send(ACK, CLOSE)
    for _ in range(3):
        assert client.send(ACK, b"x" * 1000) == [] or client.seq - begin > 2048
        assert client.send(ACK, CLOSE, seq=begin) == [answer]
    assert answer.window == 2048


def test_request_with_an_old_acknowledgement(machine: Machine) -> None:
    """It was sent before, and came later."""
    client = Client(machine).open()
    old = client.ack
    assert client.ask(GET) == reply()
    client.send(ACK)
    (answer,) = client.send(PSH | ACK, GET, ack=old)
    assert answer.data == reply()


# --- how it ends ---


def test_half_closed(machine: Machine) -> None:
    """The request and its FIN in one: the answer carries ours."""
    client = Client(machine).open()
    (answer,) = client.send(PSH | FIN | ACK, GET)
    assert (answer.flags, answer.data, answer.ack) == (ACK | PSH | FIN, reply(), client.seq)
    client.ack = (answer.seq + answer.extent) & 0xFFFFFFFF
    assert client.send(ACK) == []


def test_closed_while_an_answer_is_outstanding(machine: Machine) -> None:
    client = Client(machine).open()
    (answer,) = client.send(PSH | ACK, GET)
    assert client.send(FIN | ACK) == []
    client.ack = (answer.seq + len(answer.data)) & 0xFFFFFFFF
    (fin,) = client.send(ACK)
    assert (fin.flags, fin.ack) == (FIN | ACK, client.seq)


@pytest.mark.parametrize("begun", [b"", GET[:7]])
def test_closed_without_a_request(machine: Machine, begun: bytes) -> None:
    client = Client(machine).open()
    (answer,) = client.send(FIN | ACK, begun)
    assert (answer.flags, answer.data, answer.ack) == (FIN | ACK, b"", client.seq)
    assert client.send(FIN | ACK, seq=client.seq - 1) == [answer]


def test_reset(machine: Machine) -> None:
    """Exactly where we are it ends the connection; near it, it is asked about; elsewhere it is nothing."""
    client = Client(machine).open()
    assert len(client.send(RST, seq=client.seq + 10)) == 1
    assert client.send(RST, seq=client.seq + 5000) == []
    assert machine.connections == 1
    assert client.send(RST) == []
    assert machine.connections == 0
    (answer,) = client.send(ACK)
    assert (answer.flags, answer.seq) == (RST, client.ack)


def test_same_port_again(machine: Machine) -> None:
    """A finished connection makes way for a new one; of one that is open the peer is asked."""
    client = Client(machine).open()
    (challenge,) = client.send(SYN, seq=12345)
    assert challenge.flags == ACK
    client.ask(CLOSE)
    client.hear(FIN | ACK)
    client.seq = 12345
    assert client.open().ask(GET) == reply()
    assert machine.connections == 1


def test_quit(machine: Machine) -> None:
    """Only once the peer has the answer."""
    client = Client(machine).open()
    begin = client.seq
    assert client.ask(b"GET /quit HTTP/1.1\r\n\r\n") == reply(body="good bye!\n", kept=False)
    client.send(PSH | ACK, b"GET /quit HTTP/1.1\r\n\r\n", seq=begin, ack=machine.isn + 1)
    assert not machine.quit
    client.send(ACK)
    assert machine.quit


# --- who does not belong ---


@pytest.mark.parametrize("flags", [ACK, PSH | ACK, FIN | ACK, SYN | ACK])
def test_unknown_connection(machine: Machine, flags: int) -> None:
    client = Client(machine)
    (answer,) = client.send(flags, b"x" if flags & PSH else b"", ack=77)
    assert (answer.flags, answer.seq) == (RST, 77)


@pytest.mark.parametrize("flags", [0, FIN, SYN | FIN])
def test_no_connection_begins_like_that(machine: Machine, flags: int) -> None:
    (answer,) = Client(machine, isn=100).send(flags)
    assert (answer.flags, answer.seq) == (RST | ACK, 0)
    assert answer.ack == 100 + bool(flags & SYN) + bool(flags & FIN)


def test_other_port(machine: Machine) -> None:
    (answer,) = machine.segments(tcp(Segment(40000, 9, 0, SYN, 64240, b""), target_port=81))
    assert (answer.flags, answer.ack) == (RST | ACK, 10)
    assert machine.connections == 0


def test_resets_are_not_answered(machine: Machine) -> None:
    assert Client(machine).send(RST) == []
    assert Client(machine).send(RST | ACK) == []


def test_wrong_acknowledgement_of_a_syn(machine: Machine) -> None:
    client = Client(machine)
    client.send(SYN)
    (answer,) = client.send(ACK, ack=machine.isn + 2)
    assert (answer.flags, answer.seq) == (RST, (machine.isn + 2) & 0xFFFFFFFF)


def test_keepalive(machine: Machine) -> None:
    """One number before what is next: an answer, and nothing has changed."""
    client = Client(machine).open()
    (answer,) = client.send(ACK, seq=client.seq - 1)
    assert (answer.flags, answer.ack, answer.data) == (ACK, client.seq, b"")


def test_old_syns_pile_up(machine: Machine) -> None:
    """Whoever gave up says so when he hears; the others are answered."""
    clients = [Client(machine, 40000 + number) for number in range(20)]
    for client in clients:
        (answer,) = client.send(SYN)
        client.ack = (answer.seq + 1) & 0xFFFFFFFF
    for client in clients[:-1]:
        assert client.send(RST) == []
    assert machine.connections == 1
    assert clients[-1].ask(GET) == reply()


def test_a_full_table(machine: Machine) -> None:
    """Who has only begun goes first, then who has been silent for longest; who is done before either."""
    clients = [Client(machine, 1000 + number).open() for number in range(64)]
    clients[0].ask(GET)
    begun = Client(machine, 2000)
    begun.send(SYN)
    assert [answer.flags for answer in clients[1].send(ACK)] == [RST]
    Client(machine, 2001).open()
    assert [answer.flags for answer in begun.send(ACK)] == [RST]
    clients[0].ask(CLOSE)
    clients[0].hear(FIN | ACK)
    Client(machine, 2002).open()
    assert [answer.flags for answer in clients[0].send(ACK)] == [RST]
    for client in clients[2:]:
        assert client.ask(GET) == reply()
    assert machine.connections == 64


def test_mute(machine: Machine) -> None:
    """All is taken, nothing is said."""
    machine.start(mute=True)
    client = Client(machine).open()
    for _ in range(5):
        assert client.ask(GET * 30) == b""


# --- whatever happens ---


@FUZZ
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.02, 0.3, 0.6]),
    doubling=st.sampled_from([0.0, 0.3]),
    reordering=st.sampled_from([0.0, 0.3]),
    counts=st.lists(st.integers(0, 8), min_size=1, max_size=4),
    closes=st.booleans(),
    half=st.booleans(),
)
def test_everybody_is_answered(
    machine: Machine,
    seed: int,
    loss: float,
    doubling: float,
    reordering: float,
    counts: list[int],
    closes: bool,
    half: bool,
) -> None:
    """Whatever the network loses, doubles and reorders, cut as it may be: all answers, each once, in order."""
    rng = random.Random(seed)
    machine.start(isn=rng.getrandbits(32))
    there, back = (Network(rng, loss, doubling, reordering) for _ in range(2))
    half = half or not closes
    peers = [
        Peer(there.put, rng, 40000 + index, GET * count + CLOSE * closes, half) for index, count in enumerate(counts)
    ]
    converse(machine, peers, there, back)
    for peer, count in zip(peers, counts, strict=True):
        assert not peer.reset
        assert bytes(peer.heard) == reply() * count + reply(kept=False) * closes


@FUZZ
@given(st.binary(max_size=1514))
def test_any_frame(machine: Machine, frame: bytes) -> None:
    """Nothing is read behind its end, nothing is written behind ours."""
    machine.frames(MAC + frame)
    for kind in (b"\x08\x00", b"\x08\x06"):
        machine.frames(MAC + PEER_MAC + kind + frame[:1500])


@FUZZ
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([0, SYN, ACK, PSH | ACK, FIN | ACK, FIN, RST, RST | ACK, SYN | ACK, 31]),
            st.one_of(st.integers(-3, 3), st.integers(-3000, 3000), st.integers(0, 2**32 - 1)),
            st.one_of(st.integers(-3, 600), st.integers(0, 2**32 - 1)),
            st.sampled_from([0, 100, 65535]),
            st.one_of(st.sampled_from([b"", b"G", GET, CLOSE, GET * 40, b"\r\n" * 700]), st.binary(max_size=1400)),
        ),
        max_size=30,
    )
)
def test_any_segments(machine: Machine, steps: list[tuple[int, int, int, int, bytes]]) -> None:
    """A peer that does what it likes: all it hears is right in form, and the next one is served."""
    machine.start()
    client = Client(machine).open()
    for flags, seq, ack, window, data in steps:
        segment = Segment(40000, client.seq + seq, client.ack + ack & 0xFFFFFFFF, flags, window, data[:1460])
        for answer in machine.segments(tcp(segment)):
            assert len(answer.data) <= 512
            assert answer.window <= 2048
            client.seq = answer.ack
    assert Client(machine, 50000).open().ask(GET) == reply()


def test_parse_finds_a_wrong_sum() -> None:
    """The checks above can fail."""
    frame = bytearray(tcp(Segment(1, 2, 3, ACK, 5, b"x")))
    frame[:12] = PEER_MAC + MAC
    with pytest.raises(AssertionError):
        parse(bytes(frame))
