"""Files that can be made again: whole or not at all, once, and not for ever."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import IO

import pytest

from coldstart import caches
from coldstart.errors import ImageError


def test_whole_or_not_at_all(tmp_path: Path) -> None:
    """What `make` raises comes through, and nothing is left."""

    def fails(file: IO[bytes]) -> None:
        file.write(b"half")
        raise EOFError("damaged")

    with pytest.raises(EOFError):
        caches.fetch(tmp_path / "new/file", fails)
    assert list((tmp_path / "new").iterdir()) == []

    def writes(file: IO[bytes]) -> None:
        file.write(b"whole")

    path = caches.fetch(tmp_path / "new/file", writes)
    assert path.read_bytes() == b"whole"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert caches.fetch(path, fails) == path


def test_made_once(tmp_path: Path) -> None:
    """By whoever asks first; the others wait for it."""
    made: list[int] = []

    def make(file: IO[bytes]) -> None:
        made.append(file.write(b"x"))

    threads = [threading.Thread(target=caches.fetch, args=(tmp_path / "file", make)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_using_does_not_make_it_another_file(tmp_path: Path) -> None:
    """Its time of modification tells others whether it is the same."""
    path = tmp_path / "file"
    path.touch()
    os.utime(path, (1, 1))
    caches.fetch(path, lambda file: None)
    assert (path.stat().st_mtime, path.stat().st_atime > time.time() - 60) == (1, True)


def test_what_nobody_used_is_removed(tmp_path: Path) -> None:
    """When something new is made, and only files."""
    old, used, folder = tmp_path / "old", tmp_path / "used", tmp_path / "folder"
    for path in (old, used):
        path.touch()
    folder.mkdir()
    long_ago = time.time() - caches.UNUSED_S - 60
    for path in (old, folder):
        os.utime(path, (long_ago, time.time()))
    caches.fetch(tmp_path / "new", lambda file: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "new", "used"]


def test_what_a_killed_maker_left_is_removed(tmp_path: Path) -> None:
    """Some GB that nobody will ever ask for; not what is being made now."""
    half, fresh = tmp_path / ".half.x1", tmp_path / ".fresh.x2"
    for path in (half, fresh):
        path.touch()
    os.utime(half, (time.time(), time.time() - caches.HALF_S - 60))
    caches.fetch(tmp_path / "new", lambda file: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".fresh.x2", "new"]


def test_no_room(tmp_path: Path) -> None:
    def fails(file: IO[bytes]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ImageError, match="No space left on device") as error:
        caches.fetch(tmp_path / "file", fails)
    assert "XDG_CACHE_HOME" in error.value.hint


def test_a_relative_folder_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert caches.folder("x") == Path.home() / ".cache/coldstart/x"
