"""Clients of the unikernel's TCP: one that does what it is told, and one that behaves on a network that does not."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from unikernel import ACK, FIN, PEER, PSH, RST, SYN, Machine, Segment, parse, tcp


class Client:
    """Sends exactly what it is told; `hear` says what came back, and remembers it."""

    def __init__(self, machine: Machine, port: int = 40000, isn: int = 0xFFFFFFFE, source: int = PEER) -> None:
        self.machine, self.port, self.source = machine, port, source
        self.seq, self.ack, self.window = isn, 0, 64240

    def send(self, flags: int, data: bytes = b"", *, seq: int | None = None, ack: int | None = None) -> list[Segment]:
        """What is answered."""
        at, acknowledged = self.seq if seq is None else seq, self.ack if ack is None else ack
        segment = Segment(self.port, at, acknowledged if flags & ACK else 0, flags, self.window, data)
        heard = self.machine.segments(tcp(segment, source=self.source))
        if seq is None and not flags & RST:
            self.seq = (self.seq + segment.extent) & 0xFFFFFFFF
        return heard

    def hear(self, flags: int, data: bytes = b"") -> bytes:
        """The data of the one answer, which is then acknowledged by whatever comes next."""
        (answer,) = self.send(flags, data)
        assert (answer.port, answer.ack) == (self.port, self.seq)
        self.ack = (answer.seq + answer.extent) & 0xFFFFFFFF
        return answer.data

    def open(self) -> Client:
        (answer,) = self.send(SYN)
        assert answer.flags == SYN | ACK
        assert answer.seq == self.machine.isn
        assert answer.options[:2] == b"\x02\x04"
        self.ack = (answer.seq + 1) & 0xFFFFFFFF
        assert self.send(ACK) == []
        return self

    def ask(self, request: bytes) -> bytes:
        return self.hear(PSH | ACK, request)


@dataclass
class Network:
    """Loses, doubles, reorders. Nothing is lost any more once `losses` are used up."""

    rng: random.Random
    loss: float
    doubling: float
    reordering: float
    losses: int = 200
    frames: list[bytes] = field(default_factory=list)

    def put(self, frame: bytes) -> None:
        for _ in range(1 + (self.rng.random() < self.doubling)):
            if self.losses and self.rng.random() < self.loss:
                self.losses -= 1
            elif self.frames and self.rng.random() < self.reordering:
                self.frames.insert(self.rng.randrange(len(self.frames) + 1), frame)
            else:
                self.frames.append(frame)


class Peer:
    """A TCP as everybody has one: repeats what is not acknowledged, acknowledges what it hears, and nothing else.

    It never speaks because it is waiting: if the unikernel then does not, either, that is a deadlock.
    """

    def __init__(self, send: Callable[[bytes], None], rng: random.Random, port: int, stream: bytes, half: bool) -> None:
        self.send_frame, self.rng, self.port, self.stream = send, rng, port, stream
        self.closes_first = half
        self.iss = rng.getrandbits(32)
        self.sent = 0  # of stream; the FIN is one more
        self.acknowledged = -1  # of stream; -1: not even the SYN
        self.edge = 0  # what the other side has room for
        self.irs: int | None = None
        self.heard = bytearray()
        self.peer_closed = False
        self.fin_sent = False
        self.owes_ack = False
        self.reset = False

    @property
    def done(self) -> bool:
        return self.fin_sent and self.acknowledged == len(self.stream) + 1 and self.peer_closed

    def _emit(self, flags: int, offset: int, data: bytes = b"") -> None:
        ack = 0
        if self.irs is not None:
            ack = self.irs + 1 + len(self.heard) + self.peer_closed
            flags |= ACK
            self.owes_ack = False
        self.send_frame(tcp(Segment(self.port, self.iss + 1 + offset, ack & 0xFFFFFFFF, flags, 60000, data)))

    def push(self) -> None:
        """What may be sent now, in pieces of any size."""
        if self.irs is None:
            return
        while self.sent < min(len(self.stream), self.edge):
            size = min(self.rng.choice((1, 3, 40, 1460)), min(len(self.stream), self.edge) - self.sent)
            self.sent += size
            self._emit(PSH, self.sent - size, self.stream[self.sent - size : self.sent])
        if self.sent == len(self.stream) and not self.fin_sent and (self.closes_first or self.peer_closed):
            self.fin_sent = True
            self._emit(FIN, self.sent)

    def timeout(self) -> bool:
        """Time has passed; whether there was something to do."""
        if self.irs is None:
            self._emit(SYN, -1)
            return True
        if self.acknowledged < self.sent:
            begin = max(self.acknowledged, 0)
            self._emit(PSH, begin, self.stream[begin : min(self.sent, begin + self.rng.choice((1, 100, 1460)))])
            return True
        if self.fin_sent and self.acknowledged == len(self.stream):
            self._emit(FIN, len(self.stream))
            return True
        if self.owes_ack:
            self._emit(0, self.sent + self.fin_sent)
            return True
        return False

    def hear(self, segment: Segment) -> None:
        if segment.flags & RST:
            self.reset = True
            return
        if self.irs is None:
            if segment.flags & SYN:
                self.irs, self.acknowledged, self.edge = segment.seq, 0, segment.window
                self._emit(0, 0)
            return
        acknowledged = (segment.ack - self.iss - 1) & 0xFFFFFFFF
        assert acknowledged <= self.sent + self.fin_sent, "acknowledges what was never sent"
        self.acknowledged = max(self.acknowledged, acknowledged)
        self.edge = max(self.edge, acknowledged + segment.window)
        self._hear_data(segment)

    def _hear_data(self, segment: Segment) -> None:
        assert self.irs is not None
        offset = (segment.seq - self.irs - 1) & 0xFFFFFFFF
        if segment.extent == 0 or segment.flags & SYN:
            return
        if offset == len(self.heard) and not self.peer_closed:
            self.heard += segment.data
            self.peer_closed = bool(segment.flags & FIN)
            self.owes_ack = True
            if self.rng.random() < 0.5:
                return  # delayed
        self._emit(0, self.sent + self.fin_sent)


def converse(machine: Machine, peers: list[Peer], network: Network, back: Network) -> None:
    """Until everybody has what he asked for."""
    for _ in range(20_000):
        for peer in peers:
            peer.push()
        if network.frames:
            for frame in machine.frames(network.frames.pop(0)):
                back.put(frame)
        elif back.frames:
            segment = parse(back.frames.pop(0))
            for peer in peers:
                if peer.port == segment.port:
                    peer.hear(segment)
        elif not sum(peer.timeout() for peer in peers):
            break
        if all(peer.done for peer in peers):
            break
    stuck = [(peer.port, peer.acknowledged, peer.sent, len(peer.heard)) for peer in peers if not peer.done]
    assert not stuck, f"deadlock: {stuck}"
