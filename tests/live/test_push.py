"""Images reach nodes: only what a node lacks, cut and resumed, by another way if one is closed, and never half."""

from __future__ import annotations

import json
import random
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import COMMAND, Coldstart, poll
from lab.fleet import Lab
from lab.node import Node
from lab.shapes import Shape
from lending import Controller

from coldstart import archive, images
from coldstart.agent import engine as engines
from coldstart.agent.dockerimage import OURS
from coldstart.archive import ContainerImage, File
from coldstart.workloads import build

pytestmark = pytest.mark.live

MIB = 1 << 20
BIG_BYTES = 8 * MIB
CACHE = "/root/.cache/coldstart"
UNLIMITED_MBIT = 10_000
WAYS = {"open": ("pulled", "fetched"), "closed": ("loaded", "sent")}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two nodes with engines, one of which forwards nothing; and one without an engine."""
    shapes = (
        Shape("open", line=True, engine=True),
        Shape("closed", "edge", engine=True, sshd=("AllowTcpForwarding no",)),
    )
    with Lab(tmp_path_factory.mktemp("push") / "lab", shapes) as made:
        yield made


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: sockets, and podman's state, must not have long ones."""
    with tempfile.TemporaryDirectory(prefix="cs-") as folder:
        yield Path(folder)


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """The same; nothing that was pushed may be left on them."""
    yield shared
    for node in shared.nodes.values():
        poll(lambda node=node: not node.leftovers(), 35)
        for name in ours(node):
            node.run(["docker", "image", "rm", "--force", name])
        node.run(["rm", "-rf", CACHE])
        node.set_bandwidth(UNLIMITED_MBIT)


