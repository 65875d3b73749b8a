"""Nodes over SSH, against a real sshd: what OpenSSH users expect, and everything that can be in the way."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Coldstart, poll
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sshd import Sshd, keygen
from test_faults import check_one_line

from coldstart import bundle
from coldstart.errors import DocumentError, NodeError
from coldstart.inventory import load
from coldstart.ssh import Fleet, quote

pytestmark = pytest.mark.live

PROCESS = "process: {runtime: process, image: hello}"
SHELLS = ("sh", "bash", "dash", "fish", "tcsh")


@pytest.fixture
def server(coldstart: Coldstart) -> Iterator[Sshd]:
    folder = coldstart.folder / "sshd"
    folder.mkdir()
    names = ("COLDSTART_LOCK", "XDG_CACHE_HOME")
    made = Sshd(folder, {name: coldstart.environ[name] for name in names})
    yield made
    made.stop()


class Remote:
    """The command line with one remote node."""

    def __init__(self, coldstart: Coldstart, server: Sshd) -> None:
        self.coldstart = coldstart
        self.server = server

    def inventory(self, **more: str) -> str:
        return self.coldstart.write("remote.yaml", f"all: {{hosts: {{{self.server.node(**more)}}}}}\n")

    def sweep(self, *arguments: str, environ: dict[str, str] | None = None, **more: str):
        playbook = self.coldstart.playbook(PROCESS)
        arguments = ("--playbook", playbook, *arguments)
        return self.coldstart.sweep(self.inventory(**more), *arguments, **(environ or {}))


@pytest.fixture
def remote(coldstart: Coldstart, server: Sshd) -> Remote:
    return Remote(coldstart, server)


def worked(done: subprocess.CompletedProcess[str], boots: int = 2) -> None:
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^cloud/remote +process +warm +{boots} +0 ", done.stdout, re.MULTILINE), done.stdout


def test_a_sweep(remote: Remote):
    """As on this machine, with what was known of its clock."""
    remote.server.start()
    done = remote.sweep("--format", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (clock,) = document["sync"]["clocks"]
    assert (clock["node"], clock["site"], clock["waves"]) == ("remote", "cloud", 1)
    assert 0 < clock["bound_seconds"] < 0.1
    assert document["missing"] == []
    assert remote.coldstart.leftovers() == []


@pytest.mark.parametrize("line", ["MaxSessions 1", "AllowTcpForwarding no", "DisableForwarding yes", "PermitTTY no"])
def test_a_strict_server(remote: Remote, line: str):
    """One session and no forwarding is all that a sweep needs."""
    remote.server.start(line)
    worked(remote.sweep())


def test_an_unknown_host_key(remote: Remote):
    """Refused with its fingerprint; accepted only when told to, and remembered."""
    remote.server.start()
    remote.server.known_hosts.unlink()
    fingerprint = subprocess.run(
        ["ssh-keygen", "-lf", f"{remote.server.host_key}.pub"], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    check_one_line(remote.sweep(), 4, "unknown host key", fingerprint, "--accept-new-host-keys")
    assert not remote.server.known_hosts.exists()
    worked(remote.sweep("--accept-new-host-keys"))
    worked(remote.sweep())
    assert remote.server.known_hosts.read_text().startswith(f"[127.0.0.1]:{remote.server.port} ssh-ed25519 ")


def test_a_changed_host_key(remote: Remote):
    """Always refused, with both fingerprints and the way to forget the old one."""
    other = remote.server.folder / "other"
    keygen(other)
    kind, data, *_ = Path(f"{other}.pub").read_text().split()
    remote.server.known_hosts.write_text(f"[127.0.0.1]:{remote.server.port} {kind} {data}\n")
    remote.server.start()
    check_one_line(remote.sweep("--accept-new-host-keys"), 4, "has CHANGED", "ssh-keygen -R")


def test_a_key_of_another_kind_is_a_changed_one(remote: Remote):
    """The node offers none of the kinds that are known."""
    rsa = remote.server.folder / "rsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(rsa)], check=True)
    kind, data, *_ = Path(f"{rsa}.pub").read_text().split()
    remote.server.known_hosts.write_text(f"[127.0.0.1]:{remote.server.port} {kind} {data}\n")
    remote.server.start()
    check_one_line(remote.sweep("--accept-new-host-keys"), 4, "has CHANGED")


def test_known_under_a_hashed_name(remote: Remote):
    """As Debian's ssh writes it."""
    remote.server.start()
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(remote.server.known_hosts)], check=True, capture_output=True)
    worked(remote.sweep())


