"""Bare nodes made ready: real nodes over a real sshd, where something really is missing and apt really installs it."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import COMMAND, Coldstart, poll
from lab import aptsource
from lab.fixture import MakeLab
from lab.node import Node
from lab.shapes import Shape
from sshd import Sshd, keygen
from test_faults import check_one_line

pytestmark = pytest.mark.live

PYTHON = ("python3", "python3-minimal", "libpython3-stdlib")
PI = {"user": "pi", "sudo": "free"}


@pytest.fixture(scope="module")
def python_packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What a node without Python lacks here: some 60 kB; its interpreter itself stays where it is."""
    folder = tmp_path_factory.mktemp("packages")
    if not shutil.which("apt-get"):
        pytest.skip("no apt-get here")
    done = subprocess.run(["apt-get", "download", *PYTHON], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no packages to be had: {done.stderr.strip().splitlines()[-1]}")
    return list(folder.glob("*.deb"))


class Bare:
    """A node, and the verb for it."""

    def __init__(self, coldstart: Coldstart, make_lab: MakeLab, shape: Shape, **settings: str) -> None:
        self.coldstart = coldstart
        self.lab = make_lab(shape)
        self.node: Node = self.lab.nodes[shape.name]
        lines = "".join(f"          {name}: {value}\n" for name, value in settings.items())
        text = self.lab.inventory.read_text().replace(f"        {shape.name}:\n", f"        {shape.name}:\n{lines}")
        self.inventory = coldstart.write("bare.yaml", text)
        aptsource.settle(self.node)

    def prepare(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.coldstart("prepare", self.inventory, *arguments)

    def states(self, *arguments: str, code: int = 0) -> dict[str, str]:
        """By task."""
        done = self.prepare("--format", "json", *arguments)
        assert done.returncode == code, done.stderr
        (entry,) = json.loads(done.stdout)["nodes"]
        return {task["task"]: task["state"] for task in entry["tasks"]}

    def findings(self) -> set[str]:
        (entry,) = json.loads(self.coldstart("check", self.inventory, "--format", "json").stdout)["nodes"]
        return {finding["kind"] for finding in entry["findings"]}

    def remembered(self) -> tuple[str, ...]:
        """All that a task could change here."""
        return tuple(self.node.path(name).read_text() for name in ("/var/lib/dpkg/status", "/etc/group", "/etc/passwd"))


def test_from_bare_to_ready(coldstart: Coldstart, make_lab: MakeLab, python_packages: list[Path]):
    """No Python at first: `check` says so; a plan changes nothing; without a network it fails and says why; then apt
    installs it, `check` is content, and there is nothing left to do."""
    bare = Bare(coldstart, make_lab, Shape("bare", **PI), ansible_become="true")
    aptsource.forget(bare.node, "python3", "python3", "python3-minimal", "libpython3-stdlib")
    assert "no-python" in bare.findings()

    before = bare.remembered()
    done = bare.prepare("python", "groups")
    assert (done.returncode, "--yes" in done.stderr) == (0, True)
    assert "  python         would install python3 (apt-get install -y --no-install-recommends" in done.stdout
    assert bare.remembered() == before

    aptsource.take(bare.node, "deb http://deb.debian.org/debian bookworm main")
    failed = bare.prepare("python", "--yes")
    check_one_line(failed, 4, "bare: python: ", "no network: ", "resolving 'deb.debian.org'", "is it online")

    aptsource.offer(bare.node, python_packages)
    expected = {
        "python": "changed",
        "docker": "ok",
        "qemu": "ok",
        "groups": "changed",
        "memory-cgroup": "not-applicable",
    }
    assert bare.states(*expected, "--yes") == expected
    assert bare.node.run(["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", "python3"]).stdout == "ii "
    assert bare.findings().isdisjoint({"no-python", "docker-permission", "docker-engine", "qemu"})
    before = bare.remembered()
    again = bare.prepare(*expected, "--yes")
    assert (again.returncode, again.stdout.splitlines()[-1]) == (0, "1 nodes: nothing to do")
    assert bare.remembered() == before


def test_sudo_that_asks_for_a_password(coldstart: Coldstart, make_lab: MakeLab):
    """Said before anything is done, with the way out; nobody is asked for it."""
    bare = Bare(coldstart, make_lab, Shape("locked", user="pi", sudo="password"), ansible_become="true")
    before = bare.remembered()
    check_one_line(bare.prepare("groups", "--yes"), 4, "locked: sudo asks for a password", "NOPASSWD")
    assert bare.remembered() == before


def test_not_root(coldstart: Coldstart, make_lab: MakeLab):
    """The plan is shown, and why it cannot be carried out."""
    bare = Bare(coldstart, make_lab, Shape("plain", **PI))
    assert bare.states("groups", code=4) == {"groups": "would-change"}
    check_one_line(bare.prepare("groups", "--yes"), 4, "installing is root's, and the login is pi", "ansible_become")


@pytest.mark.parametrize(("answer", "state"), [("y", "ok"), ("n", "would-change")])
def test_asked_on_a_terminal(coldstart: Coldstart, make_lab: MakeLab, answer: str, state: str):
    """For each node, after its plan."""
    bare = Bare(coldstart, make_lab, Shape("asked", **PI), ansible_become="true")
    shown = on_a_terminal([COMMAND, "prepare", bare.inventory, "groups"], coldstart.environ, "Do this?", answer)
    assert "would put pi into group docker (usermod -aG docker pi)" in shown
    assert bare.states("groups") == {"groups": state}


def on_a_terminal(argv: list[str], environ: dict[str, str], question: str, answer: str) -> str:
    """All that was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(argv[0], argv, environ)
    shown, deadline = "", time.monotonic() + 60
    while time.monotonic() < deadline:
        select.select([terminal], [], [], 1)
        try:
            shown += os.read(terminal, 4096).decode()
        except OSError:  # it has ended
            break
        if question in shown and answer:
            os.write(terminal, f"{answer}\n".encode())
            answer = ""
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
    return shown.replace("\r", "")


@pytest.fixture
def slow(coldstart: Coldstart, make_lab: MakeLab) -> Bare:
    """A node whose podman takes a while to install."""
    bare = Bare(coldstart, make_lab, Shape("slow", **PI), ansible_become="true")
    postinst = "touch /run/began; for i in 1 2 3 4 5 6; do sleep 0.5; echo working; done; touch /run/ended"
    aptsource.forget(bare.node, "podman", "podman")  # this machine may have the real one
    aptsource.offer(bare.node, [aptsource.build(coldstart.folder, "podman", "echo podman", postinst)])
    return bare


def under_way(bare: Bare) -> subprocess.Popen[str]:
    """In the midst of the installation."""
    argv = [COMMAND, "prepare", bare.inventory, "podman", "groups", "--yes"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(argv, env=bare.coldstart.environ, stdout=pipe, stderr=pipe, text=True)
    poll(bare.node.path("/run/began").exists)
    return process


def status(bare: Bare) -> str:
    return bare.node.run(["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", "podman"], check=False).stdout


def test_interrupted(slow: Bare):
    """Ctrl-C lets the step end that has begun; the next ones are not begun; later it goes on where it was."""
    process = under_way(slow)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert slow.node.path("/run/ended").exists()
    assert status(slow) == "ii "
    assert "interrupted before this was done" in out
    assert slow.states("podman", "groups", "--yes") == {"podman": "ok", "groups": "changed"}


def test_interrupted_twice(slow: Bare):
    """It leaves at once; what apt had begun is finished by the next run at the latest."""
    process = under_way(slow)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    begin = time.monotonic()
    process.communicate(timeout=30)
    assert (process.returncode, time.monotonic() - begin < 2) == (130, True)
    poll(lambda: not slow.node.named("apt-get") and not slow.node.named("dpkg"))
    assert slow.states("podman", "--yes")["podman"] in ("ok", "changed")
    assert status(slow) == "ii "


def test_a_link_that_breaks(slow: Bare):
    """That node's failure, in one line; the next run ends what was begun."""
    process = under_way(slow)
    slow.node.kill_sshd_sessions()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, "slow: link lost" in err) == (4, True), err
    poll(lambda: not slow.node.named("apt-get") and not slow.node.named("dpkg"))
    assert slow.states("podman", "--yes")["podman"] in ("ok", "changed")
    assert status(slow) == "ii "


def test_a_full_disk(slow: Bare):
    """Said in one line; with room again it goes on."""
    room = int(slow.node.run(["df", "--output=avail", "-k", "/"]).stdout.split()[-1])
    slow.node.run(["fallocate", "-l", f"{room - 64}k", "/filler"])
    check_one_line(slow.prepare("podman", "--yes"), 4, "slow: podman: ", "disk full: ", "No space left", "df -h")
    slow.node.path("/filler").unlink()
    assert slow.states("podman", "--yes") == {"podman": "changed"}


# -- the way there: as for a sweep


@pytest.fixture
def server(coldstart: Coldstart) -> Iterator[Sshd]:
    """Of this machine; only looked at."""
    folder = coldstart.folder / "sshd"
    folder.mkdir()
    made = Sshd(folder, {name: coldstart.environ[name] for name in ("COLDSTART_LOCK", "XDG_CACHE_HOME")})
    yield made
    made.stop()


def looked(coldstart: Coldstart, server: Sshd, *arguments: str, environ: dict[str, str] | None = None, **more: str):
    inventory = coldstart.write("remote.yaml", f"all: {{hosts: {{{server.node(**more)}}}}}\n")
    return coldstart("prepare", inventory, "python", *arguments, **(environ or {}))


def ready(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, "  python         nothing to do" in done.stdout) == (0, True), done.stderr


def trusting(server: Sshd, more: str) -> dict[str, str]:
    """Arguments of ssh."""
    return {"ansible_ssh_common_args": f'"-o UserKnownHostsFile={server.known_hosts} {more}"'}


def test_an_unknown_host_key(coldstart: Coldstart, server: Sshd):
    """Refused with its fingerprint; accepted only when told to, and remembered, for a sweep as well."""
    server.start()
    server.known_hosts.unlink()
    argv = ["ssh-keygen", "-lf", f"{server.host_key}.pub"]
    fingerprint = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[1]
    done = looked(coldstart, server)
    check_one_line(done, 4, "unknown host key", fingerprint, "--accept-new-host-keys")
    assert not server.known_hosts.exists()
    ready(looked(coldstart, server, "--accept-new-host-keys"))
    ready(looked(coldstart, server))
    assert server.known_hosts.read_text().startswith(f"[127.0.0.1]:{server.port} ssh-ed25519 ")
    assert coldstart("check", str(coldstart.folder / "remote.yaml")).returncode == 0


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_a_changed_host_key(coldstart: Coldstart, server: Sshd, kind: str):
    """Always refused, also if the known one is of another kind."""
    other = server.folder / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(other)], check=True)
    name, data, *_ = Path(f"{other}.pub").read_text().split()
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {name} {data}\n")
    server.start()
    check_one_line(looked(coldstart, server, "--accept-new-host-keys"), 4, "has CHANGED", "ssh-keygen -R")


