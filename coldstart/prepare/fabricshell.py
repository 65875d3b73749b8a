"""Commands on nodes over Fabric, with the way, the keys and the trust that a sweep has. Fabric's door, and paramiko's.

Fabric would take any host key and paramiko reads known_hosts in its own way: neither is asked. The way to a node comes
from `ssh.route`, whether its key is to be trusted is for `hostkeys` to say, and nobody is asked for a password.
"""

from __future__ import annotations

import io
import logging
import os
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from coldstart import ssh
from coldstart.errors import NodeError, UsageError
from coldstart.hostkeys import HostKeys, Trust, key_of
from coldstart.link import Unreachable
from coldstart.model import Node
from coldstart.prepare.shell import LOOK_S, Ran, Shell

try:
    import fabric
    import paramiko
    from invoke.exceptions import CommandTimedOut, ThreadException
except ImportError as error:
    raise UsageError(
        f"`prepare` works over Fabric, and there is none here ({error.name})", hint="pip install 'coldstart[prepare]'"
    ) from None

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # what it has to say is in its exceptions

LOGIN_S = 20.0
ALIVE_S = 15
# What paramiko cannot honour, by OpenSSH's names, with the values that ask for nothing.
_REFUSED: dict[str, tuple[object, ...]] = {
    "AddressFamily": (None, "any"),
    "BindAddress": (None,),
    "CertificateFile": (None, []),
    "IdentityAgent": (None, "SSH_AUTH_SOCK", "$SSH_AUTH_SOCK", "${SSH_AUTH_SOCK}"),
    "PKCS11Provider": (None, "none"),
    "PubkeyAuthentication": (None, True),
    "RemoteCommand": (None,),
}
# paramiko's name for each list of algorithms.
_ALGORITHMS = {"Ciphers": "ciphers", "MACs": "digests", "KexAlgorithms": "kex", "HostKeyAlgorithms": "key_types"}


def connect(node: Node, host_keys: HostKeys) -> Shell:
    """NodeError says what is in the way; whoever has the shell closes it."""
    try:
        return _RemoteShell(_connection(ssh.route(ssh.destination(node)), host_keys))
    except NodeError as error:
        raise type(error)(f"{node.name}: {error.message}", hint=error.hint, kind=error.kind) from None


class _RemoteShell:
    def __init__(self, connection: fabric.Connection) -> None:
        self._connection = connection

    def run(self, argv: Sequence[str], *, limit_s: float = LOOK_S) -> Ran:
        words, nothing = " ".join(argv), io.StringIO("")  # to be read; there is no terminal either
        command = " ".join(map(ssh.quote, argv))
        try:
            done = self._connection.run(
                command, hide=True, warn=True, timeout=limit_s, encoding="utf-8", in_stream=nothing
            )
        except CommandTimedOut:
            raise NodeError(f"no end of `{words}` within {limit_s:g} s", hint="look there what it does") from None
        except (paramiko.SSHException, OSError, EOFError, ThreadException) as error:
            raise Unreachable(f"link lost: {_said(error)}") from None
        if done.exited < 0:  # no exit status came
            raise Unreachable(f"link lost during `{words}`, or it was killed")
        return Ran(done.exited, done.stdout, done.stderr)

    def close(self) -> None:
        _close(self._connection)


def _close(connection: fabric.Connection) -> None:
    """Half open or not, with its jump hosts; a ProxyCommand ends with it."""
    while connection:
        connection.client.close()
        connection = connection.gateway


def _connection(way: ssh.Route, host_keys: HostKeys) -> fabric.Connection:
    """Open, through its jump hosts, each of them verified as well."""
    _check(way)
    with host_keys.turn:
        trust = host_keys.trust(way.known_hosts, way.alias, accept_new=way.accept_new)
    options: dict[str, Any] = {
        "key_filename": _key_files(way),
        "look_for_keys": False,
        "allow_agent": bool(os.environ.get("SSH_AUTH_SOCK")) and not way.identities_only,
        "banner_timeout": LOGIN_S,
        "auth_timeout": LOGIN_S,
        "channel_timeout": LOGIN_S,
        "transport_factory": _transports(way, trust),
    }
    if way.identities_only and (held := _held_by_agent(way)):
        options["pkey"] = held
    if way.proxy_command:
        options["sock"] = paramiko.ProxyCommand(shlex.join(way.proxy_command))
    made = fabric.Connection(
        way.host,
        user=way.user,
        port=way.port,
        config=fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig()),  # neither its files nor ssh's are read
        gateway=_gateway(way.through, host_keys) if way.through else False,
        connect_timeout=max(1, int(way.connect_timeout_s)),
        forward_agent=False,
        connect_kwargs=options,
    )
    made.client.set_missing_host_key_policy(_Policy(way, trust, host_keys.turn))
    try:
        with _translated(f"{way.host}:{way.port}"):
            made.open()
    except NodeError:
        _close(made)
        raise
    made.transport.set_keepalive(ALIVE_S)
    return made


