"""Host keys: who a node is. Verified for every connection, in `known_hosts` files as OpenSSH keeps them.

Each set of files is parsed once for a fleet. A key that is not there is `unknown` if its host has none, and `changed`
if it has others: an unknown one can be accepted (and is then written down), a changed one never. Names are matched as
OpenSSH does since 8.5: the host as it was asked for, not its address.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

import asyncssh
from asyncssh.known_hosts import SSHKnownHosts

from coldstart.errors import NodeError

DEFAULT_PORT = 22
KINDS = (
    *("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    *("rsa-sha2-512", "rsa-sha2-256"),
)
_SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}  # what one key may sign with
UNKNOWN, CHANGED = "host-key-unknown", "host-key-changed"

_Matches = tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]


class HostKeys:
    """What the files say, and what was accepted since. accept_new: take the key of a host that has none yet."""

    def __init__(self, *, accept_new: bool = False) -> None:
        self.accept_new = accept_new
        self.turn = threading.Lock()  # for connections that are made in threads: each asks in its turn
        self._parsed: dict[tuple[Path, ...], SSHKnownHosts] = {}

    def trust(self, files: tuple[Path, ...], alias: str = "", *, accept_new: bool = False) -> Trust:
        """For one connection. files: the first is where a new key is written; alias: the name to look for in place of
        the host's. NodeError if a file cannot be read."""
        if files not in self._parsed:
            self._parsed[files] = _read(files)
        return Trust(self._parsed[files], files[0], alias, accept_new or self.accept_new)


def _read(files: tuple[Path, ...]) -> SSHKnownHosts:
    known = SSHKnownHosts()
    for path in files:
        try:
            known.load(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            continue  # most users have one of the four
        except (OSError, ValueError) as error:
            raise NodeError(f"{path}: {error}", hint="correct that file", kind="ssh-config") from None
    return known


@dataclass(frozen=True)
class Trust:
    """The keys that count for one connection."""

    known: SSHKnownHosts
    file: Path
    alias: str
    accept_new: bool

    def matches(self, host: str, address: str, port: int | None) -> _Matches:
        """(keys, authorities, revoked) of a host, as asyncssh asks for them."""
        if self.alias:
            host, port = self.alias, None
        keys, authorities, revoked, *_ = self.known.match(host, "", port)
        if port is not None:  # where only the bare name has keys, what was revoked for this port is forgotten
            revoked = [*revoked, *self.known.match(f"[{host}]:{port}", "", None)[2]]
        return list(keys), list(authorities), list(revoked)

    def kinds(self, host: str, port: int) -> list[str]:
        """Algorithms to ask a host's key for: those of its known keys first, then the others, so that a host that has
        none of them can be told so. Empty where certificates may come: asyncssh knows their names."""
        keys, authorities, *_ = self.matches(host, "", None if port == DEFAULT_PORT else port)
        known = [name for key in keys for name in _SIGNATURES.get(key.get_algorithm(), (key.get_algorithm(),))]
        return [] if authorities else list(dict.fromkeys([*known, *KINDS]))

    def verdict(self, host: str, port: int, key: asyncssh.SSHKey) -> NodeError | None:
        """On any key, for clients that do not look for `matches` themselves. None: it is trusted."""
        keys, _, revoked = self.matches(host, "", None if port == DEFAULT_PORT else port)
        if key in revoked:
            return changed(self.alias or known_name(host, port), self.file, f"{described(key)} is revoked")
        return None if key in keys else self.refusal(host, port, key)

    def refusal(self, host: str, port: int, key: asyncssh.SSHKey) -> NodeError | None:
        """Why a key that is not among those is refused; None: it was accepted just now."""
        name = self.alias or known_name(host, port)
        keys, _, revoked, *_ = self.known.match(name, "", None)
        if key in revoked:
            return changed(name, self.file, f"{described(key)} is revoked")
        if key in keys:
            return None  # accepted since this connection began, for another one
        if keys:
            return changed(name, self.file, f"now {described(key)}, known {', '.join(map(described, keys))}")
        if not self.accept_new:
            where = f"compare it with `ssh-keygen -lf /etc/ssh/ssh_host_{_kind(key)}_key.pub` on the node"
            hint = f"{where}, then: coldstart check INVENTORY --accept-new-host-keys"
            return NodeError(f"unknown host key of {name}: {described(key)}", hint=hint, kind=UNKNOWN)
        self._accept(name, key)
        return None

    def _accept(self, name: str, key: asyncssh.SSHKey) -> None:
        line = f"{name} {key.export_public_key('openssh').decode().strip()}\n"
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.file.open("a+b") as file:
            begun = file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
            file.write(b"\n" * bool(begun) + line.encode())  # after a last line that somebody left open
        self.known.load(line)


def known_name(host: str, port: int) -> str:
    """As known_hosts has it."""
    return host if port == DEFAULT_PORT else f"[{host}]:{port}"


def changed(name: str, file: Path, detail: str) -> NodeError:
    """Always refused: the node was reinstalled, or is another one."""
    hint = f"if you know why: ssh-keygen -R '{name}' -f {file}, then accept the new one"
    return NodeError(f"the host key of {name} has CHANGED: {detail}", hint=hint, kind=CHANGED)


def described(key: asyncssh.SSHKey) -> str:
    """`ssh-ed25519 SHA256:...`, as ssh-keygen -l prints it."""
    return f"{key.get_algorithm()} {key.get_fingerprint()}"


def key_of(kind: str, base64: str) -> asyncssh.SSHKey:
    """A public key as known_hosts has it, for clients that have classes of their own."""
    return asyncssh.import_public_key(f"{kind} {base64}")


def _kind(key: asyncssh.SSHKey) -> str:
    """As in the name of sshd's file."""
    return next((kind for kind in ("ed25519", "ecdsa", "rsa") if kind in key.get_algorithm()), "*")
