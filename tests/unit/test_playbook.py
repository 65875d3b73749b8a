"""A playbook becomes a model with every unit resolved, or is refused with the line and the target."""

import sys
from dataclasses import replace

import pytest

from coldstart import playbook
from coldstart.agent import runtimes
from coldstart.errors import DocumentError, UsageError
from coldstart.model import Load, Ready

BASE = """\
name: p
ready: {tcp: {port: 80}}
targets:
  t: {runtime: fake, image: i}
"""


@pytest.fixture
def read(tmp_path):
    def read(text):
        file = tmp_path / "f.yaml"
        file.write_text(text)
        return playbook.load(file)

    return read


def target(keys):
    """A playbook whose only target has these keys, on line 4."""
    return f"name: p\nready: {{tcp: {{port: 80}}}}\ntargets:\n  t: {{{keys}}}\n"


def ready(text):
    """A playbook with this `ready`, on line 2."""
    return f"name: p\nready: {text}\ntargets: {{t: {{runtime: process, image: i}}}}\n"


def test_defaults(read, tmp_path):
    made = read(BASE)
    (only,) = made.targets
    assert (made.name, made.starts, made.order, made.sync, made.text) == ("p", ("warm",), "interleaved", "loop", BASE)
    assert made.load == Load("sequential", 20, 100_000_000, 0)
    assert (only.name, only.runtime, only.images, only.options) == ("t", "fake", {"": "i"}, {})
    assert only.ready == Ready("tcp", 80, timeout_ns=20_000_000_000)
    assert only.base == str(tmp_path)
    assert only.where == f"{tmp_path}/f.yaml:4"


def test_every_key(read):
    made = read("""\
name: all-keys
ready: {exit: 3, timeout: 1m30s}
targets:
  one: {runtime: process, image: {x86_64: a, aarch64: b}, args: [--port, "{port}"], env: {A: "1"}}
  two: {runtime: docker, image: hello, memory: 8MiB, net: proxied, ready: {output: "up|ready"}}
start: page-cold
load: {shape: sequential, boots: 3, gap: 200ms, hold: 1.5s}
order: blocked
sync: loop
""")
    one, two = made.targets
    assert one.images == {"x86_64": "a", "aarch64": "b"}
    assert one.options == {"args": ("--port", "{port}"), "env": {"A": "1"}}
    assert one.ready == Ready("exit", code=3, timeout_ns=90_000_000_000)
    assert two.options == {"memory_bytes": 8 * 2**20, "net": "proxied"}
    assert two.ready == Ready("output", pattern="up|ready")
    assert (made.starts, made.order) == (("page-cold",), "blocked")
    assert made.load == Load("sequential", 3, 200_000_000, 1_500_000_000)


@pytest.mark.parametrize(
    ("image", "nonce", "expected"),
    [
        ("hello", "", True),
        ("{x86_64: hello, aarch64: hello}", "", True),
        ("./mine.tar", "", False),
        ("hello", ", nonce: off", False),
        ("./mine.tar", ", nonce: yes", True),
    ],
)
def test_only_the_built_in_image_is_known_to_echo_a_nonce(read, image, nonce, expected):
    (only,) = read(
        f"name: p\nready: {{http: {{port: 80, path: /x, status: 204, body: hi{nonce}}}}}\n"
        f"targets: {{t: {{runtime: process, image: {image}}}}}"
    ).targets
    assert only.ready == Ready("http", 80, "/x", 204, "hi", expected)


OPTIONS = """
from dataclasses import dataclass, field
from typing import Mapping, Tuple

@dataclass(frozen=True)
class Options:
    image_ns: int = 0
    console: str = field(default="on", metadata={"choices": ("on", "off")})
    quiet: bool = False
    title: str = ""
    cores: int = 1
    args: Tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    disk_bytes: int = 0

class Runtime:
    ready_kinds = ("tcp",)
    starts = ("warm",)
"""


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """A runtime with an option of every type, added as any is: by a file."""
    (tmp_path / "sample.py").write_text(OPTIONS)
    monkeypatch.setattr(runtimes, "__path__", [*runtimes.__path__, str(tmp_path)])
    yield
    sys.modules.pop("coldstart.agent.runtimes.sample", None)
    vars(runtimes).pop("sample", None)


