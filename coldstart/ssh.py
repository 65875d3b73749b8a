"""Nodes over SSH: from a node's variables to a link. With `hostkeys`, asyncssh's door.

What OpenSSH users expect: their ~/.ssh/config and /etc/ssh/ssh_config by host, their agent, ProxyJump and ProxyCommand,
known_hosts. What an inventory says goes first, as it would on ssh's command line. Host keys are always verified. A
jump host is one connection for all nodes behind it; what a node's arguments say of keys and known_hosts holds for its
jump host as well.

Every node has one connection with one session (sshd's MaxSessions may be 1), whose command is the agent; its standard
streams are the link. The command passes a login shell that we know nothing of: see `quote`.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.config import SSHClientConfig, SSHConfig

from coldstart import bundle, sshlink
from coldstart.agent import facts
from coldstart.errors import NodeError
from coldstart.hostkeys import HostKeys, Trust, changed
from coldstart.link import Unreachable
from coldstart.model import Node
from coldstart.sshargs import SshArgs

AT_ONCE = 32  # connections being made: more would only make each slower, and trip sshd's MaxStartups
CONNECT_S = 10.0
LOGIN_S = 20.0
JUMP_ALIVE_S = 5.0  # a jump host that fell silent three times is given up; the nodes behind it then try anew
CONFIGS = ("~/.ssh/config", "/etc/ssh/ssh_config")
USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts",)
# aes128-gcm first: several times the speed of the default where the processor has instructions for it. A list, because
# asyncssh expands its patterns anew for every connection.
CIPHERS = (
    *("aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com"),
    *("aes256-ctr", "aes192-ctr", "aes128-ctr"),
)
IDENTITIES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa", "~/.ssh/id_ed25519_sk", "~/.ssh/id_ecdsa_sk")
_SAFE = re.compile(r"[A-Za-z0-9_/.,:=@%+-]+")


@dataclass(frozen=True)
class Destination:
    """Somewhere to log in, as it was asked for: None and empty leave it to the user's ssh configuration."""

    host: str
    port: int | None = None
    user: str = ""
    args: SshArgs = field(default_factory=SshArgs)


def destination(node: Node) -> Destination:
    """What the inventory says of a node."""
    told = node.settings
    args = told.get("ansible_ssh_common_args", SshArgs())
    if key := told.get("ansible_ssh_private_key_file"):
        args = replace(args, identity_files=(key, *args.identity_files))
    port, user = told.get("ansible_port", args.port), told.get("ansible_user", args.user)
    return Destination(told.get("ansible_host", node.name), port, user, args)


@dataclass(frozen=True)
class Route:
    """The way to somewhere, the user's ssh configuration included: all that another client than ours has to know.

    through: the jump host in front of it; proxy_command: its words, filled in. settings: the rest of the configuration,
    by OpenSSH's names."""

    host: str
    port: int
    user: str
    through: Route | None
    proxy_command: tuple[str, ...]
    identity_files: tuple[Path, ...]
    identities_only: bool
    known_hosts: tuple[Path, ...]
    alias: str
    accept_new: bool
    connect_timeout_s: float
    settings: Mapping[str, Any]


def route(to: Destination, chain: tuple[Destination, ...] = ()) -> Route:
    """NodeError if the configuration cannot be read. chain: the hosts that are to be reached through it."""
    config = _config(to)
    jump = _jump_of(to, config)
    command = to.args.proxy_command or tuple(shlex.split(str(config.get("ProxyCommand") or "")))
    return Route(
        host=str(config.get("Hostname") or to.host),
        port=int(str(to.port or config.get("Port") or 22)),
        user=to.user or str(config.get("User") or getpass.getuser()),
        through=route(_before(jump, to.args, (*chain, to)), (*chain, to)) if jump else None,
        proxy_command=() if jump else tuple(_filled(command, to, config)),
        identity_files=tuple(_identity_files(to.args, config)),
        identities_only=to.args.identities_only or bool(config.get("IdentitiesOnly")),
        known_hosts=_known_hosts(to.args, config),
        alias=str(config.get("HostKeyAlias") or ""),
        accept_new=to.args.accept_new,
        connect_timeout_s=float(str(to.args.connect_timeout_s or config.get("ConnectTimeout") or CONNECT_S)),
        settings=config.get_options(False),  # noqa: FBT003 - asyncssh's signature
    )


