"""Whether a Docker engine is there, may be used and answers. None is started, and none is waited for long."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping

from coldstart.agent.dockerapi import ApiError, Engine, negotiated, socket_path

PATIENCE_S = 3.0


def look(settings: Mapping[str, str], patience_s: float = PATIENCE_S) -> dict[str, str]:
    """docker: `answers`, `silent`, `denied`, `absent` or `refused` (a setting that cannot be used)."""
    try:
        path = socket_path(settings.get("coldstart_docker_host", ""), os.environ)
    except ValueError as error:
        return {"docker": "refused", "docker_reason": str(error)}
    if not os.path.exists(path):
        return {"docker_socket": path, "docker": "absent"}
    if not os.access(path, os.W_OK):
        return {"docker_socket": path, "docker": "denied"}
    answer: dict[str, str] = {}
    within(patience_s, lambda: _ask(path, patience_s, answer))
    late = {"docker": "silent", "docker_reason": f"no answer within {patience_s:g} s"}
    return {"docker_socket": path, **(dict(answer) or late)}


def within(patience_s: float, act: Callable[[], None]) -> None:
    """Let it act, and leave it behind if it takes longer: what waits for a kernel or a set-uid program that hangs can
    neither be interrupted nor killed."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(patience_s)


def free_bytes(path: str) -> str:
    """'' if nobody can tell."""
    try:
        found = os.statvfs(path)
    except (OSError, ValueError):
        return ""
    return str(found.f_bavail * found.f_frsize)


def _ask(path: str, patience_s: float, answer: dict[str, str]) -> None:
    """Its version first: that is told even if the engine is too busy for the rest."""
    try:
        with Engine(path, timeout_s=patience_s) as asked:
            version = _object(asked.call("GET", "/version"))
            name, api = str(version["Version"]), negotiated(version)
            answer.update(docker="answers", docker_version=name, docker_api=api)
            answer.update(_root(_object(asked.call("GET", "/info"))))
    except (ApiError, ValueError, KeyError) as error:
        if not answer:
            answer.update(docker="silent", docker_reason=_reason(error))


def _object(answer: object) -> dict[str, object]:
    if not isinstance(answer, dict):
        raise ValueError("it does not answer as an engine")
    return answer


def _root(info: Mapping[str, object]) -> dict[str, str]:
    root = info.get("DockerRootDir")
    return {"docker_root": root, "docker_root_free_bytes": free_bytes(root)} if isinstance(root, str) else {}


def _reason(error: Exception) -> str:
    return f"its answer lacks {error}" if isinstance(error, KeyError) else str(error)
