"""Compressed bytes."""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldstart.errors import ImageError
from coldstart.workloads.unpack import unpack

ZSTD = b"\x28\xb5\x2f\xfd" + b"rest"


@given(st.binary(max_size=200), st.sampled_from([bytes, gzip.compress, lzma.compress]))
def test_there_and_back(data: bytes, compress: Any) -> None:
    assert unpack(compress(b"m" + data), "x") == b"m" + data


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
@pytest.mark.parametrize("harm", [lambda data: data[:-9], lambda data: data[:12] + b"\xff" * 20 + data[32:]])
def test_damage_is_named(compress: Any, harm: Any) -> None:
    with pytest.raises(ImageError, match=r"a\.ko: damaged: .*fetch it again"):
        unpack(harm(compress(bytes(range(256)) * 9)), "a.ko")


def test_zstd_without_anything_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ImageError, match=r"a.ko: compressed with zstd, .* 3.14 on \(install the program zstd"):
        unpack(ZSTD, "a.ko")


def test_zstd_by_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ubuntu's modules: its initramfs needs the program, so that it is there."""
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")

    def run(argv: list[str], *, input: bytes, **_: Any) -> Any:
        assert argv[0] == "/bin/zstd"
        damaged = not input.endswith(b"rest")
        return SimpleNamespace(returncode=int(damaged), stdout=b"plain", stderr=b"zstd: bad\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert unpack(ZSTD, "a.ko") == b"plain"
    with pytest.raises(ImageError, match=r"a\.ko: damaged: zstd: bad"):
        unpack(ZSTD[:-1], "a.ko")


def test_zstd_by_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bad(Exception):
        pass

    def decompress(data: bytes) -> bytes:
        if data != ZSTD:
            raise Bad("corrupt")
        return b"plain"

    module = SimpleNamespace(decompress=decompress, ZstdError=Bad)
    monkeypatch.setitem(sys.modules, "compression", SimpleNamespace(zstd=module))
    monkeypatch.setitem(sys.modules, "compression.zstd", module)
    assert unpack(ZSTD, "a.ko") == b"plain"
    with pytest.raises(ImageError, match=r"a\.ko: damaged: corrupt"):
        unpack(ZSTD[:-1], "a.ko")
