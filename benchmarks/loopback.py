"""Nodes on loopback, and who logs in to them: one sshd of our own under many addresses; each client in its own process.

The server has its own host key and key pair; it listens on the device `lo` only. 127.0.1.1 is the first node.

A client is a way to run `echo ok` once on each of n nodes and to collect what it prints. `measure` does that in a fresh
process (`python -m benchmarks.loopback CLIENT COUNT DELAY SITE`) and takes what it cost from a mark after the imports
on, until every connection is closed: CPU in seconds (user and system, of the process and all it started), wall time in
seconds, and the peak of its resident memory in bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import getpass
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MOST = 250  # nodes
START_S = 10.0
PATIENCE_S = 120  # of the peers that have a limit: hundreds of logins at once take a small machine a while
AT_ONCE = 32  # as coldstart.ssh
FORKS = 50
KEX = "curve25519-sha256"  # for the ssh client: what the libraries agree on with this server
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


@dataclass(frozen=True)
class Site:
    """Where the nodes are and what it takes to log in."""

    folder: str
    port: int
    user: str = field(default_factory=getpass.getuser)

    @property
    def key(self) -> str:
        return f"{self.folder}/id"

    @property
    def known_hosts(self) -> str:
        return f"{self.folder}/known_hosts"

    def ssh_options(self) -> list[str]:
        """For OpenSSH's client: no configuration of the user's, no shared connection, host keys verified."""
        told = f"""IdentitiesOnly=yes IdentityAgent=none BatchMode=yes LogLevel=ERROR StrictHostKeyChecking=yes
            UserKnownHostsFile={self.known_hosts} GlobalKnownHostsFile=/dev/null
            ControlMaster=no ControlPath=none KexAlgorithms={KEX}"""
        return ["-F", "none", *(f"-o{option}" for option in told.split())]


def command(delay_s: int) -> str:
    """What every node is told. delay_s: how long it takes to answer."""
    return f"sleep {delay_s}; echo ok" if delay_s else "echo ok"


def addresses(count: int) -> list[str]:
    """Of the first nodes."""
    if not 0 < count <= MOST:
        raise ValueError(f"{count} nodes: 1 to {MOST} can be had")
    return [f"127.0.1.{index}" for index in range(1, count + 1)]


def known_hosts(public_key: str, port: int) -> str:
    """A line for each node. public_key: the text of the host key's .pub file."""
    kind, data, *_ = public_key.split()
    return "".join(f"[{address}]:{port} {kind} {data}\n" for address in addresses(MOST))


@contextmanager
def served() -> Iterator[Site]:
    """The nodes are up. FileNotFoundError, ChildProcessError: there is no sshd, or it does not start."""
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise FileNotFoundError("sshd is not installed (apt-get install openssh-server)")
    with tempfile.TemporaryDirectory(prefix="coldstart-bench-") as folder:
        site = Site(folder, _free_port())
        for name in ("id", "host_key"):
            path = f"{folder}/{name}"
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
        Path(site.known_hosts).write_text(known_hosts(Path(f"{folder}/host_key.pub").read_text(), site.port))
        Path(f"{folder}/sshd_config").write_text("\n".join(_config(site)) + "\n")
        with _sshd([program, "-D", "-e", "-f", f"{folder}/sshd_config"], site):
            yield site


def _config(site: Site) -> list[str]:
    return [
        f"ListenAddress 0.0.0.0:{site.port} rdomain lo",  # on Linux: of this device, nobody else can reach it
        f"HostKey {site.folder}/host_key",
        f"AuthorizedKeysFile {site.folder}/id.pub",
        f"AllowUsers {site.user}",
        "PermitRootLogin prohibit-password",
        "AuthenticationMethods publickey",
        "UsePAM no",
        f"SetEnv HOME={site.folder}",  # the user's shell start-up files are not what is measured
        "PermitUserRC no",
        "StrictModes no",
        "PidFile none",
        "MaxStartups 1000:100:1000",
        "PerSourceMaxStartups none",
        "LogLevel ERROR",
    ]


@contextmanager
def _sshd(argv: list[str], site: Site) -> Iterator[None]:
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it separates privileges
    log = Path(site.folder, "sshd.log")
    with log.open("wb") as file:
        # A session of its own: Ctrl-C is for us, we then end it in order.
        server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    try:
        _await_listening(server, site.port, log)
        yield
    finally:
        left = _children(server)  # sessions of clients that were killed
        server.terminate()
        server.wait()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _children(server: subprocess.Popen[bytes]) -> list[int]:
    found = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    return list(map(int, found.read_text().split())) if server.poll() is None else []