def quote(word: str) -> str:
    """A word for whatever login shell the user has: sh, bash, zsh, fish, csh and tcsh read the same word out of it.
    Single quotes, but what one of them would read there: a quote or a backslash (fish), `!` (csh). ValueError for
    what cannot be said to all of them."""
    if re.search(r"[\0\r\n]", word):
        raise ValueError(f"{word!r}: a control character cannot be passed through a shell")
    if _SAFE.fullmatch(word):
        return word
    return "'" + re.sub(r"(['\\!])", r"'\\\1'", word) + "'"


class Fleet:
    """Connections to nodes; close it when the last link is closed. accept_new: host keys of hosts that have none."""

    def __init__(self, *, accept_new: bool = False) -> None:
        self._host_keys = HostKeys(accept_new=accept_new)
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._identities: dict[Path, asyncssh.SSHKey | Path] = {}
        self._jumps: dict[Destination, asyncio.Task[asyncssh.SSHClientConnection]] = {}

    async def connect(self, node: Node, code: bundle.Bundle) -> sshlink.SshLink:
        """A link to an agent that has been sent to the node. NodeError says what is in the way; Unreachable if that
        may pass."""
        python = node.settings.get("ansible_python_interpreter", "python3")
        become = ["sudo", "-n", "--"] if node.settings.get("ansible_become") else []
        try:
            command = " ".join(map(quote, [*become, *bundle.command(python, code)]))
            connection = await self._connection(destination(node))
        except NodeError as error:
            raise type(error)(f"{node.name}: {error.message}", hint=error.hint, kind=error.kind) from None
        except ValueError as error:
            raise NodeError(f"{node.name}: {error}", hint="correct it in the inventory", kind="ssh-config") from None
        return await sshlink.start(node.name, connection, command, code.data)

    async def close(self) -> None:
        """Leave the jump hosts."""
        for task in self._jumps.values():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):  # it has been told where it mattered
                (await task).close()
        self._jumps.clear()

    async def _connection(self, to: Destination, chain: tuple[Destination, ...] = ()) -> asyncssh.SSHClientConnection:
        """chain: the hosts that are to be reached through it."""
        config = _config(to)
        jump = _jump_of(to, config)
        tunnel = await self._jump(jump, to.args, (*chain, to)) if jump else None
        files, alias = _known_hosts(to.args, config), str(config.get("HostKeyAlias") or "")
        trust = self._host_keys.trust(files, alias, accept_new=to.args.accept_new)
        client = _Client(trust)
        options = self._options(to, config, tunnel)
        host, port = str(config.get("Hostname") or to.host), int(str(to.port or config.get("Port") or 22))
        if not config.get("HostKeyAlgorithms") and (kinds := trust.kinds(host, port)):
            options["server_host_key_algs"] = kinds
        async with self._turn:
            with _translated(f"{host}:{port}", client):
                return await asyncssh.connect(
                    to.host, to.port or (), client_factory=lambda: client, known_hosts=trust.matches, **options
                )

    def _options(self, to: Destination, config: SSHConfig, tunnel: Any) -> dict[str, Any]:
        identities = _identity_files(to.args, config)
        options: dict[str, Any] = {
            "config": _config_files(to.args),
            "username": to.user or (),
            "client_keys": [key for path in identities if (key := self._identity(path)) is not None],
            "ignore_encrypted": True,  # the agent has it, or nobody: there is nobody to ask for a passphrase
            "connect_timeout": to.args.connect_timeout_s or config.get("ConnectTimeout") or CONNECT_S,
            "login_timeout": LOGIN_S,
            "agent_forwarding": False,
            "x11_forwarding": False,
            "request_pty": False,
            "tunnel": tunnel,
        }
        if to.args.identities_only or config.get("IdentitiesOnly"):
            options["agent_identities"] = [
                public for path in identities if (public := path.with_name(path.name + ".pub")).exists()
            ]
        if to.args.server_alive_interval_s:
            options["keepalive_interval"] = to.args.server_alive_interval_s
            options["keepalive_count_max"] = to.args.server_alive_count_max or 3
        if tunnel is None and to.args.proxy_command:
            options["proxy_command"] = _filled(to.args.proxy_command, to, config)
        if not config.get("Ciphers") and "aes" in facts.cpu_flags():
            options["encryption_algs"] = CIPHERS
        return options

    def _identity(self, path: Path) -> asyncssh.SSHKey | Path | None:
        """A private key, parsed once; its path where a certificate lies beside it; None if only an agent can use it."""
        if path not in self._identities:
            try:
                certified = path.with_name(path.name + "-cert.pub").exists()
                self._identities[path] = path if certified else asyncssh.read_private_key(path)
            except asyncssh.KeyEncryptionError:
                return None
            except asyncssh.KeyImportError as error:
                if "passphrase" in str(error).lower():
                    return None
                raise NodeError(
                    f"{path}: {error}", hint="name a private key of OpenSSH's format", kind="auth"
                ) from None
            except OSError as error:
                hint = "correct ansible_ssh_private_key_file"
                raise NodeError(f"{path}: {error.strerror}", hint=hint, kind="auth") from None
        return self._identities[path]

    async def _jump(self, hops: str, args: SshArgs, chain: tuple[Destination, ...]) -> asyncssh.SSHClientConnection:
        """The connection to the last of `[user@]host[:port],...`, each through the one before; shared, made once."""
        last, to = hops.rpartition(",")[2], _before(hops, args, chain)
        task = self._jumps.get(to)
        if task is None or (task.done() and _is_useless(task)):
            task = self._jumps[to] = asyncio.create_task(self._jump_connection(to, chain))
        try:
            return await asyncio.shield(task)
        except NodeError as error:
            raise type(error)(f"jump host {last}: {error.message}", hint=error.hint, kind=error.kind) from None

    async def _jump_connection(self, to: Destination, chain: tuple[Destination, ...]) -> asyncssh.SSHClientConnection:
        connection = await self._connection(to, chain)
        connection.set_keepalive(JUMP_ALIVE_S, 3)
        return connection