def test_a_refused_key(remote: Remote):
    """With the user it was for, and what to do."""
    stranger = remote.server.folder / "stranger"
    keygen(stranger)
    remote.server.start()
    done = remote.sweep(ansible_ssh_private_key_file=str(stranger))
    check_one_line(done, 4, "Permission denied", "ansible_ssh_private_key_file")


def test_no_such_key(remote: Remote):
    """A typing error in the inventory is not `permission denied`."""
    remote.server.start()
    check_one_line(remote.sweep(ansible_ssh_private_key_file="/nowhere/id"), 4, "/nowhere/id", "No such file")


def test_nobody_listens(remote: Remote):
    """At once; not after --reconnect."""
    done = remote.sweep("--reconnect", "100")
    check_one_line(done, 4, "remote:", "refused")


@pytest.mark.parametrize("python", ["/no/such/python3", "/etc/passwd", "/"])
def test_no_python(remote: Remote, python: str):
    """And where to name one."""
    remote.server.start()
    check_one_line(remote.sweep(ansible_python_interpreter=python), 4, "remote: ", "ansible_python_interpreter")


def test_an_old_python(remote: Remote):
    """It says so itself."""
    old = remote.coldstart.folder / "python3.6"
    old.write_text(
        "#!/usr/bin/python3\nimport sys\ncode, sys.argv = sys.argv[5], ['-c', *sys.argv[6:]]\n"
        "sys.version_info = (3, 6, 8)\nexec(code)\n"
    )
    old.chmod(0o755)
    remote.server.start()
    check_one_line(remote.sweep(ansible_python_interpreter=str(old)), 4, "Python 3.6 is too old", "3.9")


def test_no_sudo(remote: Remote):
    """become is `sudo -n`, and where there is none it says so."""
    remote.server.start(f'ForceCommand PATH={remote.coldstart.folder}; eval "$SSH_ORIGINAL_COMMAND"')
    done = remote.sweep(ansible_become="true", ansible_python_interpreter="/usr/bin/python3")
    check_one_line(done, 4, "sudo is not installed", "ansible_become")


def test_a_noisy_start_up_file(remote: Remote):
    """What it prints is quoted: the stream must be ours alone."""
    remote.server.start('ForceCommand echo Welcome to pi01; exec sh -c "$SSH_ORIGINAL_COMMAND"')
    check_one_line(remote.sweep(), 4, "remote: ", "Welcome to pi01", "banner")


@pytest.mark.parametrize("shell", SHELLS)
def test_any_login_shell(remote: Remote, shell: str):
    """Also those that read quotes in their own way."""
    assert shutil.which(shell), f"{shell} is not installed"
    remote.server.start(f'ForceCommand exec {shell} -c "$SSH_ORIGINAL_COMMAND"')
    worked(remote.sweep())


def test_a_jump_host(remote: Remote):
    """Through an sshd that forwards; what the arguments say of keys holds for it as well."""
    remote.server.start()
    args = f"-o UserKnownHostsFile={remote.server.known_hosts} -J root@localhost:{remote.server.port}"
    worked(remote.sweep(ansible_ssh_common_args=f'"{args}"'))


def test_a_jump_host_that_does_not_forward(remote: Remote):
    """The option it lacks is named."""
    remote.server.start("AllowTcpForwarding no")
    args = f"-o UserKnownHostsFile={remote.server.known_hosts} -J root@localhost:{remote.server.port}"
    done = remote.sweep(ansible_ssh_common_args=f'"{args}"')
    check_one_line(done, 4, "does not forward", "AllowTcpForwarding")


