"""The unikernel's network code, compiled for this machine once."""

from __future__ import annotations

import ctypes

import pytest
from unikernel import Machine, compile_library


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return ctypes.CDLL(str(compile_library(tmp_path_factory.mktemp("native"))))


@pytest.fixture(scope="session")
def _machine(library: ctypes.CDLL) -> Machine:
    return Machine(library)


@pytest.fixture
def machine(_machine: Machine) -> Machine:
    """Just started."""
    _machine.start()
    return _machine