class _Client(asyncssh.SSHClient):
    """Answers for the host key. refusal: why it was refused."""

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self.refusal: NodeError | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.refusal = self.trust.refusal(host, port, key)
        return self.refusal is None


@contextlib.contextmanager
def _translated(where: str, client: _Client) -> Iterator[None]:
    """asyncssh's errors, and the system's, as ours. where: host and port, for messages."""
    try:
        yield
    except (asyncssh.Error, asyncssh.ConfigParseError, OSError) as error:
        raise client.refusal or _reading(error, where, client.trust) from None


def _reading(error: Exception, where: str, trust: Trust) -> NodeError:
    """What one of them means."""
    match error:
        case asyncssh.PermissionDenied():
            hint = "an ssh-agent with the key, or ansible_user and ansible_ssh_private_key_file; no passwords are used"
            return NodeError(f"{where}: {error.reason}", hint=hint, kind="auth")
        case asyncssh.KeyExchangeFailed() if "host key" in error.reason:
            return changed(where, trust.file, "the node offers none of the kinds that are known")
        case asyncssh.HostKeyNotVerifiable():
            return NodeError(f"{where}: {error.reason}", hint="see known_hosts", kind="host-key-changed")
        case asyncssh.ChannelOpenError(code=asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED):
            hint = "its sshd_config needs AllowTcpForwarding yes, or PermitOpen for the node"
            return NodeError(f"{where}: the jump host does not forward: {error.reason}", hint=hint, kind="forwarding")
        case asyncssh.ConfigParseError():
            return NodeError(f"ssh configuration: {error}", hint="correct that line", kind="ssh-config")
        case asyncssh.Error():
            return Unreachable(f"{where}: {error.reason}")
        case TimeoutError():
            return Unreachable(f"{where}: no answer in time")
        case OSError():
            return Unreachable(f"{where}: {os.strerror(error.errno) if error.errno and error.errno > 0 else error}")
        case _:
            return Unreachable(f"{where}: {error}")


