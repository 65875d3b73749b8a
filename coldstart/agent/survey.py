"""What `check` asks a node."""

from __future__ import annotations

from collections.abc import Mapping

from coldstart.agent import facts, floors


def survey(settings: Mapping[str, str], cache: str) -> dict[str, str]:
    """Facts as texts."""
    return {**facts.facts(), "short": floors.shortage(settings, cache)}