def _gateway(way: ssh.Route, host_keys: HostKeys) -> fabric.Connection:
    try:
        return _connection(way, host_keys)
    except NodeError as error:
        where = f"jump host {way.user}@{way.host}"
        raise type(error)(f"{where}: {error.message}", hint=error.hint, kind=error.kind) from None


class _Policy(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # untyped
    """Every key is asked about here: paramiko was given no known_hosts of its own."""

    def __init__(self, way: ssh.Route, trust: Trust, turn: threading.Lock) -> None:
        self._way = way
        self._trust = trust
        self._turn = turn

    def missing_host_key(self, client: object, hostname: str, key: paramiko.PKey) -> None:
        offered = key_of(key.get_name(), key.get_base64())
        with self._turn:
            refusal = self._trust.verdict(self._way.host, self._way.port, offered)
        if refusal:
            raise refusal


def _transports(way: ssh.Route, trust: Trust) -> Callable[..., paramiko.Transport]:
    """Makes transports that ask for the kinds of key that are known of the host, and use the user's algorithms."""

    def make(sock: Any, **options: Any) -> paramiko.Transport:
        transport = paramiko.Transport(sock, **options)
        security = transport.get_security_options()
        kinds = [kind for kind in trust.kinds(way.host, way.port) if kind in security.key_types]
        security.key_types = kinds or security.key_types
        try:
            for name, own in _ALGORITHMS.items():
                if wanted := way.settings.get(name):
                    setattr(security, own, _chosen(name, str(wanted), getattr(security, own)))
        except NodeError:
            sock.close()
            raise
        return transport

    return make


def _chosen(name: str, wanted: str, possible: Sequence[str]) -> list[str]:
    found = [word for word in wanted.split(",") if word in possible]
    if wanted[0] in "+-^" or not found:
        hint = f"for `prepare`, name some of {','.join(possible)}"
        raise NodeError(f"ssh configuration: {name} {wanted} cannot be honoured", hint=hint, kind="ssh-config")
    return found


def _check(way: ssh.Route) -> None:
    """NodeError for what would be ignored otherwise."""
    for name, nothing in _REFUSED.items():
        value = way.settings.get(name)
        if value not in nothing:
            hint = "sweep and check can; leave it out for this host, or prepare the node by hand"
            raise NodeError(f"ssh configuration: {name} {value} is not honoured by `prepare`", hint=hint,
                            kind="ssh-config")  # fmt: skip


def _key_files(way: ssh.Route) -> list[str]:
    """A certificate before the key that it lies beside."""
    for path in way.identity_files:
        if not path.is_file():
            hint = "correct ansible_ssh_private_key_file"
            raise NodeError(f"{path}: No such file or directory", hint=hint, kind="auth")
    both = [(path.with_name(f"{path.name}-cert.pub"), path) for path in way.identity_files]
    return [str(path) for pair in both for path in pair if path.exists()]


def _held_by_agent(way: ssh.Route) -> paramiko.PKey | None:
    """IdentitiesOnly: the first key of the agent's that one of the files is the public half of."""
    halves = [path.with_name(f"{path.name}.pub") for path in way.identity_files]
    blobs = {text.split()[1] for path in halves if path.is_file() and len((text := path.read_text()).split()) > 1}
    return next((key for key in paramiko.Agent().get_keys() if key.get_base64() in blobs), None)


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """paramiko's errors, and the system's, as ours."""
    try:
        yield
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise _reading(error, where) from None


def _reading(error: Exception, where: str) -> NodeError:
    match error:
        case paramiko.AuthenticationException() | paramiko.PasswordRequiredException():
            hint = "an ssh-agent with the key, or ansible_user and ansible_ssh_private_key_file; no passwords are used"
            return NodeError(f"{where}: Permission denied: {_said(error)}", hint=hint, kind="auth")
        case paramiko.ChannelException(code=1):
            hint = "its sshd_config needs AllowTcpForwarding yes, or PermitOpen for the node"
            return NodeError(f"{where}: the jump host does not forward", hint=hint, kind="forwarding")
        case paramiko.ssh_exception.NoValidConnectionsError():
            return Unreachable(f"{where}: {_said(list(error.errors.values())[-1])}")
        case paramiko.ChannelException():
            return Unreachable(f"{where}: the jump host cannot connect: {error.text}")
        case TimeoutError():
            return Unreachable(f"{where}: no answer in time")
        case _:
            return Unreachable(f"{where}: {_said(error)}")


def _said(error: Exception) -> str:
    """In one line."""
    if isinstance(error, ThreadException):
        return "; ".join(str(inner.value or inner.type.__name__) for inner in error.exceptions)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
