"""Probes: is the instance there yet? Each returns what it saw, `bootloop.py` stamps it; no clock is read here.

A probe works in rounds. `round(wait, handle)` opens one more connection and then follows every open one until `wait`
(the boot loop's, bounded by the probe interval) has nothing more to say. Connections of earlier rounds are kept: a
request that waits in a listen queue gets the very first answer the workload gives, while new connections notice when an
old one has died unseen. KEEP of them stay for as long as they live, so that a workload that always answers slowly is
still answered; the others make room for new ones beyond CAP.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Callable, Protocol

from coldstart.agent.checks import ExitCheck, HttpCheck, OutputCheck
from coldstart.agent.gate import Gate
from coldstart.agent.pace import NEAR, NOBODY, UNKNOWN, WAITING
from coldstart.agent.records import Ready
from coldstart.agent.runtimes import Handle, Place

CAP = 32
KEEP = 8
BLIND_EVERY = 16  # rounds: a probe goes out even where nobody seems to be, lest a sign we misread hid an instance

Wait = Callable[[Mapping[int, str]], list[int]]  # {fd: "r" or "w"} -> those that are; none: the round is over


@dataclass(frozen=True)
class Seen:
    """what: `opened`, `tcp` (accepted), `byte` (first of the answer), `valid`, `failed`; probe: which connection."""

    what: str
    probe: int


class Probe(Protocol):
    def round(self, wait: Wait, handle: Handle | None) -> Iterator[Seen]: ...

    def stage(self) -> str:
        """How far the instance has come, as `pace.py` names it."""

    def remark(self) -> str:
        """What may explain that it never was ready, '' if nothing was seen."""

    def close(self) -> None: ...


def probe_for(ready: Ready, place: Place) -> Probe:
    """The probe for one boot."""
    if ready.kind == "http":
        return NetworkProbe(place, HttpCheck(ready, place))
    if ready.kind == "tcp":
        return NetworkProbe(place, None)
    if ready.kind == "output":
        return InstanceProbe(OutputCheck(ready.pattern))
    return InstanceProbe(ExitCheck(ready.code))


@dataclass
class _Flight:
    number: int
    sock: socket.socket
    connected: bool = False
    answer: bytes = b""


class NetworkProbe:
    """TCP, and HTTP over it if `check` is given."""

    def __init__(self, place: Place, check: HttpCheck | None) -> None:
        self._address = (place.address, place.port)
        self._gate = Gate(place.gate) if place.gate else None
        self._near = False
        self._check = check
        self._flights: dict[int, _Flight] = {}  # by descriptor, the oldest first
        self._epoll = select.epoll()  # a round costs the same however many connections are open
        self._opened = 0

    def stage(self) -> str:
        if any(flight.connected for flight in self._flights.values()):
            return WAITING
        if self._near:
            return NEAR
        return NOBODY if self._gate else UNKNOWN

    def round(self, wait: Wait, handle: Handle | None) -> Iterator[Seen]:
        yield from self._open()
        while wait({self._epoll.fileno(): "r"}):
            for fd, _ in self._epoll.poll(0):
                yield from self._progress(self._flights[fd])

    def remark(self) -> str:
        return self._check.remark() if self._check else ""

    def close(self) -> None:
        for flight in list(self._flights.values()):
            self._end(flight, "failed")
        self._epoll.close()
        if self._gate:
            self._gate.close()

    def _open(self) -> Iterator[Seen]:
        if len(self._flights) >= CAP:
            yield self._end(list(self._flights.values())[KEEP], "failed")
        if self._gate and not self._near:
            self._near = self._gate.open()
            if not self._near and self._opened % BLIND_EVERY:
                yield from self._nobody_there()
                return
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        # Every instance is on a link of this node. If its bridge is lost, the default route must not take us to others.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
        flight = self._flights[sock.fileno()] = _Flight(self._opened, sock)
        self._opened += 1
        yield Seen("opened", flight.number)
        code = sock.connect_ex(self._address)
        self._epoll.register(sock, select.EPOLLOUT)
        if code not in (0, errno.EINPROGRESS):
            self._near |= code == errno.ECONNREFUSED
            yield self._end(flight, "failed")

    def _nobody_there(self) -> Iterator[Seen]:
        """A probe that needs no packet to fail."""
        number, self._opened = self._opened, self._opened + 1
        yield Seen("opened", number)
        yield Seen("failed", number)

    def _progress(self, flight: _Flight) -> Iterator[Seen]:
        try:
            if flight.connected:
                yield from self._read(flight)
            else:
                yield from self._connected(flight)
        except OSError as error:
            self._near |= error.errno == errno.ECONNREFUSED
            yield self._end(flight, "failed")

    def _connected(self, flight: _Flight) -> Iterator[Seen]:
        code = flight.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, "connect")
        flight.connected = True
        yield Seen("tcp", flight.number)
        if self._check is None:
            yield self._end(flight, "valid")
        else:
            self._epoll.modify(flight.sock, select.EPOLLIN)
            flight.sock.send(self._check.request)

    def _read(self, flight: _Flight) -> Iterator[Seen]:
        assert self._check is not None
        data = flight.sock.recv(65536)
        if data and not flight.answer:
            yield Seen("byte", flight.number)
        flight.answer += data
        verdict = self._check.verdict(flight.answer, ended=not data)
        if verdict is not None:
            yield self._end(flight, "valid" if verdict else "failed")

    def _end(self, flight: _Flight, what: str) -> Seen:
        # Closing alone would not do: while a child is between spawn and exec it holds a copy of the socket, and the
        # event of a dead connection would be taken for that of the next one with its number.
        self._epoll.unregister(flight.sock)
        del self._flights[flight.sock.fileno()]
        flight.sock.close()
        return Seen(what, flight.number)


class InstanceProbe:
    """Looks at the instance itself instead of its network; nothing is seen before `start` has returned."""

    def __init__(self, check: OutputCheck | ExitCheck) -> None:
        self._check = check
        self._looks = 0

    def stage(self) -> str:
        return NEAR

    def round(self, wait: Wait, handle: Handle | None) -> Iterator[Seen]:
        wait({})
        yield Seen("opened", self._looks)
        if handle is not None and self._check.verdict(handle):
            yield Seen("valid", self._looks)
        self._looks += 1

    def remark(self) -> str:
        return ""

    def close(self) -> None:
        pass