def _is_useless(task: asyncio.Task[asyncssh.SSHClientConnection]) -> bool:
    return task.cancelled() or task.exception() is not None or task.result().is_closed()


def _jump_of(to: Destination, config: SSHConfig) -> str:
    """Of the two ways to a host the inventory's goes first, as it would on ssh's command line."""
    jump = to.args.jump or ("" if to.args.proxy_command else str(config.get("ProxyJump") or ""))
    return "" if jump.lower() == "none" else jump


def _before(hops: str, args: SshArgs, chain: tuple[Destination, ...]) -> Destination:
    """The last of `[user@]host[:port],...`, which is reached through the others."""
    others, _, last = hops.rpartition(",")
    to = replace(_hop(last), args=replace(args, jump=others, proxy_command=(), user="", port=None))
    if (to.host, to.port) in [(other.host, other.port) for other in chain]:
        hint = "give that host `ProxyJump none` in your ssh configuration"
        raise NodeError(f"{to.host} is to be reached through itself", hint=hint, kind="ssh-config")
    return to


def _hop(text: str) -> Destination:
    """`[user@]host[:port]`, an IPv6 address in brackets, also as ssh:// URI."""
    match = re.fullmatch(r"(?:ssh://)?(?:([^@]+)@)?(?:\[([^\]]+)\]|([^:@]+))(?::(\d+))?/?", text.strip())
    if match is None:
        raise NodeError(f"{text!r} is not a jump host", hint="[user@]host[:port]", kind="ssh-config")
    user, six, host, port = match.groups()
    return Destination(six or host, int(port) if port else None, user or "")


def _config_files(args: SshArgs) -> list[Path]:
    """The first value that is found counts, as OpenSSH reads them; -F replaces both."""
    if args.config_file:
        return [] if args.config_file == "none" else [Path(args.config_file).expanduser()]
    return [path for path in (Path(name).expanduser() for name in CONFIGS) if path.is_file()]


def _config(to: Destination) -> SSHConfig:
    try:
        no_last, fresh, canonical, final = None, False, False, False
        asked = getpass.getuser(), to.user or (), to.host, to.port or ()
        return SSHClientConfig.load(no_last, _config_files(to.args), fresh, canonical, final, *asked)
    except (asyncssh.ConfigParseError, OSError, UnicodeDecodeError) as error:
        raise NodeError(f"ssh configuration: {error}", hint="correct that line", kind="ssh-config") from None


def _known_hosts(args: SshArgs, config: SSHConfig) -> tuple[Path, ...]:
    """Where host keys are kept; the first is written to."""
    user: Any = args.known_hosts_files or config.get("UserKnownHostsFile") or USER_KNOWN_HOSTS
    everybody: Any = config.get("GlobalKnownHostsFile") or GLOBAL_KNOWN_HOSTS
    return tuple(Path(name).expanduser() for name in (*user, *everybody))


def _identity_files(args: SshArgs, config: SSHConfig) -> list[Path]:
    """In the order in which they are offered. Those that were named must exist, the usual ones may."""
    named = [Path(name).expanduser() for name in args.identity_files]
    found: Any = config.get("IdentityFile") or (() if named else IDENTITIES)
    return named + [path for path in (Path(name).expanduser() for name in found) if path.is_file()]


def _filled(command: tuple[str, ...], to: Destination, config: SSHConfig) -> list[str]:
    """Its tokens, as in ssh_config(5). It is run without a shell."""
    tokens: Mapping[str, str] = {
        "%%": "%",
        "%h": str(config.get("Hostname") or to.host),
        "%n": to.host,
        "%p": str(to.port or config.get("Port") or 22),
        "%r": to.user or str(config.get("User") or getpass.getuser()),
    }
    return [re.sub(r"%[%hnpr]", lambda token: tokens[token[0]], word) for word in command]
