"""The machine the figures are of, in one line, and whether it was idle."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from coldstart.agent.dockerapi import ApiError, Engine, socket_path

IDLE_LOAD = 0.5


@dataclass(frozen=True)
class Machine:
    """load: the 1-minute average before anything was started."""

    cpu: str
    cpus: int
    kernel: str
    python: str
    docker: str
    load: float

    def line(self) -> str:
        parts = (f"{self.cpu}, {self.cpus} CPUs", f"Linux {self.kernel}", f"Python {self.python}", self.docker)
        return "; ".join((*parts, f"load average {self.load:.2f} at the start"))

    def warning(self) -> str:
        """Empty if it was idle."""
        return f"not idle (load average {self.load:.2f}): figures are pessimistic" if self.load > IDLE_LOAD else ""


def machine() -> Machine:
    load = os.getloadavg()[0]
    return Machine(
        _cpu(), os.cpu_count() or 0, platform.release(), platform.python_version(), f"Docker {_docker()}", load
    )


def _cpu() -> str:
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    models = [value.strip() for key, _, value in lines if key.strip() in ("model name", "Model")]
    return models[0] if models else platform.machine()


def _docker() -> str:
    try:
        version: str = Engine(socket_path("", os.environ)).call("GET", "/version")["Version"]
    except (ApiError, ValueError):
        return "none"
    return version
