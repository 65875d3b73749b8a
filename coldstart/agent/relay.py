"""A registry on this node's loopback, for this node's engine: what it asks for comes from the controller's.

In between lies the cache: what has passed is kept until the engine has all of the image. A push that was cut in the
middle of a layer goes on there, which no engine does by itself, because it forgets what it has once its client is gone.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable

from coldstart.agent import upstream
from coldstart.agent.cache import Cache
from coldstart.agent.upstream import Answer, NotOffered

KEEP_BYTES = 1 << 20  # less is sent again sooner than looked up
_BLOB = re.compile(r"/v2/[a-z0-9._/-]+/blobs/sha256:([0-9a-f]{64})")


class Relay:
    """Serves until it is closed. port: of the controller's registry; give_up: called once, when it cannot go on, so
    that the engine need not find out by trying again and again."""

    def __init__(self, port: int, cache: Cache, give_up: Callable[[], None]) -> None:
        self._server = _Server(port, cache, give_up)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def was_asked(self) -> bool:
        """Whether anybody has found it."""
        return self._server.was_asked

    @property
    def trouble(self) -> OSError | None:
        """Why it could not go on."""
        return self._server.trouble

    def close(self, *, keep: bool) -> None:
        """keep: what has come of layers, because the rest may follow."""
        self._server.shutdown()
        self._server.server_close()
        for sha256 in () if keep else list(self._server.passing):
            self._server.cache.drop(sha256)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, cache: Cache, give_up: Callable[[], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = port
        self.cache = cache
        self.was_asked = False
        self.trouble: OSError | None = None
        self.passing: dict[str, threading.Lock] = {}  # by sha256: an engine that tries again must wait for itself
        self._give_up = give_up
        self._guard = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """An engine that hangs up is no news."""

    def lock(self, sha256: str) -> threading.Lock:
        with self._guard:
            return self.passing.setdefault(sha256, threading.Lock())

    def failed(self, error: OSError) -> None:
        with self._guard:
            first, self.trouble = self.trouble is None, self.trouble or error
        if first:
            self._give_up()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""

    def _answer(self, *, body: bool) -> None:
        self.server.was_asked = True
        self.close_connection = True
        blob = _BLOB.fullmatch(self.path) if body else None
        try:
            if blob:
                self._blob(blob.group(1))
            else:
                self._pass_on(body=body)
        except NotOffered:
            self._head(404, 0)
        except OSError as error:
            if not isinstance(error, (BrokenPipeError, ConnectionResetError)):  # those are the engine's
                self.server.failed(error)

    def _pass_on(self, *, body: bool) -> None:
        with upstream.asked(self.server.upstream, self.path, method="GET" if body else "HEAD") as answer:
            self._head(200, answer.total_bytes, kind=answer.kind)
            for data in answer.blocks() if body else ():
                self.wfile.write(data)

    def _blob(self, sha256: str) -> None:
        start = _start(self.headers.get("Range", ""))
        with self.server.lock(sha256):
            held = self.server.cache.held(sha256)
            with upstream.asked(self.server.upstream, self.path, held) as answer:
                total = answer.total_bytes
                if held > total:
                    self.server.cache.drop(sha256)
                    raise OSError(f"{sha256[:12]}: more of it was here than there is; try again")
                if start and start >= total:
                    self._head(416, 0, f"bytes */{total}")
                    return
                self._head(206 if start else 200, total - start, f"bytes {start}-{total - 1}/{total}" if start else "")
                position = 0
                for data in self._all_of(sha256, answer):
                    if position + len(data) > start:
                        self.wfile.write(data[max(0, start - position) :])
                    position += len(data)

    def _all_of(self, sha256: str, answer: Answer) -> Iterator[bytes]:
        """What is here, then what comes, which is kept as it comes."""
        if answer.total_bytes < KEEP_BYTES:
            yield from answer.blocks()
            return
        with self.server.cache.growing(sha256) as part:
            while data := part.read(upstream.BLOCK_BYTES):
                yield data
            for data in answer.blocks():
                part.write(data)
                yield data

    def _head(self, status: int, length: int, content_range: str = "", kind: str = "application/octet-stream") -> None:
        with contextlib.suppress(BrokenPipeError):
            self.send_response(status)
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(length))
            self.send_header("Connection", "close")
            if content_range:
                self.send_header("Content-Range", content_range)
            self.end_headers()


def _start(asked: str) -> int:
    found = re.fullmatch(r"bytes=(\d+)-\d*", asked.strip())
    return int(found.group(1)) if found else 0
