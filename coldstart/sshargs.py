"""What `ansible_ssh_common_args` and `ansible_ssh_extra_args` ask of ssh, as data: text in, SshArgs out.

There is no ssh program here to hand the words to: each option is understood, known to change nothing for us, or refused
by its name. Split into words as Ansible does; of an option given twice the first counts, as in ssh, files add up.
Host keys are always verified: what would switch that off is refused.

`~` and `%h` stay as they were written: whoever opens the connection knows the host.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any


class SshArgsError(ValueError):
    """An option that cannot be honoured. hint: the next step."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class SshArgs:
    """What was asked for; the defaults say: nothing.

    jump: `[user@]host[:port]`, several with commas. proxy_command: its words; no shell reads them, `%h`, `%p`, `%r`,
    `%n` and `%%` are to be filled in. config_file: `none` means that no file is read. accept_new: the key of a host
    that is not known yet may be stored; a changed key is refused all the same. server_alive_interval_s: 0: never.
    """

    jump: str = ""
    proxy_command: tuple[str, ...] = ()
    known_hosts_files: tuple[str, ...] = ()
    identity_files: tuple[str, ...] = ()
    identities_only: bool = False
    user: str = ""
    port: int | None = None
    connect_timeout_s: float | None = None
    config_file: str = ""
    server_alive_interval_s: float | None = None
    server_alive_count_max: int | None = None
    accept_new: bool = False


def parse(text: str) -> SshArgs:
    """Read the options. SshArgsError names the one that cannot be honoured."""
    given: dict[str, Any] = {}
    for option, value in _options(_words(text)):
        _take(given, option, value)
    if given.get("jump") and given.get("proxy_command"):
        raise SshArgsError("ProxyJump and ProxyCommand exclude each other", "keep one")
    return replace(SshArgs(), **{field.name: given[field.name] for field in fields(SshArgs) if field.name in given})


def _take(given: dict[str, Any], option: str, value: str) -> None:
    name, read = _MEANT[option]
    try:
        known = read(value)
    except SshArgsError:
        raise
    except ValueError as error:
        raise SshArgsError(f"{option}: {error}") from None
    if name == "identity_files":
        given[name] = given.get(name, ()) + known
    elif name:
        given.setdefault(name, known)


# -- words and options


def _words(text: str) -> list[str]:
    if not text.isprintable():
        raise SshArgsError("holds a control character or a line break", "write it on one line")
    try:
        return shlex.split(text)
    except ValueError as error:
        raise SshArgsError(f"{error} in {text!r:.80}", "close the quotes") from None


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    """(option by its long name, value), from left to right; `-qp22`, `-p 22` and `-oPort=22` alike."""
    rest = iter(words)
    for word in rest:
        if len(word) < 2 or word[0] != "-":
            raise SshArgsError(f"{word!r} is not an option of ssh", "only options belong here")
        for index, letter in enumerate(word[1:], 2):
            if letter in _QUIET:
                continue
            yield _long(letter, word[index:] or next(rest, None))
            break


def _long(letter: str, value: str | None) -> tuple[str, str]:
    if letter != "o" and letter not in _SHORT:
        raise _not_read(f"-{letter}")
    if not value:
        raise SshArgsError(f"-{letter} needs a value")
    if letter != "o":
        return _SHORT[letter], value
    key, written = re.fullmatch(r"\s*(\w*)\s*[=\s]?\s*(.*?)\s*", value).groups()  # type: ignore[union-attr]
    option = _BY_LOWER.get(key.lower())
    if option is None:
        raise _not_read(key or value)
    if not written:
        raise SshArgsError(f"{option} needs a value")
    return option, written


def _not_read(name: str) -> SshArgsError:
    return SshArgsError(
        f"{name!r} is not read here", f"known: {', '.join([*sorted(_MEANT), *map('-{}'.format, _SHORT)])}"
    )


# -- values


def _plain(value: str) -> str:
    """As ssh reads a word: quotes around it are not part of it."""
    word = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    if not word or word.startswith("-"):
        raise ValueError(f"{word!r} would be taken for an option" if word else "is empty")
    return word


def _name(value: str) -> str:
    word = _plain(value)
    if re.search(r"[\s'\"`$;&|<>(){}\\=]", word):
        raise ValueError(f"{word!r} is not a name")
    return word


def _hosts(value: str) -> str:
    if value.lower() == "none":
        return ""
    for hop in value.split(","):
        user, at, host = hop.rpartition("@")
        for part in (user, host) if at else (host,):
            _name(part)
    return value


