"""A key below `hosts:` as the names it stands for: `pi[01:20]`, `box-[a:c].lan`, `web:2222`, `[2001:db8::1]:22`.

As Ansible expands them: bounds included, an optional step (`[0:10:2]`), the zeros of the begin kept, several ranges in
one name. Refused where Ansible finds no host at all or other names than anybody means: `[3:1]`, `[ab:cd]`, `[1:3]:22`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from itertools import product
from string import ascii_letters

MAX_HOSTS = 10_000  # of one name: more is a typing error
_RANGE = re.compile(r"\[([^\[\]]*)\]")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_LABELS = re.compile(
    r"\w(?:[\w-]*\w)?(?<!_)(?:\.\w(?:[\w-]*\w)?(?<!_))*", re.ASCII
)  # before a port Ansible is stricter
_BRACKETED = re.compile(r"\[(.+)\]:([0-9]+)")
_WITH_PORT = re.compile(r"((?:[^:\[\]]|\[[^\]]*\])*):([0-9]+)")
_BRACKETS = 'a port after a range is written as pi[1:3]:22, an address with one as "[2001:db8::1]:22"'


class HostNameError(ValueError):
    """A name that is none. hint: the next step."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def expand(pattern: str) -> tuple[list[str], int | None]:
    """The names, and the port that was written behind them. HostNameError if it is not that."""
    if is_name(pattern):
        return [pattern], None
    inner, port = _split(pattern)
    names = [inner] if is_address(inner) else list(_expanded(inner))
    for name in names:
        if not is_name(name) or (port is not None and not (is_address(name) or _LABELS.fullmatch(name))):
            raise HostNameError(f"{pattern!r} is not a host name", "letters, digits, _ . - and ranges like [01:20]")
    return names, port


def is_name(text: str) -> bool:
    """Whether this is the name of a host: like that of a group, or an IPv6 address."""
    return bool(_NAME.fullmatch(text)) or is_address(text)


def is_address(text: str) -> bool:
    """Whether this is an IPv6 address."""
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text  # Ansible knows no zones


def _split(pattern: str) -> tuple[str, int | None]:
    """The name and its port. Ansible takes `[1:3]:22` for host 1 with port 3, and a colon it does not understand for a
    part of the name: neither is meant."""
    if is_address(pattern.removeprefix("[").removesuffix("]")):
        if pattern.startswith("["):
            raise HostNameError(f"{pattern!r}: brackets are for ranges", "write the address without them")
        return pattern, None
    if bracketed := _BRACKETED.fullmatch(pattern):
        inner, port = bracketed.groups()
        if not is_name(inner):
            raise HostNameError(f"{pattern!r}: is this a range or an address?", _BRACKETS)
        return inner, _port(pattern, port)
    if found := _WITH_PORT.fullmatch(pattern):
        return found[1], _port(pattern, found[2])
    return pattern, None


def _port(pattern: str, digits: str) -> int:
    if len(digits) > 5 or not 1 <= int(digits) <= 65535:
        raise HostNameError(f"{pattern!r}: {digits:.20} is not a port", "1..65535")
    return int(digits)


def _expanded(pattern: str) -> Iterator[str]:
    pieces = _RANGE.split(pattern)
    if any("[" in text or "]" in text for text in pieces[::2]):
        raise HostNameError(f"{pattern!r}: a bracket without its other", "a range is written [01:20]")
    ranges = [_range(pattern, text) for text in pieces[1::2]]
    count = 1
    for values in ranges:
        count *= len(values)
        if count > MAX_HOSTS:
            raise HostNameError(f"{pattern!r} are more than {MAX_HOSTS:,} hosts", "is a bound mistyped?")
    for chosen in product(*ranges):
        filled = [text for pair in zip(pieces[::2], (*chosen, ""), strict=True) for text in pair]
        yield "".join(filled)


def _range(pattern: str, text: str) -> Sequence[str]:
    """What one `[begin:end:step]` stands for."""
    begin, end, step = _bounds(pattern, text)
    if begin.isdigit() and end.isdigit():
        width = len(begin) if begin[0] == "0" and len(begin) > 1 else 0
        if width and width != len(end):
            raise _broken(pattern, text, f"write both ends with {width} digits")
        numbers = range(int(begin), int(end) + 1, step)
        values: Sequence[str] = [str(number).zfill(width) for number in numbers[: MAX_HOSTS + 1]]
    elif begin in ascii_letters and end in ascii_letters and len(begin) == len(end) == 1:
        values = ascii_letters[ascii_letters.index(begin) : ascii_letters.index(end) + 1 : step]
    else:
        raise _broken(pattern, text, "two numbers or two letters, as in [01:20] or [a:f]")
    if not values:
        raise _broken(pattern, text, "it begins after its end")
    return values


def _bounds(pattern: str, text: str) -> tuple[str, str, int]:
    parts = text.split(":")
    if len(parts) not in (2, 3) or not parts[1]:
        raise _broken(pattern, text, "write begin and end: [01:20], or with a step: [0:10:2]")
    step = parts[2] if len(parts) == 3 else "1"
    if not re.fullmatch("[0-9]{1,9}", step) or int(step) < 1:
        raise _broken(pattern, text, "the step is a whole number from 1 on")
    for part in parts[:2]:
        if not re.fullmatch("[0-9]{0,18}|[A-Za-z]", part):
            raise _broken(pattern, text, "two numbers or two letters, as in [01:20] or [a:f]")
    return parts[0] or "0", parts[1], int(step)


def _broken(pattern: str, text: str, hint: str) -> HostNameError:
    return HostNameError(f"{pattern!r}: [{text}] is not a range of hosts", hint)
