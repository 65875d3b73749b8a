"""What `survey` reads: limits of control groups, and an engine that may answer anything, or nothing."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coldstart.agent import controlgroup, survey, surveydocker

VERSION = {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}
PATIENCE_S = 0.3
Answer = Callable[[socket.socket, bytes], None]


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def limits(tmp_path: Path, own: str, files: dict[str, str]) -> dict[str, str]:
    write(tmp_path, {**{f"sys/{name}": text for name, text in files.items()}, "own": own})
    return controlgroup.limits(str(tmp_path / "sys"), str(tmp_path / "own"))


def test_the_tightest_group_counts(tmp_path: Path) -> None:
    """Version 2: a limit of a group above ours is felt as well as our own."""
    files = {
        "cgroup.controllers": "cpu memory\n",
        "a.slice/cpu.max": "50000 100000\n",
        "a.slice/cpu.stat": "nr_throttled 9\n",
        "a.slice/memory.max": "max\n",
        "a.slice/b.scope/cpu.max": "200000 100000\n",
        "a.slice/b.scope/cpu.stat": "nr_throttled 0\n",
        "a.slice/b.scope/memory.max": "268435456\n",
    }
    found = limits(tmp_path, "0::/a.slice/b.scope\n", files)
    assert found == {"cpu_quota": "0.5", "cpu_throttled_periods": "9", "memory_limit_bytes": "268435456"}


def test_version_1_has_a_hierarchy_for_each_controller(tmp_path: Path) -> None:
    """Each with a path of its own."""
    files = {
        "cpu/x/cpu.cfs_quota_us": "150000\n",
        "cpu/x/cpu.cfs_period_us": "100000\n",
        "memory/y/memory.limit_in_bytes": "536870912\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    found = limits(tmp_path, "2:memory:/y\n1:cpu,cpuacct:/x\n0::/\n", files)
    assert found == {"cpu_quota": "1.5", "cpu_throttled_periods": "", "memory_limit_bytes": "536870912"}


def test_groups_that_cannot_be_seen_have_no_limits(tmp_path: Path) -> None:
    """In a container the path of the host's groups leads nowhere."""
    found = limits(tmp_path, "0::/docker/0123\n", {})
    assert set(found.values()) == {""}


@contextmanager
def engine(tmp_path: Path, answer: Answer) -> Iterator[dict[str, str]]:
    """Settings of a node whose engine answers each connection's requests so."""
    path = str(tmp_path / "docker.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=_serve, args=(listener, answer), daemon=True)
        thread.start()
        yield {"coldstart_docker_host": f"unix://{path}"}
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _serve(listener: socket.socket, answer: Answer) -> None:
    try:
        while True:
            connection = listener.accept()[0]
            with connection:
                while request := connection.recv(4096):
                    answer(connection, request)
    except OSError:
        return


def said(body: object) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data


def by_path(info: object) -> Answer:
    return lambda connection, request: connection.sendall(said(VERSION if b"/version" in request else info))


def test_an_engine_that_answers(tmp_path: Path) -> None:
    """With the room that is left where it keeps images."""
    with engine(tmp_path, by_path({"DockerRootDir": str(tmp_path)})) as settings:
        found = surveydocker.look(settings, PATIENCE_S)
    assert (found["docker"], found["docker_version"], found["docker_api"]) == ("answers", "20.10.24", "1.41")
    assert found["docker_root"] == str(tmp_path)
    assert int(found["docker_root_free_bytes"]) > 0


@pytest.mark.parametrize("info", [{}, [], None, {"DockerRootDir": "/nowhere/at/all"}])
def test_an_engine_that_does_not_tell_its_folder_answers_all_the_same(tmp_path: Path, info: object) -> None:
    """It may be older, rootless, or no Docker."""
    with engine(tmp_path, by_path(info)) as settings:
        found = surveydocker.look(settings, PATIENCE_S)
    assert found["docker"] == "answers"
    assert not found.get("docker_root_free_bytes")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([], "as an engine"),
        (None, "as an engine"),
        ({}, "lacks 'Version'"),
        ({**VERSION, "MinAPIVersion": "1.99"}, "speaks API"),
    ],
)
def test_whatever_else_listens_there_is_silent(tmp_path: Path, body: object, reason: str) -> None:
    """An answer of the wrong shape is no error of the survey."""
    with engine(tmp_path, lambda connection, _: connection.sendall(said(body))) as settings:
        found = surveydocker.look(settings, PATIENCE_S)
    assert found["docker"] == "silent"
    assert reason in found["docker_reason"]


def _drip(connection: socket.socket, _: bytes) -> None:
    """Never silent for as long as a socket's timeout, never done."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    for _ in range(500):
        connection.sendall(b" ")
        time.sleep(PATIENCE_S / 10)


def _hang(connection: socket.socket, _: bytes) -> None:
    connection.recv(4096)  # until it is given up


@pytest.mark.parametrize("answer", [_drip, _hang])
def test_an_engine_that_hangs_is_not_waited_for(tmp_path: Path, answer: Answer) -> None:
    """Neither one that says nothing, nor one that says a byte now and then."""
    path = str(tmp_path / "docker.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        threading.Thread(target=_serve, args=(listener, answer), daemon=True).start()
        began_s = time.monotonic()
        found = surveydocker.look({"coldstart_docker_host": f"unix://{path}"}, PATIENCE_S)
        assert time.monotonic() - began_s < 10 * PATIENCE_S
        listener.shutdown(socket.SHUT_RDWR)
    assert found["docker"] == "silent"
    assert found["docker_reason"]


def test_what_cannot_be_killed_is_left_behind() -> None:
    """A set-uid program does not take our signals."""
    released = threading.Event()
    began_s = time.monotonic()
    surveydocker.within(PATIENCE_S, lambda: released.wait(60) and None)
    assert time.monotonic() - began_s < 10 * PATIENCE_S
    released.set()


def test_the_clock_is_only_asked() -> None:
    """struct timex begins as it is read here; errors are told of a clock that somebody keeps."""
    assert struct.calcsize(survey._TIMEX) <= survey._TIMEX_BYTES
    found = survey._clock()
    assert found.get("clock", "unsynchronised") in ("synchronised", "unsynchronised")
    assert ("clock_maxerror_us" in found) == (found.get("clock") == "synchronised")


def test_the_users_own_group_is_among_the_groups() -> None:
    """getgroups(2) need not name it."""
    import grp

    try:
        own = grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        own = str(os.getegid())
    assert own in survey._user()["groups"].split(",")