class Push:
    """The verb, and what it printed."""

    def __init__(self, coldstart: Coldstart, lab: Lab, node: str, targets: str) -> None:
        self.coldstart = coldstart
        text = Path(coldstart.playbook(targets)).read_text()
        playbook = coldstart.write(f"{secrets.token_hex(4)}.yaml", text)  # several may be wanted at once
        self.arguments = [str(lab.inventory), "--limit", node, "--playbook", playbook]

    def __call__(self, *more: str, code: int = 0) -> list[dict[str, Any]]:
        done = self.coldstart("push", *self.arguments, *more, "--format", "json")
        assert done.returncode == code, done.stderr
        self.stderr = done.stderr
        return list(json.loads(done.stdout)["pushes"])

    def start(self) -> subprocess.Popen[str]:
        """In the background."""
        argv = [COMMAND, "push", *self.arguments, "--format", "json"]
        return subprocess.Popen(
            argv, env=self.coldstart.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def container(path: Path, *layers: bytes) -> str:
    """The reference server in an image of these layers and itself; `ours` in no name of it."""
    program = File("hello", build.BUILT.joinpath("hello.x86_64").read_bytes(), 0o755)
    files = [*((File(f"layer{number}", data),) for number, data in enumerate(layers)), (program,)]
    image = ContainerImage("theirs.example/app", "x86_64", tuple(files), ("/hello",), ports=(8080,))
    path.write_bytes(archive.pack(image))
    return str(path)


def program(path: Path, size: int = BIG_BYTES) -> str:
    """The reference server with a long tail."""
    images.resolve("hello", packaging="executable", arch="x86_64", base=Path())  # built, if it was not
    path.write_bytes(build.BUILT.joinpath("hello.x86_64").read_bytes() + noise(size))
    return str(path)


def target(kind: str, folder: Path, *sizes: int) -> str:
    """A playbook's line: a container of layers of these sizes, or a program of all of them."""
    if kind == "program":
        return f"it: {{runtime: process, image: {program(folder / 'program', sum(sizes))}}}"
    layers = [noise(size, seed) for seed, size in enumerate(sizes)]
    return f"it: {{runtime: docker, image: {container(folder / 'app.tar', *layers)}}}"


def received_bytes(node: Node) -> int:
    """By its link, ever."""
    return int(node.run(["cat", "/sys/class/net/eth0/statistics/rx_bytes"]).stdout)


def names(node: Node) -> list[str]:
    return [name for image in node.engine.get("/images/json") for name in image["RepoTags"] or ["<none>"]]


def ours(node: Node) -> list[str]:
    return [name for name in names(node) if name.startswith(OURS)]


def cached(node: Node) -> dict[str, int]:
    """The node's cache: sizes by name."""
    folder = node.path(CACHE)
    return {file.name: file.stat().st_size for file in folder.iterdir()} if folder.is_dir() else {}


def parts(node: Node) -> int:
    """Bytes that have come of what is not complete."""
    return sum(size for name, size in cached(node).items() if name.endswith(".part"))


# -- what travels


def test_what_is_there_is_not_sent_again(coldstart: Coldstart, lab: Lab) -> None:
    """A second push of everything sends some hundred bytes."""
    arguments = ("push", str(lab.inventory), "--limit", "open", "--format", "json")
    first, second = (json.loads(coldstart(*arguments).stdout)["pushes"] for _ in range(2))
    assert {push["how"] for push in first} == {"pulled", "fetched"}
    assert {push["how"] for push in second} == {"present"}
    assert sum(push["transfer_bytes"] for push in first) > 10 * MIB
    assert sum(push["transfer_bytes"] for push in second) < 10_000


@pytest.mark.parametrize("node", ["open", "closed"])
def test_every_way_brings_what_boots(coldstart: Coldstart, lab: Lab, tmp_path: Path, node: str) -> None:
    """Through the forward and over the link alone; and a sweep finds it there."""
    targets = (
        f"container: {{runtime: docker, image: {container(tmp_path / 'app.tar', noise(2 * MIB))}}}\n"
        f"program: {{runtime: process, image: {program(tmp_path / 'program', 2 * MIB)}}}"
    )
    push = Push(coldstart, lab, node, targets)
    assert tuple(each["how"] for each in push()) == WAYS[node]
    done = coldstart.sweep(*push.arguments, "--boots", "1", "--format", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [cell["failed"] for cell in document["cells"]] == [0, 0]
    assert [each["how"] for each in document["pushes"]] == ["present", "present"]


def test_a_changed_layer_travels_alone(coldstart: Coldstart, lab: Lab, tmp_path: Path) -> None:
    """Of five layers, the one that is not there."""
    layers = [noise(MIB, seed) for seed in range(4)]
    before = container(tmp_path / "one.tar", *layers)
    after = container(tmp_path / "two.tar", *layers[:3], noise(100_000, 9))
    push = Push(
        coldstart, lab, "open", f"b: {{runtime: docker, image: {before}}}\na: {{runtime: docker, image: {after}}}"
    )
    first, second = push()
    assert first["transfer_bytes"] > 4 * MIB
    assert second["transfer_bytes"] < 120_000 + build.BUILT.joinpath("hello.x86_64").stat().st_size


def test_an_update_is_measured(coldstart: Coldstart, lab: Lab) -> None:
    """The shipped playbook: first starts and updates, the image under way in every boot."""
    done = coldstart.sweep(
        str(lab.inventory), "--limit", "open", "--playbook", "update", "--boots", "2", "--format", "json"
    )
    assert done.returncode == 0, done.stderr
    cells = {cell["target"]: cell for cell in json.loads(done.stdout)["cells"]}
    assert all((cell["start"], cell["failed"]) == ("image-absent", 0) for cell in cells.values())
    sent = {target: cell["transfer_bytes"] for target, cell in cells.items()}
    assert sent["container-update"] < sent["container-first"] / 500
    assert sent["container-first"] > 20 * MIB
    assert abs(sent["unikernel-update"] - sent["unikernel-first"]) < 1000
    assert all(cell["phases_seconds"]["pulled"]["n"] == 2 for cell in cells.values())


def test_without_a_forward_nothing_can_be_absent(coldstart: Coldstart, lab: Lab) -> None:
    """And it is said why."""
    done = coldstart.sweep(str(lab.inventory), "--limit", "closed", "--playbook", "update", "--boots", "1")
    assert done.returncode == 4
    assert "container-first image-absent skipped" in done.stderr
    assert "its SSH server refuses to forward a port" in done.stderr


# -- cut


@pytest.mark.parametrize("kind", ["container", "program"])
def test_a_push_that_was_cut_goes_on(coldstart: Coldstart, lab: Lab, tmp_path: Path, kind: str) -> None:
    """At 60 %: what was there is not sent again, whoever asks for it."""
    node = lab.nodes["open"]
    node.set_bandwidth(30)
    push = Push(coldstart, lab, "open", target(kind, tmp_path, BIG_BYTES))
    running = push.start()
    poll(lambda: parts(node) > 0.6 * BIG_BYTES)
    held = parts(node)
    assert held < 0.9 * BIG_BYTES
    node.kill_sshd_sessions()
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert "trying again" in err
    (pushed,) = json.loads(out)["pushes"]
    assert pushed["how"] == {"container": "pulled", "program": "fetched"}[kind]
    assert pushed["transfer_bytes"] < 1.45 * BIG_BYTES
    assert parts(node) == 0
    assert push()[0]["how"] == "present"


def test_a_push_that_was_given_up_goes_on_later(coldstart: Coldstart, lab: Lab, tmp_path: Path) -> None:
    """Another day: the part has waited in the cache."""
    node = lab.nodes["open"]
    node.set_bandwidth(30)
    push = Push(coldstart, lab, "open", f"it: {{runtime: process, image: {program(tmp_path / 'program')}}}")
    running = push.start()
    poll(lambda: parts(node) > 0.6 * BIG_BYTES)
    running.terminate()
    running.communicate(timeout=60)
    held = parts(node)
    assert all(name.endswith((".part", ".log")) for name in cached(node))
    (pushed,) = push()
    assert pushed["transfer_bytes"] < BIG_BYTES - held + 100_000


_REGISTRIES = """
import http.client
found = 0
for line in open("/proc/net/tcp").readlines()[1:]:
    address, state = line.split()[1], line.split()[3]
    if state == "0A" and address.startswith("0100007F:"):
        asked = http.client.HTTPConnection("127.0.0.1", int(address[-4:], 16), timeout=2)
        try:
            asked.request("GET", "/v2/")
            found += asked.getresponse().getheader("Docker-Distribution-Api-Version") is not None
        except (OSError, http.client.HTTPException):
            pass
print(found)
"""


def registries(node: Node) -> int:
    """Ports of its loopback where images can be had."""
    return int(node.run(["python3", "-c", _REGISTRIES]).stdout)


def test_the_port_is_lent_for_the_push_alone(coldstart: Coldstart, lab: Lab, tmp_path: Path) -> None:
    """While boots are measured nobody on the node can ask for images any more."""
    node = lab.nodes["open"]
    node.set_bandwidth(30)
    targets = f"it: {{runtime: process, image: {program(tmp_path / 'program')}}}"
    playbook = coldstart.playbook(targets, load="boots: 2, gap: 4s")
    argv = [COMMAND, "sweep", str(lab.inventory), "--limit", "open", "--playbook", playbook, "--start", "warm"]
    with subprocess.Popen(argv, env=coldstart.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        poll(lambda: parts(node) > 0)
        assert registries(node) == 1
        poll(lambda: any(len(name) == 64 for name in cached(node)))
        poll(lambda: registries(node) == 0, 3)
        assert running.poll() is None
        assert running.wait(60) == 0, running.stdout


@pytest.mark.parametrize("kind", ["container", "program"])
def test_an_end_in_the_middle_of_a_boots_fetch(coldstart: Coldstart, lab: Lab, tmp_path: Path, kind: str) -> None:
    """Nobody waits for the rest of an image that nobody wants any more."""
    node = lab.nodes["open"]
    node.set_bandwidth(4)
    playbook = coldstart.playbook(target(kind, tmp_path, 4 * MIB), timeout="60s")
    argv = [COMMAND, "sweep", str(lab.inventory), "--limit", "open", "--playbook", playbook, "--start", "image-absent"]
    with subprocess.Popen(argv, env=coldstart.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        there = (lambda: ours(node)) if kind == "container" else lambda: any(len(name) == 64 for name in cached(node))
        poll(there)
        poll(lambda: not there())
        before = received_bytes(node)
        poll(lambda: received_bytes(node) > before + 100_000)
        running.terminate()
        assert running.wait(9) == 128 + signal.SIGTERM, running.stderr  # a killed measurer would take 10 s
    assert ours(node) == []


# -- what goes wrong


def test_a_full_disk(coldstart: Coldstart, lab: Lab, tmp_path: Path) -> None:
    """Said with its reason; nothing has a valid name; and with room it goes on."""
    node = lab.nodes["open"]
    node.run(["mkdir", "-p", CACHE])
    node.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", CACHE])
    try:
        targets = (
            f"program: {{runtime: process, image: {program(tmp_path / 'program')}}}\n"
            f"container: {{runtime: docker, image: {container(tmp_path / 'app.tar', noise(BIG_BYTES))}}}"
        )
        push = Push(coldstart, lab, "open", targets)
        inventory = lab.inventory.read_text().replace(
            "all:\n  vars:\n", "all:\n  vars:\n    coldstart_disk_floor: 0MiB\n"
        )
        push.arguments[0] = coldstart.write("no-floor.yaml", inventory)
        assert push(code=4) == []
        assert push.stderr.count("No space left on device") == 2
        assert "not pushed: program on open, container on open" in push.stderr
        held = cached(node)
        assert all(name.endswith((".part", ".log")) for name in held)
        assert ours(node) == []
        node.run(["mount", "-o", "remount,size=64m", CACHE])
        assert {each["how"] for each in push()} == {"fetched", "pulled"}
    finally:
        node.run(["umount", CACHE])


def test_a_tag_that_moved(coldstart: Coldstart, lab: Lab, tmp_path: Path) -> None:
    """Our own name on another image is no proof: the right one is pushed, and booted."""
    node = lab.nodes["open"]
    one = Push(coldstart, lab, "open", f"it: {{runtime: docker, image: {container(tmp_path / 'one.tar', b'1')}}}")
    one()
    (name,) = ours(node)
    other = Push(coldstart, lab, "open", f"it: {{runtime: docker, image: {container(tmp_path / 'two.tar', b'2')}}}")
    other()
    (second,) = set(ours(node)) - {name}
    node.run(["docker", "image", "rm", name])
    node.run(["docker", "tag", second, name])
    assert one()[0]["how"] == "pulled"
    assert node.engine.get(f"/images/{name}/json")["Id"] != node.engine.get(f"/images/{second}/json")["Id"]


def test_what_is_theirs_stays_theirs(coldstart: Coldstart, lab: Lab, tmp_path: Path) -> None:
    """An image that was there before is used, never named by us, never removed; and a start kind that would have to
    says so."""
    node = lab.nodes["open"]
    path = container(tmp_path / "app.tar", b"theirs")
    node.path("/root/app.tar").write_bytes(Path(path).read_bytes())
    node.run(["docker", "load", "--input", "/root/app.tar"])
    (theirs,) = names(node)
    push = Push(coldstart, lab, "open", f"it: {{runtime: docker, image: {path}}}")
    assert push()[0]["how"] == "present"
    done = coldstart.sweep(*push.arguments, "--start", "image-absent")
    assert f"the engine had this image before ({theirs})" in done.stderr
    ours_too = Push(coldstart, lab, "open", f"it: {{runtime: docker, image: {container(tmp_path / 'b.tar', b'ours')}}}")
    ours_too()
    cleaned = coldstart("clean", str(lab.inventory), "--limit", "open", "--images")
    assert cleaned.returncode == 0
    assert names(node) == [theirs]
    assert not any(len(name) == 64 for name in cached(node))
    node.run(["docker", "image", "rm", theirs])


def test_wrong_images(coldstart: Coldstart, lab: Lab, tmp_path: Path) -> None:
    """Each said in one line, with its name; nothing reaches the node."""
    good = Path(container(tmp_path / "good.tar", noise(10_000)))
    data = good.read_bytes()
    (tmp_path / "short.tar").write_bytes(data[: len(data) // 2])
    (tmp_path / "lying.tar").write_bytes(data.replace(noise(10_000)[:50], noise(10_000)[:49] + b"!"))
    arm = ContainerImage("x.example/arm", "aarch64", ((File("hello", b"x"),),), ("/hello",))
    (tmp_path / "arm.tar").write_bytes(archive.pack(arm))
    targets = "\n".join(f"{n}: {{runtime: docker, image: {tmp_path}/{n}.tar}}" for n in ("short", "lying", "arm"))
    push = Push(coldstart, lab, "open", targets)
    assert push(code=2) == []
    for name, reason in {"short": "damaged", "lying": "damaged", "arm": "an image for aarch64"}.items():
        assert any(f"{name}.tar" in line and reason in line for line in push.stderr.splitlines()), push.stderr
    assert ours(lab.nodes["open"]) == []


def test_a_slow_node_holds_nobody_up(coldstart: Coldstart, lab: Lab, tmp_path: Path) -> None:
    """The other has its image while the slow one is still pulling."""
    slow, fast = lab.nodes["open"], lab.nodes["closed"]
    slow.set_bandwidth(8)
    path = container(tmp_path / "app.tar", noise(3 * MIB))
    push = Push(coldstart, lab, "all", f"it: {{runtime: docker, image: {path}}}")
    running = push.start()
    poll(lambda: ours(fast))
    assert ours(slow) == []
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert [each["node"] for each in json.loads(out)["pushes"]] == ["closed", "open"]


@pytest.mark.parametrize("kind", ["container", "program"])
def test_a_thin_link_stays_alive(coldstart: Coldstart, lab: Lab, tmp_path: Path, kind: str) -> None:
    """An image that takes 20 s must not stand before the heartbeats in a queue: one link brings it."""
    lab.nodes["open"].set_bandwidth(1)
    push = Push(coldstart, lab, "open", target(kind, tmp_path, *[MIB * 4 // 5] * 3))
    (pushed,) = push()
    assert "trying again" not in push.stderr
    assert pushed["transfer_bytes"] < 2.6 * MIB


def test_what_the_node_may_ask_for(coldstart: Coldstart, lab: Lab, tmp_path: Path) -> None:
    """While it is pushed to: its images by digest, and nothing else. Afterwards there is nobody to ask."""
    node = lab.nodes["open"]
    before = listening(node)
    node.set_bandwidth(8)
    push = Push(coldstart, lab, "open", f"it: {{runtime: process, image: {program(tmp_path / 'program')}}}")
    running = push.start()
    poll(lambda: parts(node))
    port = next(port for port in listening(node) - before if asked(node, port, "/v2/") == [200])
    hello = images.resolve("hello", packaging="executable", arch="x86_64", base=Path()).image.files["program"]
    paths = ("/v2/_catalog", "/v2/x/tags/list", "/v2/x/manifests/latest", "/../../etc/passwd")
    assert asked(node, port, *paths, f"/v2/x/blobs/sha256:{hello}") == [404] * 5
    assert running.poll() is None
    running.communicate(timeout=60)
    assert running.returncode == 0
    assert poll(lambda: listening(node) == before)


def listening(node: Node) -> set[int]:
    """TCP ports of its loopback where somebody listens."""
    rows = [line.split() for line in node.run(["cat", "/proc/net/tcp"]).stdout.splitlines()[1:]]
    return {int(row[1][9:], 16) for row in rows if row[1].startswith("0100007F:") and row[3] == "0A"}


def asked(node: Node, port: int, *paths: str) -> list[int]:
    """The status of each answer; 0 if it is none of HTTP's."""
    code = (
        "import http.client, sys\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        f"        c = http.client.HTTPConnection('127.0.0.1', {port}, timeout=5); c.request('GET', path)\n"
        "        print(c.getresponse().status)\n"
        "    except (OSError, http.client.HTTPException):\n"
        "        print(0)"
    )
    return [int(word) for word in node.run(["python3", "-c", code, *paths]).stdout.split()]


def test_a_rate_for_all(coldstart: Coldstart, lab: Lab, tmp_path: Path) -> None:
    """Nodes share it: 4 MiB in all take 2 s and no less."""
    path = container(tmp_path / "app.tar", noise(2 * MIB))
    push = Push(coldstart, lab, "all", f"it: {{runtime: docker, image: {path}}}")
    pushed = push("--push-rate", "2MiB")
    assert {each["node"] for each in pushed} == {"open", "closed"}
    assert max(each["seconds"] for each in pushed) > 1.8


# -- engines of other kinds


def test_an_engine_that_cannot_reach_loopback(coldstart: Coldstart, short: Path) -> None:
    """In a network namespace of its own, as rootless ones and Docker Desktop are: it is given an archive."""
    argv = ["unshare", "--net", "--", "dockerd", "--data-root", f"{short}/data", "--exec-root", f"{short}/exec"]
    argv += ["--host", f"unix://{short}/sock", "--pidfile", f"{short}/pid", "--bridge", "none", "--iptables=false"]
    with (short / "log").open("wb") as log:
        engine = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        poll(lambda: engines.answers(f"{short}/sock"))
        inventory = with_engine(coldstart, f"{short}/sock")
        arguments = ("push", inventory, "--target", "container", "--format", "json")
        assert [each["how"] for each in json.loads(coldstart(*arguments).stdout)["pushes"]] == ["loaded"]
        assert [each["how"] for each in json.loads(coldstart(*arguments).stdout)["pushes"]] == ["present"]
        assert "engine image coldstart.local/" in coldstart("clean", inventory, "--images").stdout
    finally:
        engine.terminate()
        engine.wait(30)


def test_podman(coldstart: Coldstart, short: Path) -> None:
    """It pulls from the same registry; and only the changed layer."""
    argv = ["podman", "--root", f"{short}/root", "--runroot", f"{short}/run", "--cgroup-manager=cgroupfs"]
    argv += ["system", "service", "--time=0", f"unix://{short}/sock"]
    with (short / "log").open("wb") as log:
        service = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        poll(lambda: engines.answers(f"{short}/sock"))
        inventory = with_engine(coldstart, f"{short}/sock")
        done = coldstart("push", inventory, "--playbook", "update", "--target", "container-update", "--format", "json")
        first, update = json.loads(done.stdout)["pushes"]
        assert (first["how"], update["how"]) == ("pulled", "pulled")
        assert first["transfer_bytes"] > 20 * MIB
        assert update["transfer_bytes"] < 30_000
        assert coldstart("clean", inventory, "--images").stdout.count("engine image coldstart.local/") >= 2
        assert "engine image" not in coldstart("clean", inventory, "--images").stdout
    finally:
        service.terminate()
        service.wait(30)
        subprocess.run(["umount", f"{short}/root/overlay"], check=False)  # it mounts that upon itself


def with_engine(coldstart: Coldstart, socket: str) -> str:
    host = f"{{ansible_connection: local, coldstart_docker_host: 'unix://{socket}'}}"
    return coldstart.write("engine.yaml", f"all: {{hosts: {{here: {host}}}}}\n")


def test_containerd(short: Path) -> None:
    """Its own client pulls from the registry as well, only what it lacks: an engine with containerd's store would."""
    source = images.resolve("hello-app", packaging="docker-archive", arch="x86_64", base=Path()).source
    assert source is not None
    controller = Controller()
    controller.registry.offer(source.blobs())
    argv = ["containerd", "--root", f"{short}/root", "--state", f"{short}/state", "--address", f"{short}/sock"]
    with (short / "log").open("wb") as log:
        service = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        poll(lambda: engines.answers(f"{short}/sock"))
        name = f"127.0.0.1:{controller.port}/coldstart.local/hello-app@{source.manifest.digest}"
        pull = ["ctr", "--address", f"{short}/sock", "images", "pull", "--plain-http", name]
        for at_least, at_most in ((20 * MIB, 21 * MIB), (0, 10_000)):
            before = controller.sent_bytes
            done = subprocess.run(pull, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert at_least <= controller.sent_bytes - before <= at_most
        assert controller.registry.refused == []
    finally:
        service.terminate()
        service.wait(30)
        controller.close()


# -- an image of one's own


def test_own_image_in_one_line(coldstart: Coldstart, lab: Lab, tmp_path: Path) -> None:
    """On a node that has never heard of it."""
    path = container(tmp_path / "My App.tar", noise(MIB))
    done = coldstart(
        *("sweep", str(lab.inventory), "--limit", "open", "--image", path, "--port", "8080"),
        *("--boots", "2", "--start", "warm", "--format", "json"),
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [(cell["target"], cell["failed"]) for cell in document["cells"]] == [("my-app", 0)]
    assert [each["how"] for each in document["pushes"]] == ["pulled"]