def test_a_revoked_key(coldstart: Coldstart, server: Sshd):
    """Nothing accepts it, under whichever name it is revoked."""
    server.start()
    entry = server.known_hosts.read_text()
    server.known_hosts.write_text(f"@revoked {entry}")
    check_one_line(looked(coldstart, server, "--accept-new-host-keys"), 4, "is revoked")
    _, key = entry.split(" ", 1)
    server.known_hosts.write_text(f"127.0.0.1 {key}@revoked [127.0.0.1]:{server.port} {key}")
    check_one_line(looked(coldstart, server, "--accept-new-host-keys"), 4, "is revoked")


def test_known_in_other_ways(coldstart: Coldstart, server: Sshd):
    """Under a hashed name, without the port, by an alias; of several kinds of key the known one is asked for."""
    other = server.folder / "ecdsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(other)], check=True)
    server.start(f"HostKey {other}")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(server.known_hosts)], check=True, capture_output=True)
    ready(looked(coldstart, server))
    kind, data, *_ = server.host_key.with_suffix(".pub").read_text().split()
    server.known_hosts.write_text(f"127.0.0.1 {kind} {data}\n")
    ready(looked(coldstart, server))
    kind, data, *_ = Path(f"{other}.pub").read_text().split()
    server.known_hosts.write_text(f"my-alias {kind} {data}\n")
    assert looked(coldstart, server).returncode == 4
    home = configured(coldstart, f"Host *\n  HostKeyAlias my-alias\n  UserKnownHostsFile {server.known_hosts}\n")
    ready(looked(coldstart, server, environ=home))