def _await_listening(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline_s = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection((addresses(1)[0], port), 1):
            return
        time.sleep(0.01)
    raise ChildProcessError(f"sshd does not listen: {log.read_text().strip()[-200:] or 'it says nothing'}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


# --- the clients: each imports what it needs and hands back what is to be measured ---


@dataclass(frozen=True)
class Work:
    """act: what is measured; gives what every node printed. startup_s: CPU that it spends on starting up, to be taken
    off, where there is no mark to be had in its process."""

    act: Callable[[], Sequence[str]]
    startup_s: float = 0.0


def _ours(site: Site, names: list[str], asked: str) -> Work:
    """Raw commands over coldstart's connections, all open until the last has answered."""
    from coldstart import ssh

    async def echo(fleet: ssh.Fleet, name: str) -> tuple[Any, str]:
        connection = await fleet._connection(ssh.destination(_node(site, name)))
        done = await connection.run(asked, check=True)
        return connection, str(done.stdout)

    async def all_of_them() -> list[str]:
        fleet = ssh.Fleet()
        found = await asyncio.gather(*(echo(fleet, name) for name in names))
        for connection, _ in found:
            connection.close()
        await asyncio.gather(*(connection.wait_closed() for connection, _ in found))
        return [said for _, said in found]

    return Work(lambda: asyncio.run(all_of_them()))


def _agents(site: Site, names: list[str], _: str) -> Work:
    """What a sweep begins with: the agent is sent to every node, and answers a ping. It takes no lock for that."""
    from coldstart import bundle, ssh
    from coldstart.link import Conversation

    async def greet(fleet: ssh.Fleet, name: str, code: bundle.Bundle) -> Conversation:
        talk = Conversation(name, await fleet.connect(_node(site, name), code))
        await talk.attend(talk._pinged())
        return talk

    async def all_of_them() -> list[str]:
        fleet, code = ssh.Fleet(), bundle.build()
        talks = await asyncio.gather(*(greet(fleet, name, code) for name in names))
        await asyncio.gather(*(talk.end() for talk in talks))
        return ["ok" for talk in talks if talk.clock.at(time.monotonic_ns())]

    return Work(lambda: asyncio.run(all_of_them()))


def _node(site: Site, name: str) -> Any:
    from coldstart import model, sshargs

    settings = {
        "ansible_port": site.port,
        "ansible_user": site.user,
        "ansible_ssh_private_key_file": site.key,
        "ansible_ssh_common_args": sshargs.parse(
            f"-F none -oIdentitiesOnly=yes -oUserKnownHostsFile={site.known_hosts}"
        ),
        "ansible_python_interpreter": sys.executable,
    }
    return model.Node(name, settings=settings)


def _fabric(site: Site, names: list[str], asked: str) -> Work:
    """A ThreadingGroup as documented, but that unknown host keys are rejected: by default it takes any."""
    import paramiko

    def trust(connection: Any) -> None:
        connection.client.load_host_keys(site.known_hosts)
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())

    return _grouped(site, names, asked, lambda: ({"key_filename": site.key}, trust))


def _fabric_tuned(site: Site, names: list[str], asked: str) -> Work:
    """The same by somebody who knows what is dear: the private key and known_hosts are parsed once for all."""
    import paramiko

    def parsed() -> tuple[dict[str, Any], Callable[[Any], None]]:
        known = paramiko.HostKeys(site.known_hosts)

        def trust(connection: Any) -> None:
            name = f"[{connection.host}]:{site.port}"
            for kind, key in (known.lookup(name) or {}).items():
                connection.client.get_host_keys().add(name, kind, key)
            connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())

        return {"pkey": paramiko.Ed25519Key.from_private_key_file(site.key)}, trust

    return _grouped(site, names, asked, parsed)


def _grouped(site: Site, names: list[str], asked: str, prepare: Callable[[], Any]) -> Work:
    import fabric

    def all_of_them() -> list[str]:
        key, trust = prepare()
        limits = dict.fromkeys(("timeout", "banner_timeout", "auth_timeout"), PATIENCE_S)
        how = {**key, "look_for_keys": False, "allow_agent": False, **limits}
        config = fabric.Config(overrides={"load_ssh_configs": False})
        made = [fabric.Connection(name, site.user, site.port, config=config, connect_kwargs=how) for name in names]
        for connection in made:
            trust(connection)
        with fabric.ThreadingGroup.from_connections(made) as group:
            return [done.stdout for done in group.run(asked, hide=True, in_stream=False).values()]

    return Work(all_of_them)