def test_a_jump_host_with_an_unknown_key(remote: Remote):
    """It is verified like every other."""
    remote.server.start()
    remote.server.known_hosts.write_text(f"elsewhere {remote.server.known_hosts.read_text().split(' ', 1)[1]}")
    args = f"-o UserKnownHostsFile={remote.server.known_hosts} -J root@localhost:{remote.server.port}"
    done = remote.sweep(ansible_ssh_common_args=f'"{args}"')
    check_one_line(done, 4, "jump host root@localhost", "unknown host key")


def test_a_jump_host_that_is_reached_through_itself(remote: Remote):
    """`Host *` with a ProxyJump: said at once, instead of waiting for itself for ever."""
    home = remote.coldstart.folder / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "config").write_text("Host *\n  ProxyJump bastion.example\n")
    remote.server.start()
    check_one_line(remote.sweep(environ={"HOME": str(home)}), 4, "bastion.example is to be reached through itself")


def test_a_server_that_hangs_after_the_login(remote: Remote):
    """It lets us in and then does nothing: the sweep does not wait for ever."""
    remote.server.start("ForceCommand sleep 300")
    done = remote.sweep("--reconnect", "0")
    check_one_line(done, 4, "remote: link lost: nothing heard for 15 s")


def test_a_known_hosts_that_does_not_end_its_last_line(remote: Remote):
    """What is accepted gets a line of its own."""
    remote.server.start()
    remote.server.known_hosts.write_text(f"elsewhere {remote.server.known_hosts.read_text().split(' ', 1)[1].strip()}")
    worked(remote.sweep("--accept-new-host-keys"))
    worked(remote.sweep())


def test_a_revoked_key(remote: Remote):
    """Nothing accepts it."""
    remote.server.start()
    remote.server.known_hosts.write_text(f"@revoked {remote.server.known_hosts.read_text()}")
    assert remote.sweep("--accept-new-host-keys").returncode == 4


def test_a_proxy_command(remote: Remote):
    """Run without a shell, its tokens filled in."""
    remote.server.start()
    inner = f"ssh -q -i {remote.server.key} -o UserKnownHostsFile={remote.server.known_hosts} -W %h:%p"
    command = f"ProxyCommand='{inner} -p {remote.server.port} root@127.0.0.1'"
    args = f"-o UserKnownHostsFile={remote.server.known_hosts} -o {command}"
    worked(remote.sweep(ansible_ssh_common_args=f'"{args}"'))


def test_the_user_s_ssh_configuration(remote: Remote):
    """An alias of theirs is a host; all else stands there."""
    home = remote.coldstart.folder / "home"
    (home / ".ssh").mkdir(parents=True)
    lines = ["HostName 127.0.0.1", f"Port {remote.server.port}", "User root", f"IdentityFile {remote.server.key}"]
    lines.append(f"UserKnownHostsFile {remote.server.known_hosts}")
    (home / ".ssh" / "config").write_text("Host my-pi\n  " + "\n  ".join(lines) + "\nHost *\n  User nobody\n")
    remote.server.start()
    nothing = dict.fromkeys(
        ("ansible_port", "ansible_user", "ansible_ssh_private_key_file", "ansible_ssh_common_args"), ""
    )
    worked(remote.sweep(environ={"HOME": str(home)}, ansible_host="my-pi", **nothing))