def _command(value: str) -> tuple[str, ...]:
    if value.lower() == "none":
        return ()
    words = tuple(shlex.split(value))
    if re.search(r"[`$;&|<>()\n]", value):
        raise SshArgsError("ProxyCommand: no shell reads it here", "name a program and its arguments, or a script")
    if bad := re.search(r"%(?![hprn%]|$)|%$", re.sub("%%", "", value)):
        raise ValueError(f"{value[bad.start() : bad.start() + 2]!r}: only %h, %p, %r, %n and %% are filled in")
    return words[1:] if words[:1] == ("exec",) else words


def _files(value: str) -> tuple[str, ...]:
    return tuple(_plain(word) for word in shlex.split(value))


def _known_hosts(value: str) -> tuple[str, ...]:
    files = _files(value)
    if any(file in ("/dev/null", "none") for file in files):
        raise SshArgsError(f"UserKnownHostsFile={value}: host keys are always verified", _ACCEPT_NEW)
    return files


def _checking(value: str) -> bool:
    word = value.lower()
    if word in ("no", "off", "false"):
        raise SshArgsError(f"StrictHostKeyChecking={value}: host keys are always verified", _ACCEPT_NEW)
    return _one_of("yes", "true", "ask", "accept-new")(word) == "accept-new"


def _one_of(*words: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value.lower() not in words:
            raise ValueError(f"{value!r} is not honoured here, only {' or '.join(words)}")
        return value.lower()

    return read


def _boolean(value: str) -> bool:
    return _one_of("yes", "true", "no", "false")(value) in ("yes", "true")


def _number(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", value) or not low <= int(value) <= high:
            raise ValueError(f"{value!r} is not a number from {low} to {high}")
        return int(value)

    return read


def _seconds(value: str) -> float | None:
    """`10`, `1m30s`, as in ssh_config; `none`."""
    if value.lower() == "none":
        return None
    if not re.fullmatch("(?:[0-9]{1,6}[smhSMH]?)+", value):
        raise ValueError(f"{value!r} is not a time in seconds")
    parts = re.findall("([0-9]+)([smh]?)", value.lower())
    return float(sum(int(count) * {"": 1, "s": 1, "m": 60, "h": 3600}[unit] for count, unit in parts))


def _anything(value: str) -> str:
    return value


_ACCEPT_NEW = "leave it out; --accept-new-host-keys stores the keys of new hosts"
_NO = ("", _one_of("no", "false"))
_ANY = ("", _anything)  # of a program ssh that is not run here

# The field of SshArgs, none if it changes nothing for us, and how the value is read.
_MEANT: dict[str, tuple[str, Callable[[str], Any]]] = {
    "BatchMode": ("", _one_of("yes", "true")),
    "Compression": _ANY,
    "ConnectTimeout": ("connect_timeout_s", _seconds),
    "ConnectionAttempts": _ANY,
    "ControlMaster": _ANY,
    "ControlPath": _ANY,
    "ControlPersist": _ANY,
    "ConfigFile": ("config_file", _plain),
    "ForwardAgent": _NO,
    "ForwardX11": _NO,
    "GSSAPIAuthentication": _NO,
    "IdentitiesOnly": ("identities_only", _boolean),
    "IdentityFile": ("identity_files", lambda value: (_plain(value),)),
    "KbdInteractiveAuthentication": _NO,
    "LogLevel": _ANY,
    "PasswordAuthentication": _NO,
    "Port": ("port", _number(1, 65535)),
    "PreferredAuthentications": ("", _one_of("publickey")),
    "ProxyCommand": ("proxy_command", _command),
    "ProxyJump": ("jump", _hosts),
    "RequestTTY": _NO,
    "ServerAliveCountMax": ("server_alive_count_max", _number(0, 10**6)),
    "ServerAliveInterval": ("server_alive_interval_s", _seconds),
    "StrictHostKeyChecking": ("accept_new", _checking),
    "TCPKeepAlive": _ANY,
    "User": ("user", _name),
    "UserKnownHostsFile": ("known_hosts_files", _known_hosts),
}
_SHORT = {"F": "ConfigFile", "J": "ProxyJump", "S": "ControlPath", "i": "IdentityFile", "l": "User", "p": "Port"}
_QUIET = "CTaqvx"  # compression, no terminal, no agent, quiet, verbose, no X11
_BY_LOWER = {key.lower(): key for key in _MEANT if key != "ConfigFile"}
