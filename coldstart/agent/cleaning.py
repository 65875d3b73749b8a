"""Removing what a run has left, in every runtime this node may have: by the measurer, or after it by the watchdog.

Nothing is remembered: each runtime finds what bears the run's mark, so that whoever is still alive can clean up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from coldstart.agent import runtimes
from coldstart.agent.runtimes import Context, StopFailed

SLOW = ("docker",)  # last: an engine that hangs must not keep bare processes alive


def clean(context: Context, run: str, known: Mapping[str, Any]) -> dict[str, list[str]]:
    """`removed` and `failed`, in words. run: whose ('': any dead run's); known: runtimes that are in use already."""
    return _everywhere(context, known, lambda runtime: runtime.clean(run))


def clean_images(context: Context, known: Mapping[str, Any]) -> dict[str, list[str]]:
    """Likewise, the pushed images that a runtime keeps elsewhere than in our cache."""
    return _everywhere(context, known, lambda runtime: getattr(runtime, "clean_images", list)())


def _everywhere(context: Context, known: Mapping[str, Any], do: Callable[[Any], list[str]]) -> dict[str, list[str]]:
    removed: list[str] = []
    failed: list[str] = []
    for name in sorted(runtimes.names(), key=SLOW.__contains__):
        try:
            runtime = _runtime(name, context, known)
        except ValueError:
            continue  # this node's settings rule it out (`prepare` says so): nothing can have been made with it
        try:
            removed += do(runtime)
        except (StopFailed, OSError, ValueError) as error:
            failed.append(f"{name}: {error}")
    return {"removed": removed, "failed": failed}


def _runtime(name: str, context: Context, known: Mapping[str, Any]) -> Any:
    module = runtimes.load(name)
    return known.get(name) or module.Runtime(module.Options(), context)