def test_a_key_is_the_fields_name_without_its_unit(sample):
    keys = ["image_after", "console", "quiet", "title", "cores", "args", "env", "disk"]
    assert list(playbook.option_keys("sample")) == keys
    assert playbook.option_keys("fake")["ready_after"].name == "ready_ns"


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ("image_after: 5ms", "image_ns", 5_000_000),
        ("disk: 1GB", "disk_bytes", 10**9),
        ("console: off", "console", "off"),
        ("quiet: off", "quiet", False),
        ("quiet: true", "quiet", True),
        ("title: off", "title", "off"),
        ("cores: 2", "cores", 2),
        ("args: [a, b]", "args", ("a", "b")),
        ("env: {A: b}", "env", {"A": "b"}),
    ],
)
def test_options_are_typed_by_the_runtime(read, sample, written, field, value):
    assert read(target(f"runtime: sample, image: i, {written}")).targets[0].options == {field: value}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("image_after: 5", "image_after: '5' needs a unit: 200ms"),
        ("disk: 1.5", "disk: '1.5' needs a unit: 8MiB"),
        ("disk: true", "disk: 'True' is not a number with a unit: 8MiB"),
        ("console: maybe", "console: 'maybe' is not one of on, off"),
        ("console: [on]", "console: must be text, not a list"),
        ("quiet: 1", "quiet: must be true or false, not 1"),
        ("title: 7", 'title: must be text, not 7 (put it in quotes: "7")'),
        ("cores: '2'", "cores: must be a whole number, not '2'"),
        ("cores: true", "cores: must be a whole number, not True"),
        ("cores: 2.0", "cores: must be a whole number, not 2.0"),
        ("args: --port", "args: must be a list, not '--port'"),
        ("args: [8080]", 'args.0: must be text, not 8080 (put it in quotes: "8080")'),
        ("env: [A]", "env: must be a mapping of keys to values, not a list"),
        ("env: {A: true}", 'env.A: must be text, not True (put it in quotes: "true")'),
    ],
)
def test_refuses_options(read, sample, tmp_path, written, message):
    with pytest.raises(DocumentError) as error:
        read(target(f"runtime: sample, image: i, {written}"))
    assert str(error.value).startswith(f"{tmp_path}/f.yaml:4: targets.t.{message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("targets: {}", "1: name: is missing"),
        (
            "name: A B\ntargets: {t: {runtime: fake, image: i}}",
            "1: name: 'A B' is not a name: a-z, 0-9, then also _ . -",
        ),
        ("name: p\n", "1: targets: is missing"),
        ("name: p\ntargets: {}", "2: targets: is empty: name at least one"),
        ("name: p\ntargets: []", "2: targets: must be a mapping of keys to values, not a list"),
        (
            f"{BASE}strat: warm\n",
            "5: strat: unknown key (did you mean 'start'? known: load, name, order, ready, start,",
        ),
        (BASE.replace("  t:", "  T:"), "4: targets.T: 'T' is not a name"),
        (BASE.replace("  t:", f"  {'t' * 64}:"), f"4: targets.{'t' * 64}: '{'t' * 64}' is not a name"),
        (BASE.replace("  t:", "  7:"), "4: targets.7: must be text, not 7"),
        ("name: p\ntargets:\n  t: {runtime: fake, image: i}", "3: target t: no `ready` (write one in the target, or"),
        (f'{BASE}"new\\nline": 1\n', "5: 'new\\nline': unknown key"),
        (target("image: i"), "4: targets.t.runtime: is missing"),
        (target("runtime: fake"), "4: targets.t.image: is missing"),
        (target("runtime: dokcer, image: i"), "4: target t: no runtime 'dokcer' (did you mean 'docker'? known: docker"),
        (target("runtime: fake, image: ''"), "4: targets.t.image: names no image"),
        (target("runtime: fake, image: {}"), "4: targets.t.image: names no image"),
        (target("runtime: fake, image: 7"), "4: targets.t.image: must be a mapping of keys to values, not 7"),
        (target("runtime: fake, image: {arm: i}"), "4: targets.t.image.arm: unknown key (known: aarch64, x86_64)"),
        (
            target("runtime: process, image: i, arg: []"),
            "4: target t: runtime process takes no key 'arg' (did you mean 'args'? known: args, boots, ",
        ),
        (target("runtime: fake, image: i, fault: x"), "4: targets.t.fault: 'x' is not one of none, "),
        (
            target("runtime: fake, image: i, ready: {exit: 0}"),
            "4: target t: runtime fake cannot tell `ready: exit` (it",
        ),
        (
            target("runtime: fake, image: i, ready: {}"),
            "4: targets.t.ready: takes exactly one of http, tcp, output, exit;",
        ),
        (ready("{}"), "2: ready: takes exactly one of http, tcp, output, exit; it has none"),
        (
            ready("{exit: 0, output: x}"),
            "2: ready: takes exactly one of http, tcp, output, exit; it has output and exit",
        ),
        (
            ready("{http: {prot: 80}}"),
            "2: ready.http.prot: unknown key (did you mean 'port'? known: body, nonce, path, po",
        ),
        (ready("{htpp: {}}"), "2: ready.htpp: unknown key (did you mean 'http'?"),
        (ready("{http: {}}"), "2: ready.http.port: is missing"),
        (ready("{http: {port: 0}}"), "2: ready.http.port: 0 is not a port: 1..65535"),
        (ready("{tcp: {port: 65536}}"), "2: ready.tcp.port: 65536 is not a port: 1..65535"),
        (ready("{tcp: {port: '80'}}"), "2: ready.tcp.port: must be a whole number, not '80'"),
        (ready("{http: {port: 80, path: x}}"), "2: ready.http.path: 'x' is not a path of a URL"),
        (ready("{http: {port: 80, path: /a b}}"), "2: ready.http.path: '/a b' is not a path of a URL"),
        (ready("{http: {port: 80, status: 99}}"), "2: ready.http.status: 99 is not a status: 100..599"),
        (ready("{http: {port: 80, status: 600}}"), "2: ready.http.status: 600 is not a status: 100..599"),
        (ready("{http: {port: 80, nonce: maybe}}"), "2: ready.http.nonce: must be true or false, not 'maybe'"),
        (ready("{output: '['}"), "2: ready.output: '[' is not a regular expression: "),
        (ready("{exit: 256}"), "2: ready.exit: 256 is not an exit code: 0..255"),
        (ready("{exit: 0, timeout: 20}"), "2: ready.timeout: '20' needs a unit: 200ms"),
        (ready("{exit: 0, timeout: 0s}"), "2: ready.timeout: 0 s is not a timeout: above 0s, at most 24h00m"),
        (f"{BASE}start: hot\n", "5: start.0: 'hot' is not one of warm, page-cold, image-absent"),
        (f"{BASE}start:\n- warm\n- hot\n", "7: start.1: 'hot' is not one of warm, page-cold, image-absent"),
        (f"{BASE}start: []\n", "5: start: is empty: name some of warm, page-cold, image-absent"),
        (f"{BASE}start: [warm, warm]\n", "5: start: names a start kind twice"),
        (f"{BASE}start: 7\n", "5: start: must be a list, not 7"),
        (f"{BASE}load: {{boots: 0}}\n", "5: load.boots: 0 is not a number of boots: 1..100000"),
        (f"{BASE}load:\n  boots: 100001\n", "6: load.boots: 100001 is not a number of boots: 1..100000"),
        (f"{BASE}load: {{gap: 1}}\n", "5: load.gap: '1' needs a unit: 200ms"),
        (f"{BASE}load: {{gap: [1]}}\n", "5: load.gap: '[1]' is not a number with a unit: 200ms"),
        (f"{BASE}load: {{shape: storm}}\n", "5: load.shape: 'storm' is not one of sequential"),
        (f"{BASE}load: 20\n", "5: load: must be a mapping of keys to values, not 20"),
        (f"{BASE}order: random\n", "5: order: 'random' is not one of interleaved, blocked"),
        (f"{BASE}sync: waves\n", "5: sync: 'waves' is not one of loop"),
        (f"{BASE}targets: {{}}\n", "5: duplicate key 'targets', first on line 3"),
    ],
)
def test_refuses_with_the_line(read, tmp_path, text, message):
    with pytest.raises(DocumentError) as error:
        read(text)
    assert str(error.value).startswith(f"{tmp_path}/f.yaml:{message}")