def configured(coldstart: Coldstart, text: str) -> dict[str, str]:
    """A user with this ~/.ssh/config."""
    home = coldstart.folder / "home"
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    (home / ".ssh" / "config").write_text(text)
    return {"HOME": str(home)}


def test_a_jump_host(coldstart: Coldstart, server: Sshd):
    """A key that is not known there is refused like any other."""
    server.start()
    hop = f"root@localhost:{server.port}"
    ready(looked(coldstart, server, **trusting(server, f"-J {hop}")))
    nowhere = looked(coldstart, server, **trusting(server, f"-J {hop}"), ansible_port="1")
    check_one_line(nowhere, 4, "127.0.0.1:1: the jump host cannot connect: ")
    server.known_hosts.write_text(f"elsewhere {server.known_hosts.read_text().split(' ', 1)[1]}")
    done = looked(coldstart, server, **trusting(server, f"-J {hop}"))
    check_one_line(done, 4, "jump host root@localhost", "unknown host key")


def test_behind_two_jump_hosts(coldstart: Coldstart, make_lab: MakeLab):
    """Each through the one before."""
    lab = make_lab(Shape("outer"), Shape("middle", behind="outer"), Shape("inner", behind="middle", **PI))
    ready(coldstart("prepare", str(lab.inventory), "python", "--limit", "inner"))