def test_the_agent_has_the_key(remote: Remote):
    """An encrypted key file and an ssh-agent that holds it."""
    sock = remote.coldstart.folder / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL) as agent:
        try:
            poll(sock.exists)
            environ = {"SSH_AUTH_SOCK": str(sock)}
            subprocess.run(
                ["ssh-add", "-q", str(remote.server.key)], env={**os.environ, **environ}, check=True, timeout=10
            )
            argv = ["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(remote.server.key)]
            subprocess.run(argv, check=True)
            remote.server.start()
            worked(remote.sweep(environ=environ))
            check_one_line(remote.sweep(environ={"SSH_AUTH_SOCK": ""}), 4, "Permission denied", "ssh-agent")
        finally:
            agent.terminate()


def test_sessions_that_are_killed(coldstart: Coldstart, remote: Remote):
    """A new link, and every boot once."""
    remote.server.start()
    playbook = coldstart.playbook(PROCESS, "boots: 30, gap: 20ms")
    sweep = coldstart.start(remote.inventory(), "--playbook", playbook)
    sweep.stored(3)
    remote.server.kill_sessions()
    assert sweep.wait(60) == 0, sweep.stderr
    assert "link lost" in sweep.stderr
    assert len(coldstart.boots()) == 30
    assert coldstart.leftovers() == []


def test_the_listener_is_away_for_a_while(coldstart: Coldstart, remote: Remote):
    """The node comes back within --reconnect."""
    remote.server.start()
    playbook = coldstart.playbook(PROCESS, "boots: 30, gap: 20ms")
    sweep = coldstart.start(remote.inventory(), "--playbook", playbook)
    sweep.stored(3)
    remote.server.stop()
    os.kill(sweep_session(remote), 9)
    poll(lambda: "trying again" in sweep.stderr)
    remote.server.start()
    assert sweep.wait(60) == 0, sweep.stderr
    assert len(coldstart.boots()) == 30


def sweep_session(remote: Remote) -> int:
    """The sshd process that serves the sweep, now that its listener is gone."""
    found = subprocess.run(["pgrep", "-f", "^sshd: root@notty"], capture_output=True, text=True, check=False)
    mine = [int(pid) for pid in found.stdout.split() if _serves(int(pid), remote.coldstart)]
    assert mine, found
    return mine[0]


def _serves(pid: int, coldstart: Coldstart) -> bool:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    wanted = f"XDG_CACHE_HOME={coldstart.environ['XDG_CACHE_HOME']}".encode()
    return any(wanted in Path(f"/proc/{child}/environ").read_bytes().split(b"\0") for child in children)


hostile = st.text(
    st.sampled_from("ab0 '\"\\$(){};|&<>`!#~*?[]^%=@,.:/-+\t") | st.characters(blacklist_categories=("Cs",)),
    min_size=1,
    max_size=30,
)


@pytest.mark.parametrize("shell", SHELLS)
def test_one_quoting_for_all_shells(shell: str):
    """Every shell reads back the very word, whatever is in it; what cannot be said is refused."""

    @settings(max_examples=60, deadline=None)
    @given(st.lists(hostile, min_size=1, max_size=8))
    @example(["!!", "\\", "'", "\\\\'", "$(touch x)", "`id`", "a\\nb", "~", "=ls", "%s", "-n", "é"])
    def read_back(words: list[str]) -> None:
        words = [word for word in words if not re.search(r"[\0\r\n]", word)]
        command = "/usr/bin/printf '%s\\n' " + " ".join(map(quote, ["-", *words]))
        environ = {**os.environ, "LC_ALL": "C.UTF-8"}
        done = subprocess.run([shell, "-c", command], capture_output=True, env=environ, timeout=10)
        assert done.stdout.decode().split("\n")[1:-1] == words, done

    read_back()


def test_hostile_values_run_nothing(remote: Remote, tmp_path: Path):
    """Whatever an inventory holds where a node's own words go, against a real sshd: no command runs."""
    remote.server.start()
    canary = tmp_path / "canary"
    names = st.sampled_from(
        ["ansible_python_interpreter", "ansible_user", "ansible_host", "ansible_ssh_private_key_file"]
    )
    attacks = st.sampled_from(["$(%s)", "`%s`", "; %s;", "' %s '", '" %s "', "| %s", "& %s &", "\\'; %s; '", "x -o %s"])
    attack = attacks.map(lambda form: form % f"touch {canary}")

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(names, attack | hostile)
    def tried(name: str, value: str) -> None:
        path = tmp_path / "inventory.yaml"
        path.write_text(f"all: {{hosts: {{{remote.server.node(**{name: json.dumps(value)})}}}}}\n")
        try:
            (node,) = load(path).nodes
        except DocumentError:
            return  # told at once is as good
        with pytest.raises(NodeError):
            asyncio.run(connected(node))

    async def connected(node) -> None:
        fleet = Fleet()
        try:
            link = await fleet.connect(node, bundle.build())
            try:
                await link.read()
            finally:
                await link.close()
        finally:
            await fleet.close()

    tried()
    assert not canary.exists()
