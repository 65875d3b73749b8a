"""The Docker Engine API over its unix socket, with the standard library.

The version is negotiated: the newest that the engine and this file both know (20.10 speaks at most 1.41, 29 refuses
anything below 1.44). One connection is kept open, so that a timed call does not pay for connecting.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import urllib.parse
from collections.abc import Mapping
from typing import Any, BinaryIO

NEWEST = (1, 47)
OLDEST = (1, 40)  # nothing older has all the calls used here
TIMEOUT_S = 60.0
SYSTEM_SOCKET = "/var/run/docker.sock"


class ApiError(Exception):
    """The engine refused (status >= 400), or could not be asked (status 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Engine:
    """One connection to one engine. Not for two threads at once. podman: it is podman, which speaks the same, and for
    some things only a language of its own."""

    def __init__(
        self, socket_path: str, version: str = "", timeout_s: float = TIMEOUT_S, *, podman: bool = False
    ) -> None:
        self.podman = podman
        self._path = socket_path
        self._prefix = f"/v{version}" if version else ""
        self._timeout_s = timeout_s
        self._connection: _UnixConnection | None = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str | int) -> Any:
        """The decoded JSON answer, None for an empty one; ApiError for a refusal."""
        raw = None if body is None else json.dumps(body).encode()
        return _decoded(self._request(method, path, raw, "application/json", query))

    def upload(self, path: str, file: BinaryIO, **query: str | int) -> str:
        """POST a tar; the engine's answer as text (it may be a stream of JSON objects)."""
        return self._request("POST", path, file, "application/x-tar", query).decode("utf-8", "replace")

    def text(self, path: str, method: str = "GET", **query: str | int) -> bytes:
        """The answer, whatever it is."""
        return self._request(method, path, None, "application/json", query)

    def abort(self) -> None:
        """End the call that another thread is waiting for; it then sees an ApiError."""
        connection = self._connection
        if connection is not None and connection.sock is not None:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is over by itself

    def wait_socket(self, container: str) -> socket.socket:
        """A socket that becomes readable when the container is no longer running; its headers are already read."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._timeout_s)
            sock.connect(self._path)
            target = f"{self._prefix}/containers/{container}/wait?condition=not-running"
            sock.sendall(f"POST {target} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n".encode())
            _skip_head(sock)
        except OSError as error:
            sock.close()
            raise ApiError(0, str(error)) from None
        return sock

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _request(self, method: str, path: str, body: Any, kind: str, query: Mapping[str, Any]) -> bytes:
        target = self._prefix + path + ("?" + urllib.parse.urlencode(query) if query else "")
        try:
            connection = self._connected()
            connection.request(method, target, body, {"Content-Type": kind} if body is not None else {})
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ApiError(0, f"{type(error).__name__}: {error}") from None
        if response.status >= 400:
            raise ApiError(response.status, _message(data) or response.reason)
        return data

    def _connected(self) -> _UnixConnection:
        if self._connection is None:
            self._connection = _UnixConnection(self._path, self._timeout_s)
        return self._connection


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("docker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def socket_path(docker_host: str, environ: Mapping[str, str]) -> str:
    """Where the engine listens: the node's setting, DOCKER_HOST, the system's socket, a rootless one; the first that
    exists, or the system's. ValueError for what is not a unix socket."""
    told = docker_host or environ.get("DOCKER_HOST", "")
    if told:
        if not told.startswith("unix://"):
            raise ValueError(f"{told}: only unix:// sockets are spoken to")
        return told[len("unix://") :]
    rootless = os.path.join(environ.get("XDG_RUNTIME_DIR", "/nonexistent"), "docker.sock")
    return next((path for path in (SYSTEM_SOCKET, rootless) if os.path.exists(path)), SYSTEM_SOCKET)


def negotiated(version: Mapping[str, Any]) -> str:
    """The API version to speak, of the answer to /version. ValueError if the two sides have none in common."""
    newest = min(NEWEST, _numbers(version.get("ApiVersion", "")))
    oldest = _numbers(version.get("MinAPIVersion", "") or "1.12")
    if newest < max(oldest, OLDEST):
        spoken = f"{version.get('MinAPIVersion')} to {version.get('ApiVersion')}"
        raise ValueError(f"the engine speaks API {spoken}, this version of coldstart 1.{OLDEST[1]} to 1.{NEWEST[1]}")
    return f"{newest[0]}.{newest[1]}"


def is_podman(version: Mapping[str, Any]) -> bool:
    """Of the answer to /version."""
    return any("podman" in str(part.get("Name", "")).lower() for part in version.get("Components") or ())


def negotiating(path: str, timeout_s: float) -> Engine:
    """A connection that speaks a version both sides know. ApiError or ValueError if there is none."""
    with Engine(path, timeout_s=timeout_s / 4) as asked:
        version = negotiated(asked.call("GET", "/version"))
    return Engine(path, version, timeout_s)


def _numbers(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data) if data.strip() else None
    except ValueError:
        raise ApiError(0, f"the engine's answer is not JSON: {data[:60]!r}") from None


def _message(data: bytes) -> str:
    try:
        answer: dict[str, Any] = json.loads(data)
        return str(answer.get("message", ""))
    except (ValueError, AttributeError):
        return data[:200].decode("utf-8", "replace")


def _skip_head(sock: socket.socket) -> None:
    """Read the response's head and not a byte more: the body's arrival is what the socket is watched for."""
    while True:
        seen = sock.recv(4096, socket.MSG_PEEK)
        end = seen.find(b"\r\n\r\n")
        if end >= 0:
            head = sock.recv(end + 4)
            if b" 200 " not in head.split(b"\r\n")[0]:
                raise OSError(head.split(b"\r\n")[0].decode("latin-1"))
            return
        if not seen or len(seen) == 4096:
            raise OSError("the engine closed the connection")
