"""A scripted Docker Engine on a unix socket: what the docker runtime asks is kept, what it hears is the script's.

`FakeEngine` answers like an engine whose containers are threads of this process; `Replay` with a recorded conversation;
`Recording` passes everything on to a real engine and keeps both sides (record.py writes them to recorded/).
"""

from __future__ import annotations

import http.client
import http.server
import json
import re
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

VERSION = {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}
IMAGE = {"Id": "sha256:1234", "Size": 4096, "GraphDriver": None}
EXITED = {"StatusCode": 137, "Error": None}


class Exchange(NamedTuple):
    """One request and its answer. path: without the API version's prefix."""

    method: str
    path: str
    body: Any
    status: int
    answer: Any


class App:
    """What a container would run: it answers with its nonce on a port of 127.0.0.1."""

    def __init__(self, port: int, nonce: str) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("X-Coldstart-Nonce", nonce)
                self.end_headers()
                self.wfile.write(b"Serverless Unikernels!\n")

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@dataclass
class FakeEngine:
    """An engine with one image. start_lasts_s: how long a start call takes; ready_after_s: when, in it, the app
    answers; refuse: an error instead; hangs: requests with this in their path are never answered."""

    version: Mapping[str, Any] = field(default_factory=lambda: VERSION)
    start_lasts_s: float = 0.0
    ready_after_s: float = 0.0
    refuse: str = ""
    hangs: str = ""
    exchanges: list[Exchange] = field(default_factory=list)
    prefixes: set[str] = field(default_factory=set)
    removed: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    _app: App | None = None
    _created: dict[str, Any] = field(default_factory=dict)

    def asked(self, start: str = "") -> list[str]:
        """`METHOD path`, in order, of the requests that begin with `start`."""
        lines = [f"{exchange.method} {exchange.path}" for exchange in self.exchanges]
        return [line for line in lines if line.startswith(start)]

    def respond(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if self.hangs and self.hangs in path:
            self.released.wait()
            return 500, {"message": "the test is over"}
        if path.startswith("/containers/create"):
            self._created = body
        if path.endswith("/start"):
            return self._start()
        if method == "DELETE":
            self.remove()
        return self._answer(method, path)

    def wait_answer(self, path: str) -> bytes:
        """Of /wait, whose head is sent at once: when the container is no more."""
        self.removed.wait()
        return json.dumps(EXITED).encode()

    def remove(self) -> None:
        self.removed.set()
        if self._app is not None:
            self._app.close()
            self._app = None

    def run_app(self) -> None:
        ((binding,),) = self._created["HostConfig"]["PortBindings"].values()
        env = dict(entry.split("=", 1) for entry in self._created["Env"])
        self._app = App(int(binding["HostPort"]), env["COLDSTART_NONCE"])

    def _start(self) -> tuple[int, Any]:
        if self.refuse:
            return 500, {"message": self.refuse}
        self.released.wait(self.ready_after_s)
        self.run_app()
        self.released.wait(self.start_lasts_s - self.ready_after_s)
        return 204, None

    def _answer(self, method: str, path: str) -> tuple[int, Any]:
        if method == "GET" and path == "/version":
            return 200, self.version
        if path.startswith("/images/"):
            return 200, IMAGE
        if method == "POST":
            return 201, {"Id": "c0ffee"}
        if re.match(r"/containers/[^?]+/json", path):
            return 200, {"State": {"Pid": 0}}
        return (204, None) if method == "DELETE" else (200, [])


@dataclass
class Replay(FakeEngine):
    """Answers as recorded, in the recorded order; what is asked is compared by the test."""

    recorded: list[Exchange] = field(default_factory=list)

    def respond(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path.startswith("/containers/create"):
            self._created = body
        if path.endswith("/start"):
            self.run_app()
        if method == "DELETE":
            self.remove()
        recorded = self.recorded[len(self.exchanges)] if len(self.exchanges) < len(self.recorded) else None
        return (recorded.status, recorded.answer) if recorded else (500, {"message": "more than was recorded"})


@dataclass
class Recording(FakeEngine):
    """Passes on to a real engine. socket_path: where it listens."""

    socket_path: str = "/var/run/docker.sock"

    def respond(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        prefix = "" if path == "/version" else "/v1.41"
        raw = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection = http.client.HTTPConnection("engine")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.socket_path)
        try:
            connection.request(method, prefix + path, raw, headers)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if method == "DELETE":
            self.removed.set()
        return response.status, json.loads(data) if data.startswith((b"{", b"[")) else data.decode() or None


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True  # the runtime has given up

    def _handle(self) -> None:
        engine = self.server.engine
        prefix, path = re.fullmatch(r"(/v\d+\.\d+)?(/.*)", self.path).groups()  # type: ignore[union-attr]
        engine.prefixes.add(prefix or "")
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        if "/wait?" in path:
            engine.exchanges.append(Exchange(self.command, path, body, 200, None))
            self._wait(engine, path)
            return
        status, answer = engine.respond(self.command, path, body)
        engine.exchanges.append(Exchange(self.command, path, body, status, answer))
        data = b"" if answer is None else answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data if status != 204 else b"")

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815 - the library's names

    def _wait(self, engine: FakeEngine, path: str) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(engine.wait_answer(path))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class _Server(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 16

    def __init__(self, path: str, engine: FakeEngine) -> None:
        super().__init__(path, _Handler)
        self.engine = engine


@contextmanager
def listening(engine: FakeEngine, path: Path) -> Iterator[str]:
    """The engine, listening; what to set coldstart_docker_host to."""
    with _Server(str(path), engine) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            engine.released.set()
            engine.remove()
            server.shutdown()
            thread.join()