def test_a_jump_host_that_does_not_forward(coldstart: Coldstart, server: Sshd):
    """The option it lacks is named."""
    server.start("AllowTcpForwarding no")
    done = looked(coldstart, server, **trusting(server, f"-J root@localhost:{server.port}"))
    check_one_line(done, 4, "does not forward", "AllowTcpForwarding")


def test_a_proxy_command(coldstart: Coldstart, server: Sshd):
    """Run without a shell, its tokens filled in."""
    server.start()
    inner = f"ssh -q -i {server.key} -o UserKnownHostsFile={server.known_hosts} -W %h:%p"
    ready(looked(coldstart, server, **trusting(server, f"-o ProxyCommand='{inner} -p {server.port} root@127.0.0.1'")))


def test_the_user_s_ssh_configuration(coldstart: Coldstart, server: Sshd):
    """An alias of theirs is a host, with algorithms of their choice; what cannot be honoured is refused by name."""
    server.start()
    lines = ["Host my-pi", "HostName 127.0.0.1", f"Port {server.port}", "User root", f"IdentityFile {server.key}"]
    lines += [f"UserKnownHostsFile {server.known_hosts}", "Ciphers unheard-of,aes256-ctr", "IdentitiesOnly yes"]
    told = ("ansible_port", "ansible_user", "ansible_ssh_private_key_file", "ansible_ssh_common_args")
    alias = {"ansible_host": "my-pi", **dict.fromkeys(told, "")}
    ready(looked(coldstart, server, environ=configured(coldstart, "\n".join(lines)), **alias))
    for line in ("BindAddress 127.0.0.1", "MACs +hmac-sha1"):
        done = looked(coldstart, server, environ=configured(coldstart, "\n".join([*lines, line])), **alias)
        check_one_line(done, 4, line.split()[0])


def test_keys(coldstart: Coldstart, server: Sshd):
    """A stranger's is refused, a path that is none is said, and an encrypted one is the agent's business."""
    stranger = server.folder / "stranger"
    keygen(stranger)
    server.start()
    no_agent = {"SSH_AUTH_SOCK": ""}
    done = looked(coldstart, server, environ=no_agent, ansible_ssh_private_key_file=str(stranger))
    check_one_line(done, 4, "Permission denied", "ansible_ssh_private_key_file")
    check_one_line(looked(coldstart, server, ansible_ssh_private_key_file="/nowhere/id"), 4, "/nowhere/id", "No such")
    sock = server.folder / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL) as agent:
        try:
            poll(sock.exists)
            held: dict[str, Any] = {"SSH_AUTH_SOCK": str(sock)}
            subprocess.run(["ssh-add", "-q", str(server.key)], env={**os.environ, **held}, check=True, timeout=10)
            subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(server.key)], check=True)
            ready(looked(coldstart, server, environ=held))
            ready(looked(coldstart, server, environ=held, **trusting(server, "-o IdentitiesOnly=yes")))
            check_one_line(looked(coldstart, server, environ=no_agent), 4, "Permission denied", "ssh-agent")
        finally:
            agent.terminate()


def test_no_ssh_server(coldstart: Coldstart, server: Sshd):
    """One that closes, in one line; one that says nothing keeps nobody from leaving."""
    with socket.create_server(("127.0.0.1", server.port)) as listener:
        closing = threading.Thread(target=lambda: listener.accept()[0].close())
        closing.start()
        done = looked(coldstart, server)
        closing.join()
        check_one_line(done, 4, f"127.0.0.1:{server.port}: ", "is it up")
        assert len(done.stderr.splitlines()) == 1
        argv = [COMMAND, "prepare", str(coldstart.folder / "remote.yaml")]
        process = subprocess.Popen(argv, env=coldstart.environ, stderr=subprocess.PIPE, text=True)
        held = listener.accept()[0]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
        held.close()
        assert (process.returncode, "Traceback" in err) == (130, False), err


def test_one_node_s_failure_is_its_own(coldstart: Coldstart, server: Sshd):
    """The others are prepared; the exit code tells, with the name."""
    server.start()
    dead = server.node("dead", ansible_port="1")
    local = "here: {ansible_connection: local}"
    inventory = coldstart.write("three.yaml", f"all: {{hosts: {{{server.node()}, {dead}, {local}}}}}\n")
    done = coldstart("prepare", inventory, "python", "--format", "json")
    check_one_line(done, 4, "1 of 3 nodes are not ready: dead: ", "refused")
    nodes = {entry["node"]: entry for entry in json.loads(done.stdout)["nodes"]}
    assert [bool(nodes[name]["error"]) for name in ("remote", "dead", "here")] == [False, True, False]
    assert nodes["remote"]["tasks"] == nodes["here"]["tasks"]
