"""Images by tag, against an engine that says what it is told to. A real one: tests/live/test_sources.py."""

from __future__ import annotations

import json
import re
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from coldstart import archive, ownengine
from coldstart.archive import ContainerImage, File
from coldstart.errors import ImageError

ID = "sha256:" + "1" * 64


def packed(content: bytes = b"x") -> bytes:
    return archive.pack(ContainerImage("example.test/app", "x86_64", ((File("app", content),),), ("/app",)))


class Server(socketserver.ThreadingUnixStreamServer):
    """tags: to ids; saves: id to archive, an empty one breaks off; asked: what it was asked to save."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        super().__init__(path, Handler)
        self.tags = {"app": ID}
        self.saves = {ID: packed()}
        self.asked: list[str] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Those who went away."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def address_string(self) -> str:
        return ""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = re.sub(r"^/v[0-9.]+", "", self.path)
        if path == "/version":
            self.answer(200, {"ApiVersion": "1.45", "MinAPIVersion": "1.24"})
        elif match := re.fullmatch(r"/images/(.*)/json", path):
            id_ = self.server.tags.get(match[1])
            self.answer(200, {"Id": id_, "Architecture": "amd64", "Os": "linux"}) if id_ else self.answer(
                404, {"message": "No such image"}
            )
        elif match := re.fullmatch(r"/images/(.*)/get", path):
            self.server.asked.append(match[1])
            self.save(self.server.saves[match[1]])

    def answer(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def save(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if data else b"100\r\nnot so many")
        self.wfile.write(b"0\r\n\r\n" if data else b"")
        self.close_connection = True


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    path = str(tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Server(path) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache/coldstart/images").glob("*"))


def test_by_its_id_and_once(server: Server, tmp_path: Path) -> None:
    first, again = ownengine.export("app", "x86_64"), ownengine.export("app", "x86_64")
    assert first is not None
    assert first == again
    assert first.tags == ("app",)
    assert server.asked == [ID]
    assert kept(tmp_path) == [f"saved-{ID.replace(':', '-')}.tar"]


def test_a_tag_that_moves(server: Server) -> None:
    first = ownengine.export("app", "x86_64")
    other = "sha256:" + "2" * 64
    server.tags["app"], server.saves[other] = other, packed(b"y")
    second = ownengine.export("app", "x86_64")
    assert first is not None
    assert second is not None
    assert first.config.digest != second.config.digest
    assert server.asked == [ID, other]


def test_none(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No such image, not for this architecture, no engine."""
    assert ownengine.export("gone", "x86_64") is None
    assert ownengine.export("app", "aarch64") is None
    assert server.asked == []
    for host in (f"unix://{tmp_path}/gone.sock", "tcp://127.0.0.1:1", "ssh://gone"):
        monkeypatch.setenv("DOCKER_HOST", host)
        assert ownengine.export("app", "x86_64") is None


def test_breaks_off(server: Server, tmp_path: Path) -> None:
    """Nothing is kept."""
    server.saves[ID] = b""
    with pytest.raises(ImageError, match="app: this machine's engine cannot save it: ") as error:
        ownengine.export("app", "x86_64")
    assert error.value.hint
    assert kept(tmp_path) == []
    server.saves[ID] = packed()
    assert ownengine.export("app", "x86_64") is not None


def test_what_is_damaged_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.saves[ID] = packed()[:-15_000]
    with pytest.raises(ImageError, match="damaged"):
        ownengine.export("app", "x86_64")
    assert kept(tmp_path) == []
