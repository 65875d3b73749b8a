"""`--limit`: which hosts a pattern names, as Ansible's patterns do.

Names and groups, with `,` or `:` between them; globs with `*`, `?` and `[...]`; `~` before a regular expression;
`group[0]`, `group[-1]`, `group[1:3]` (both ends included) and `group[2:]` for some hosts of a group, in its order.
`&name` keeps only what is in it, too, `!name` takes away: first all names are added up, then `&`, then `!` applied,
wherever they are written. A name that is alone and looks like an IPv6 address or a host with ranges is not split at its
colons.

Not as in Ansible, on purpose: a name that matches nothing is an error, as it is a typing error (Ansible warns); `@file`
is refused; there is no localhost that no inventory names. The hosts of a group's grandchildren are counted in the order
they are written, where Ansible's order is that of memory addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate

from coldstart import hostrange, yamlfile
from coldstart.errors import UsageError
from coldstart.model import Group

_SUBSCRIPT = re.compile(r"(.+)\[(?:(-?[0-9]{1,9})|([0-9]{1,9})[:-]([0-9]{0,9}))\]")
_PART = re.compile(r"(?:[^\s:\[\]]|\[[^\]]*\])+")


class Patterns:
    """The hosts and groups of one inventory, to be named."""

    def __init__(self, hosts: Iterable[str], groups: Sequence[Group]) -> None:
        self._hosts = dict.fromkeys(hosts)
        self._groups = {group.name: group for group in groups}

    def select(self, pattern: str) -> set[str]:
        """UsageError for a name that matches nothing."""
        words = split(pattern)
        chosen: set[str] = set()
        for word in [word for word in words if word[0] not in "&!"] or ["all"]:
            chosen |= self._matches(word, pattern)
        for word in words:
            if word[0] == "&":
                chosen &= self._matches(word[1:], pattern)
        for word in words:
            if word[0] == "!":
                chosen -= self._matches(word[1:], pattern)
        return chosen

    def _matches(self, word: str, pattern: str) -> set[str]:
        if word.startswith("@"):
            raise UsageError(f"--limit {pattern}: {word!r}: files of names are not read", hint="write the names: a,b")
        return {word} if word in self._hosts else set(self._some(word, pattern))

    def _some(self, word: str, pattern: str) -> list[str]:
        """What a word stands for that is not the name of a host; the subscript counts from the first match."""
        subscript = None if word.startswith("~") else _SUBSCRIPT.fullmatch(word)
        if not subscript:
            return self._all(word, pattern)
        name, index, first, last = subscript.groups()
        found = self._all(name, pattern)
        if index:
            some = found[int(index) :][:1] if -len(found) <= int(index) < len(found) else []
        else:
            some = found[int(first) : int(last) + 1 if last else None]
        if found and not some:
            count = len(found)
            raise UsageError(f"--limit {pattern}: {word!r}: {name} has {count} host(s)", hint="[0] is the first")
        return some

    def _all(self, word: str, pattern: str) -> list[str]:
        matches = _matcher(word, pattern)
        groups = [name for name in self._groups if matches(name)]
        found = [host for name in groups for host in self._inside(name)]
        if not groups or word.startswith("~") or any(sign in word for sign in ".?*["):
            found += [host for host in self._hosts if matches(host)]
        if not groups and not found:
            known = sorted({*self._hosts, *self._groups})
            raise UsageError(f"--limit {pattern}: no host or group {word!r}", hint=yamlfile.suggestion(word, known))
        return found

    def _inside(self, name: str) -> list[str]:
        """A group's hosts: its own, those of its children, then those of theirs."""
        order, met = [name], {name}
        for group in order:
            new = [child for child in self._groups[group].children if child not in met]
            order += new
            met.update(new)
        return list(dict.fromkeys(host for group in order for host in self._groups[group].hosts))


def split(pattern: str) -> list[str]:
    """The words of a pattern."""
    if "," in pattern:
        words = pattern.split(",")
    elif _is_one_host(pattern):
        words = [pattern]
    else:
        words = _PART.findall(pattern)
    return [word.strip() for word in words if word.strip()]


def _is_one_host(pattern: str) -> bool:
    try:
        return bool(hostrange.expand(pattern))
    except hostrange.HostNameError:
        return False


def _matcher(word: str, pattern: str) -> Callable[[str], object]:
    try:
        return re.compile(word[1:] if word.startswith("~") else translate(word)).match
    except re.error as error:
        raise UsageError(f"--limit {pattern}: {word!r} is not a regular expression: {error}") from None