def test_refuses_a_start_that_the_runtime_has_not(read, sample, tmp_path):
    with pytest.raises(DocumentError) as error:
        read(f"{target('runtime: sample, image: i')}start:\n  - warm\n  - page-cold\n")
    message = "target t: runtime sample has no start `page-cold`, only warm"
    assert str(error.value) == f"{tmp_path}/f.yaml:7: {message}"


@pytest.fixture
def quick():
    return playbook.load(playbook.find("quick"))


def test_the_shipped_playbook(quick):
    runtimes = {target.name: target.runtime for target in quick.targets}
    assert runtimes == {"process": "process", "container": "docker", "vm": "qemu", "unikernel": "qemu"}
    [ready] = {target.ready for target in quick.targets}
    assert replace(ready, timeout_ns=0) == Ready(
        "http", 8080, "/", 200, "Serverless Unikernels!", nonce=True, timeout_ns=0
    )
    assert (quick.name, quick.starts, quick.load.boots) == ("quick", ("warm", "page-cold"), 10)


def test_overrides(quick):
    less = playbook.override(quick, targets=["container"], starts=["warm", "warm"], boots=3)
    assert ([one.name for one in less.targets], less.starts, less.load.boots) == (["container"], ("warm",), 3)
    assert less.load.gap_ns == quick.load.gap_ns
    assert playbook.override(quick) == quick


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"targets": ["contianer"]},
            "--target contianer: no such target (did you mean 'container'? known: container, p",
        ),
        (
            {"starts": ["cold"]},
            "--start cold: no such start kind (did you mean 'page-cold'? known: image-absent, page-cold, warm)",
        ),
        ({"boots": 0}, "--boots 0: at least 1"),
        ({"boots": 100_001}, "--boots 100001: at most 100000"),
    ],
)
def test_refuses_overrides(quick, given, message):
    with pytest.raises(UsageError) as error:
        playbook.override(quick, **given)
    assert str(error.value).startswith(message)


def test_refuses_to_override_with_a_start_that_a_runtime_has_not(read, sample):
    made = read(target("runtime: sample, image: i"))
    with pytest.raises(UsageError) as error:
        playbook.override(made, starts=["page-cold"])
    assert str(error.value) == "--start page-cold: target t: runtime sample has no start `page-cold`, only warm"
