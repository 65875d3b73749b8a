"""Text with a unit <-> integer nanoseconds or bytes: the only conversions there are.

Read exactly (as decimals, never floats) and only with a unit: a bare 200 is refused, because nobody can know what it
means. Written for people, with three significant digits: what is written is not what was measured, so nothing is
computed from it.
"""

from __future__ import annotations

import re
from decimal import Decimal

# Longest first: written units descend, so 1m30s is read and 30s1m is not. `m` is minutes, as in Go and systemd.
_DURATIONS = {"h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_SIZES = {"B": 1}
_SIZES |= {f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", 1)}
_SIZES |= {f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)}
_SAME = {"KB": "kB", "µs": "us", "μs": "us"}  # the micro sign and the Greek letter look alike
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-zµμ]+)\s*")
_BARE = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_MAX = 2**63 - 1  # what a column of the store holds


def parse_duration_ns(text: str) -> int:
    """`200ms`, `1.5 s`, `1m30s` -> ns. ValueError says what is wrong with it."""
    parts = _parts(text, _DURATIONS, "200ms")
    scales = [scale for _, scale in parts]
    if scales != sorted(set(scales), reverse=True):
        raise ValueError(f"{text!r} must go from the longest unit to the shortest, each once: 1m30s")
    return _whole(text, parts, "nanoseconds")


def parse_size_bytes(text: str) -> int:
    """`8MiB`, `1GB`, `512 KiB` -> bytes. ValueError says what is wrong with it."""
    parts = _parts(text, _SIZES, "8MiB")
    if len(parts) > 1:
        raise ValueError(f"{text!r} is more than one size: write 8MiB")
    return _whole(text, parts, "bytes")


def format_duration(ns: float) -> str:
    """`812 us`, `5.23 ms`, `1.02 s`; from a minute on `1m30s`, from an hour on `2h05m`."""
    if ns < 0:
        return f"-{format_duration(-ns)}"
    if ns == 0:
        return "0 s"
    for unit in ("ns", "us", "ms"):
        text = _three_digits(ns / _DURATIONS[unit], whole=unit == "ns")
        if float(text) < 1000:
            return f"{text} {unit}"
    text = _three_digits(ns / _DURATIONS["s"])
    return f"{text} s" if float(text) < 60 else _clock(ns)


def format_bytes(count: float) -> str:
    """`812 B`, `5.23 KiB`, `1.02 GiB`."""
    if count < 0:
        return f"-{format_bytes(-count)}"
    text = _three_digits(count, whole=True)
    if float(text) < 1024:
        return f"{text} B"
    for unit in ("KiB", "MiB", "GiB"):
        text = _three_digits(count / _SIZES[unit])
        if float(text) < 1024:
            return f"{text} {unit}"
    return f"{_three_digits(count / _SIZES['TiB'])} TiB"


def _parts(text: str, units: dict[str, int], example: str) -> list[tuple[Decimal, int]]:
    stripped = text.strip()
    if _BARE.fullmatch(stripped):
        raise ValueError(f"{text!r} needs a unit: {example}")
    parts, position = [], 0
    while match := _PART.match(stripped, position):
        number, unit = match.groups()
        unit = _SAME.get(unit, unit)
        if unit not in units:
            raise ValueError(f"{text!r} has an unknown unit {unit!r}: use one of {', '.join(units)}")
        parts.append((Decimal(number), units[unit]))
        position = match.end()
    if not parts or position != len(stripped):
        raise ValueError(f"{text!r} is not a number with a unit: {example}")
    return parts


def _whole(text: str, parts: list[tuple[Decimal, int]], what: str) -> int:
    if any(len(number.as_tuple().digits) > 20 for number, _ in parts):  # decimals are exact up to 28 digits
        raise ValueError(f"{text!r} has too many digits")
    total = sum(number * scale for number, scale in parts)
    if total > _MAX:
        raise ValueError(f"{text!r} is too large")
    if total != int(total):
        raise ValueError(f"{text!r} is not a whole number of {what}")
    return int(total)


def _three_digits(value: float, *, whole: bool = False) -> str:
    decimals = 0 if whole or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{decimals}f}"


def _clock(ns: float) -> str:
    seconds = round(ns / _DURATIONS["s"])
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}h{minutes % 60:02}m"
