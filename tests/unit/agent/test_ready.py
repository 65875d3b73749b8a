"""Probes over real sockets: what counts as an answer, and what never does."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldstart.agent.checks import HttpCheck
from coldstart.agent.clock import MonotonicClock
from coldstart.agent.ready import CAP, KEEP, NetworkProbe, probe_for
from coldstart.agent.records import Ready
from coldstart.agent.runtimes import Place

ROUND_NS = 2_000_000
NONCE = "0123456789abcdef"


def answer(*, status="200 OK", nonce=NONCE, body="Serverless Unikernels!\n", length=None) -> bytes:
    length = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nX-Coldstart-Nonce: {nonce}\r\nContent-Length: {length}\r\n\r\n{body}".encode()


def check(**ready) -> HttpCheck:
    wanted = {"port": 8080, "body": "Serverless", "nonce": True, **ready}
    return HttpCheck(Ready(**wanted), Place("n", "127.0.0.1", 8080, NONCE))


@pytest.mark.parametrize(
    ("data", "ended", "verdict"),
    [
        (answer(), False, True),
        (answer().replace(b"X-Coldstart-Nonce", b"x-coldstart-NONCE"), False, True),
        (answer().replace(b"HTTP/1.1", b"HTTP/1.0"), False, True),
        (answer(nonce="stale"), False, False),
        (answer(status="500 Oops"), False, False),
        (answer(status="301 Moved"), False, False),
        (answer(body="502 Bad Gateway"), False, False),
        (answer(body="502 Bad Gateway", length=999), False, None),
        (answer(body="502 Bad Gateway", length=999), True, False),
        (answer()[:40], False, None),
        (answer()[:40], True, False),
        (b"", True, False),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", False, False),
        (b"x" * (1 << 20) + b"x", False, False),
    ],
)
def test_verdicts(data, ended, verdict):
    """Status, body and nonce must all be right; half an answer is not one yet."""
    assert check().verdict(data, ended=ended) is verdict


@pytest.mark.parametrize(
    ("data", "remark"),
    [
        (answer(status="404 Not Found"), "; it answered 'HTTP/1.1 404 Not Found'"),
        (answer(body="other"), "; it answered 'HTTP/1.1 200 OK', but not with what `ready` asks for"),
        (answer(nonce="stale"), "; it answered 'HTTP/1.1 200 OK'"),
        (answer(), ""),
    ],
)
def test_what_may_explain_a_timeout(data, remark):
    """The last answer that was not the right one, in its own words."""
    one = check()
    one.verdict(data, ended=True)
    assert one.remark() == remark


def test_a_redirect_can_be_what_is_wanted():
    """status and an empty body say so."""
    assert check(status=301, body="", nonce=False).verdict(answer(status="301 Moved", body=""), ended=False)


@given(st.integers(0, len(answer())))
def test_a_valid_answer_is_never_refused_for_being_incomplete(cut):
    """Wherever a segment ends."""
    assert check().verdict(answer()[:cut], ended=False) is not False


@given(st.binary(max_size=200))
def test_noise_is_never_valid(data):
    """No bytes but the right ones."""
    assert check().verdict(data, ended=True) is False


class Server:
    """A listener on a port of its own that does as it is told to every connection."""

    def __init__(self, behave, backlog: int = 64) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self._connections: list[socket.socket] = []
        self._behave = behave
        self.place = Place("n", "127.0.0.1", self._socket.getsockname()[1], NONCE)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        for connection in self._connections:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._connections.append(connection)
            with contextlib.suppress(OSError):  # the probe hung up
                self._behave(connection, len(self._connections))


def serve(connection: socket.socket, number: int) -> None:
    connection.recv(4096)
    for byte in answer():
        connection.send(bytes([byte]))
    connection.close()


def watch(probe, *, rounds: int) -> list[str]:
    """What the probe sees in so many rounds, or until the answer is valid."""
    clock, seen = MonotonicClock(), []
    for _ in range(rounds):
        until_ns = clock.now_ns() + ROUND_NS
        for each in probe.round(lambda interest, until_ns=until_ns: clock.wait(interest, until_ns), None):
            seen.append(each.what)
            if each.what == "valid":
                probe.close()
                return seen
    probe.close()
    return seen


def http(place: Place, **ready) -> NetworkProbe:
    return probe_for(Ready(port=place.port, body="Serverless", nonce=True, **ready), place)


def test_one_byte_at_a_time():
    """A valid answer in 1-byte segments; `byte` comes once, before `valid`."""
    with Server(serve) as server:
        seen = watch(http(server.place), rounds=500)
    assert seen[:3] == ["opened", "tcp", "byte"]
    assert seen[-1] == "valid"
    assert seen.count("byte") == 1


def test_nobody_listens():
    """Every round opens one connection, which fails."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        place = Place("n", "127.0.0.1", sock.getsockname()[1], NONCE)
    assert watch(http(place), rounds=5) == ["opened", "failed"] * 5


def test_accepts_and_never_answers():
    """A listen queue is not an application: `tcp`, never `valid`, and the connections stay within their cap."""
    with Server(lambda *_: None) as server:
        seen = watch(http(server.place), rounds=CAP + 10)
    assert "tcp" in seen
    assert "valid" not in seen
    assert seen.count("failed") >= 10


def test_a_dead_connection_does_not_stick():
    """The first connections are swallowed, later ones are answered: so is the probe, at once."""
    with Server(lambda connection, number: serve(connection, number) if number > 3 else None) as server:
        assert watch(http(server.place), rounds=500)[-1] == "valid"


def test_a_slow_answer_is_waited_for():
    """The oldest connections are kept: a workload that needs 200 ms for each answer is ready after one of them."""

    def slow(connection: socket.socket, number: int) -> None:
        time.sleep(0.2)
        serve(connection, number)

    with Server(slow) as server:
        seen = watch(http(server.place), rounds=400)
    assert seen[-1] == "valid"
    assert seen.count("opened") > CAP > KEEP  # the first one's answer, long after others were recycled


def test_a_stale_answer_never_counts():
    """Right in every way, but with another boot's nonce."""

    def stale(connection: socket.socket, number: int) -> None:
        connection.recv(4096)
        connection.sendall(answer(nonce="fedcba9876543210"))
        connection.close()

    with Server(stale) as server:
        seen = watch(http(server.place), rounds=20)
    assert "byte" in seen
    assert "valid" not in seen


def test_tcp_is_ready_when_it_accepts():
    """For `ready: tcp` the handshake is the answer."""
    with Server(lambda *_: None) as server:
        probe = probe_for(Ready(kind="tcp", port=server.place.port), server.place)
        assert watch(probe, rounds=50)[-1] == "valid"