def _parallel_ssh(site: Site, names: list[str], asked: str) -> Work:
    """Its default client (libssh2). It has no way to verify host keys."""
    from pssh.clients import ParallelSSHClient

    def all_of_them() -> list[str]:
        how = {"allow_agent": False, "identity_auth": False, "timeout": PATIENCE_S}
        client = ParallelSSHClient(names, user=site.user, port=site.port, pkey=site.key, **how)
        output = client.run_command(asked)
        client.join(output)
        said = ["\n".join(found.stdout) for found in output]
        del client, output
        gc.collect()  # its connections are closed with it
        return said

    return Work(all_of_them)


def _ansible(site: Site, names: list[str], asked: str) -> Work:
    """An ad hoc `raw` with many forks. Its start-up is what `--list-hosts` costs."""
    inventory = Path(site.folder, "inventory")
    inventory.write_text("\n".join(["[nodes]", *names]) + "\n")
    settings = Path(site.folder, "ansible.cfg")  # none of the user's
    settings.touch()
    how = ["-e", f"ansible_port={site.port} ansible_user={site.user} ansible_ssh_private_key_file={site.key}"]
    argv = [ansible(), "nodes", "-i", str(inventory), *how]
    environ = {
        **os.environ,
        "ANSIBLE_CONFIG": str(settings),
        "ANSIBLE_HOME": f"{site.folder}/ansible",
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_SSH_ARGS": " ".join(site.ssh_options()),
        "ANSIBLE_TIMEOUT": str(PATIENCE_S),
        "LC_ALL": "C.UTF-8",
    }
    _said([*argv, "--list-hosts"], environ)  # bytecode and page cache
    before_s = _cpu_s()
    _said([*argv, "--list-hosts"], environ)
    startup_s = _cpu_s() - before_s
    raw = [*argv, "-f", str(FORKS), "-m", "raw", "-a", asked]
    return Work(lambda: re.findall("^ok$", _said(raw, environ), re.MULTILINE), startup_s)


def _openssh(site: Site, names: list[str], asked: str) -> Work:
    """A process for each node, by xargs."""
    login = ["-i", site.key, "-p", str(site.port), "-l", site.user]
    argv = ["xargs", f"-P{AT_ONCE}", "-I{}", "ssh", *site.ssh_options(), *login, "{}", asked]
    return Work(lambda: _said(argv, dict(os.environ), "\n".join(names) + "\n").split())


def _said(argv: list[str], environ: dict[str, str], told: str | None = None) -> str:
    stdin = {"stdin": subprocess.DEVNULL} if told is None else {"input": told}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, **stdin)
    if done.returncode:
        raise ChildProcessError((done.stderr or done.stdout).strip()[-300:] or f"{argv[0]}: exit {done.returncode}")
    return done.stdout


def ansible() -> str:
    """The command: beside this Python, or the system's."""
    found = shutil.which("ansible", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if found is None:
        raise FileNotFoundError("ansible is not installed")
    return found


CLIENTS: dict[str, Callable[[Site, list[str], str], Work]] = {
    "ours": _ours,
    "agents": _agents,
    "fabric": _fabric,
    "fabric-tuned": _fabric_tuned,
    "parallel-ssh": _parallel_ssh,
    "ansible": _ansible,
    "openssh": _openssh,
}


@dataclass(frozen=True)
class Cost:
    """Of one fan-out. rss_bytes: the peak, of the client's process alone."""

    cpu_s: float
    wall_s: float
    rss_bytes: int


def measure(client: str, count: int, delay_s: int, site: Site) -> Cost:
    """ChildProcessError if not every node has answered."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)  # what a client forks and leaves behind is counted, too
    work = CLIENTS[client](site, addresses(count), command(delay_s))
    gc.collect()
    before_s, began_s = _cpu_s(), time.perf_counter()
    said = work.act()
    wall_s = time.perf_counter() - began_s
    _reap()
    spent_s = _cpu_s() - before_s - work.startup_s
    if [word.strip() for word in said] != ["ok"] * count:
        raise ChildProcessError(f"{client}: {len(said)} of {count} nodes answered: {said[:3]}")
    return Cost(spent_s, wall_s, _peak_bytes())


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _peak_bytes() -> int:
    """Not getrusage's: that one begins with the peak of whoever forked us."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def main() -> int:
    client, count, delay_s, site = sys.argv[1:]
    os.environ.pop("SSH_AUTH_SOCK", None)  # the key is named; nobody's agent is asked
    found = measure(client, int(count), int(delay_s), Site(**json.loads(site)))
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
