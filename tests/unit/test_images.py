"""Image references: which bytes they mean, and in whose words a wrong one is refused."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import pytest
from image_fixtures import Layout

from coldstart import archive, guests, images, source, sources
from coldstart.archive import ContainerImage, File
from coldstart.errors import ImageError
from coldstart.workloads import build, versions

X86_64, AARCH64, ARM = 62, 183, 40


def elf(machine: int, kind: int = 2) -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", kind, machine) + bytes(44)


def container(arch: str) -> bytes:
    return archive.pack(ContainerImage("example.test/app", arch, ((File("app", b"x"),),), ("/app",)))


@pytest.fixture(autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine, and a cache of its own."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(versions, "BASE_BYTES", 1000)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "app").write_bytes(elf(X86_64))
    (tmp_path / "pi").write_bytes(elf(ARM))
    (tmp_path / "app.o").write_bytes(elf(X86_64, kind=1))
    (tmp_path / "app.sh").write_text("#!/bin/sh\n")
    (tmp_path / "notes.txt").write_text("text\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "app.tar").write_bytes(container("aarch64"))
    return tmp_path


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if a build had been done: small files in place of the real ones, and sums to match."""
    files = {name: container(name.split(".")[1]) if name.endswith(".tar") else b"elf" for name in build.names()}
    folder = tmp_path / "built"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    (tmp_path / "SHA256SUMS").write_text(sums)
    monkeypatch.setattr(build, "BUILT", folder)
    monkeypatch.setattr(build, "SUMS", tmp_path / "SHA256SUMS")
    return folder


# --- built in ---


@pytest.mark.parametrize("arch", build.ARCHITECTURES)
def test_builtin_program(built: Path, arch: str) -> None:
    found = images.resolve("hello", packaging="executable", arch=arch, base=Path())
    assert found.paths == {"program": built / f"hello.{arch}"}
    assert found.nonce
    assert found.image.files == {"program": hashlib.sha256(b"elf").hexdigest()}
    assert (found.image.name, found.image.reference) == ("hello", "")
    assert found.image.env == {"COLDSTART_NONCE": "{nonce}", "COLDSTART_PORT": "{port}"}


@pytest.mark.parametrize("arch", build.ARCHITECTURES)
def test_builtin_container(built: Path, arch: str) -> None:
    found = images.resolve("hello", packaging="docker-archive", arch=arch, base=Path())
    content = sources.read(built / f"hello.{arch}.docker.tar", arch)
    assert (found.paths, found.source, found.size_bytes) == ({}, content, content.size_bytes)
    assert found.nonce
    assert (found.image.id, found.image.digest) == (content.config.digest, content.manifest.digest)
    assert found.image.reference == f"coldstart.local/hello:{content.config.digest[7:19]}"
    assert found.image.env == {"COLDSTART_NONCE": "{nonce}"}


@pytest.mark.parametrize("arch", build.ARCHITECTURES)
@pytest.mark.parametrize(
    ("name", "packaging"),
    [
        ("hello-2", "executable"),
        ("hello-app", "docker-archive"),
        ("hello-app-2", "docker-archive"),
        ("hello-unikernel-2", "machine"),
    ],
)
def test_builtin_versions(built: Path, name: str, packaging: str, arch: str) -> None:
    """Made when first asked for, from what is built; listed from then on."""
    assert name not in {each.name for each in images.built()[0]}
    found = images.resolve(name, packaging=packaging, arch=arch, base=Path())
    assert found.nonce
    assert [(each.name, each.arch) for each in images.built()[0] if each.name == name] == [(name, arch)]
    if packaging == "docker-archive":
        assert found.source == images.container(name, arch, Path())
        assert found.image.reference.startswith(f"coldstart.local/{name}:")


def test_builtin_wins_over_a_file(built: Path, base: Path) -> None:
    (base / "hello").write_text("#!/bin/sh\n")
    assert images.resolve("hello", packaging="executable", arch="x86_64", base=base).nonce
    assert not images.resolve("./hello", packaging="executable", arch="x86_64", base=base).nonce


def test_builtin_for_another_architecture() -> None:
    with pytest.raises(ImageError, match="built for x86_64 and aarch64, not for armv7l"):
        images.resolve("hello", packaging="executable", arch="armv7l", base=Path())


@pytest.mark.parametrize("state", ["gone", "changed"])
def test_builtin_is_built_where_it_can_be(built: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    path = built / "hello.x86_64"
    path.unlink() if state == "gone" else path.write_bytes(b"old")

    def stand_in(out: Path) -> list[Path]:
        (out / "hello.x86_64").write_bytes(b"elf")
        return []

    monkeypatch.setattr(build, "build", stand_in)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert images.resolve("hello", packaging="executable", arch="x86_64", base=Path()).paths == {"program": path}
    assert path.read_bytes() == b"elf"


def test_builtin_is_missing_and_no_compiler(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (built / "hello.x86_64").unlink()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImageError, match="not built") as error:
        images.resolve("hello", packaging="executable", arch="x86_64", base=Path())
    assert f"pip install ziglang=={build.COMPILER}" in error.value.hint


# --- files and tags ---


@pytest.mark.parametrize("reference", ["app", "./app", "app.sh"])
def test_program(base: Path, reference: str) -> None:
    found = images.resolve(reference, packaging="executable", arch="x86_64", base=base)
    assert found.paths == {"program": base / reference}
    assert found.image.files == {"program": hashlib.sha256((base / reference).read_bytes()).hexdigest()}
    assert (found.image.name, found.nonce, found.image.env) == (reference, False, {})


def test_absolute_path(base: Path) -> None:
    found = images.resolve(str(base / "app"), packaging="executable", arch="x86_64", base=Path("/elsewhere"))
    assert found.paths == {"program": base / "app"}


def test_archive(base: Path) -> None:
    found = images.resolve("app.tar", packaging="docker-archive", arch="aarch64", base=base)
    assert found.source == sources.read(base / "app.tar", "aarch64")
    assert found.image.reference == f"coldstart.local/app:{found.source.config.digest[7:19]}"


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        ("./My App (2).tar.gz", "my-app-2"),
        ("ghcr.io/o/app@sha256:" + "0" * 64, "app-sha256-" + "0" * 29),
        ("layout/", "layout"),
        ("日本.tar", "image"),
    ],
)
def test_an_engine_s_name_for_whatever_people_call_it(name: str, readable: str) -> None:
    """A name that every engine takes, with what the image is in it."""
    config = source.in_memory(b"{}", source.CONFIG_TYPE)
    found = images.contained(name, source.Source("x86_64", source.manifest_of(config, ()), config, (), ()))
    assert found.image.reference == f"coldstart.local/{readable}:{config.digest[7:19]}"


@pytest.mark.parametrize("reference", ["nginx", "nginx:1.27-alpine", "ghcr.io/o/app@sha256:" + "0" * 64])
def test_tag(base: Path, reference: str) -> None:
    found = images.resolve(reference, packaging="docker-archive", arch="x86_64", base=base)
    assert (found.paths, found.image.reference, found.image.files) == ({}, reference, {})


def test_source(base: Path) -> None:
    """What a container consists of comes with it; None for a tag that no engine of this machine knows."""
    found = images.resolve("app.tar", packaging="docker-archive", arch="aarch64", base=base)
    assert found.source == images.container("app.tar", "aarch64", base) == sources.read(base / "app.tar", "aarch64")
    assert images.resolve("nginx", packaging="docker-archive", arch="x86_64", base=base).source is None
    assert images.container("nginx", "x86_64", base) is None
    assert images.resolve("app", packaging="executable", arch="x86_64", base=base).source is None


def test_folder_of_an_oci_layout(base: Path) -> None:
    """For containers only."""
    layout = Layout()
    layout.index(layout.image()).folder(base / "layout")
    found = images.resolve("layout", packaging="docker-archive", arch="x86_64", base=base)
    assert (found.paths, found.source) == ({}, sources.read(base / "layout", "x86_64"))
    with pytest.raises(ImageError, match="a folder, not an image"):
        images.check("layout", "executable", base)


def test_none_is_only_a_name(base: Path) -> None:
    images.check("whatever", "none", base)
    assert images.resolve("whatever", packaging="none", arch="riscv64", base=base).image.name == "whatever"


@pytest.mark.parametrize(
    ("reference", "packaging", "what"),
    [
        ("app", "executable", "a program for x86_64, but the node is aarch64"),
        ("pi", "executable", "a program for arm, "),
        ("app.o", "executable", "not a program"),
        ("notes.txt", "executable", "neither an ELF program nor a script"),
        ("notes.txt", "docker-archive", "not a tar archive"),
    ],
)
def test_wrong_file(base: Path, reference: str, packaging: str, what: str) -> None:
    images.check(reference, packaging, base)
    with pytest.raises(ImageError, match=what) as error:
        images.resolve(reference, packaging=packaging, arch="aarch64", base=base)
    assert str(base / reference) in error.value.message
    assert error.value.hint


def test_archive_for_another_architecture(base: Path) -> None:
    with pytest.raises(ImageError, match="an image for aarch64, but the node is x86_64"):
        images.resolve("app.tar", packaging="docker-archive", arch="x86_64", base=base)


@pytest.mark.parametrize(
    ("reference", "packaging", "what"),
    [
        ("./gone", "executable", "no such file"),
        ("/gone/app", "docker-archive", "no such file"),
        ("gone.tar", "docker-archive", "no such file"),
        ("gone", "executable", "neither a file in .* nor built in"),
        ("./folder", "docker-archive", "a folder"),
        ("folder", "executable", "a folder"),
        ("two words", "docker-archive", "cannot be an engine's tag"),
        ("--privileged", "docker-archive", "cannot be an engine's tag"),
        ("", "docker-archive", "a folder|cannot be"),
    ],
)
def test_refused_before_any_node(base: Path, reference: str, packaging: str, what: str) -> None:
    """`check` knows no architecture, and says the same as `resolve` would."""
    with pytest.raises(ImageError, match=what) as early:
        images.check(reference, packaging, base)
    with pytest.raises(ImageError) as late:
        images.resolve(reference, packaging=packaging, arch="x86_64", base=base)
    assert str(early.value) == str(late.value)
    assert early.value.hint


FITTING = {
    "executable": {"hello", "hello-2"},
    "docker-archive": {"hello", "hello-app", "hello-app-2"},
    "machine": {"hello-unikernel", "hello-unikernel-2", "hello-vm"},
}


def test_builtins_fit_some_runtimes_only(base: Path) -> None:
    """`check` says so before any node is known, and names what would fit."""
    for packaging, fitting in FITTING.items():
        for name in images.builtin_names():
            if name in fitting:
                images.check(name, packaging, base)
                continue
            with pytest.raises(ImageError, match=f"{name} is not built for this runtime") as error:
                images.check(name, packaging, base)
            assert error.value.hint == f"built in for it: {', '.join(sorted(fitting))}"


# --- what a machine boots ---


@pytest.fixture
def machine(base: Path) -> Path:
    (base / "kernel").write_bytes(bytes(0x202) + b"HdrS" + bytes(100))
    (base / "initrd").write_bytes(b"cpio")
    (base / "disk").write_bytes(bytes(512))
    (base / "overlay").write_bytes(b"QFI\xfb" + struct.pack(">IQI", 3, 0x100, 8) + bytes(500))
    (base / "external").write_bytes(b"QFI\xfb" + struct.pack(">IQ56xQ", 3, 0, 4) + bytes(500))
    (base / "cut").write_bytes(b"QFI\xfb\0\0\0\3")
    (base / "none").write_bytes(b"")
    return base


def test_builtin_unikernel(built: Path) -> None:
    """It brings what QEMU must be told, for the architecture that is wanted."""
    for arch in build.ARCHITECTURES:
        found = images.resolve("hello-unikernel", packaging="machine", arch=arch, base=Path())
        assert found.paths == {"kernel": built / f"hello-unikernel.{arch}"}
        assert (found.nonce, found.options["arch"]) == (True, arch)
        assert found.image.env.items() >= {"COLDSTART_NONCE": "{nonce}", "COLDSTART_IP": "{ip}/{prefix}"}.items()


def test_parts(machine: Path) -> None:
    """Each is a file of its own; one file alone is a kernel."""
    parts = {"kernel": "kernel", "initrd": "./initrd", "drive": "disk", "arch": "x86_64"}
    found = images.resolve(parts, packaging="machine", arch="x86_64", base=machine)
    assert found.paths == {part: machine / part.replace("drive", "disk") for part in ("kernel", "initrd", "drive")}
    assert set(found.image.files) == {"kernel", "initrd", "drive"}
    assert (found.nonce, found.options) == (False, {"arch": "x86_64"})
    alone = images.resolve("kernel", packaging="machine", arch="x86_64", base=machine)
    assert alone.paths == {"kernel": machine / "kernel"}


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ({"kernel": "notes.txt"}, "notes.txt: no kernel that QEMU could start"),
        ({"kernel": "pi"}, "pi: a kernel for ELF machine 40, but x86_64 is wanted"),
        ({"initrd": "initrd"}, "initrd: nothing to boot"),
        ({"kernel": "kernel", "drive": "gone"}, "'gone' is neither a file in .* nor built in"),
        ({"kernel": "kernel", "drive": "./gone"}, "gone: no such file"),
        ({"drive": "none"}, "none: empty, not a disk"),
        ({"drive": "overlay"}, "overlay: it needs a backing file"),
        ({"drive": "external"}, "external: it needs a data file"),
        ({"drive": "cut"}, "cut: a damaged qcow2 image"),
        ({"drive": "~nobody-of-that-name/x"}, "'~nobody-of-that-name/x': Could not determine home directory"),
        ({"drive": "x" * 300}, "File name too long"),
        ({"drive": "folder"}, "a folder, not an image"),
    ],
)
def test_wrong_parts(machine: Path, parts: dict[str, str], what: str) -> None:
    with pytest.raises(ImageError, match=what) as error:
        images.resolve(parts, packaging="machine", arch="x86_64", base=machine)
    assert error.value.hint


def test_parts_are_for_machines(machine: Path) -> None:
    with pytest.raises(ImageError, match="is for runtime qemu"):
        images.check({"kernel": "kernel"}, "docker-archive", machine)


@pytest.mark.parametrize(
    ("head", "arch"),
    [
        (elf(X86_64), "x86_64"),
        (elf(3), "x86_64"),
        (elf(AARCH64), "aarch64"),
        (elf(243), "ELF machine 243"),
        (bytes(0x202) + b"HdrS", "x86_64"),
        (bytes(56) + b"ARM\x64" + bytes(4), "aarch64"),
        (gzip.compress(bytes(56) + b"ARM\x64" + bytes(4), mtime=0), "aarch64"),
        (b"MZ\0\0zimg" + bytes(64), "aarch64"),
        (bytes(64) + struct.pack("<3I", 0x1BADB002, 3, -(0x1BADB002 + 3) & 0xFFFFFFFF), "x86_64"),
        (bytes(64) + struct.pack("<3I", 0x1BADB002, 3, 1), ""),
        (gzip.compress(b"text", mtime=0), ""),
        (b"\x1f\x8b broken", ""),
        (b"#!/bin/sh\n", ""),
        (b"\x7fELF", ""),
        (b"", ""),
    ],
)
def test_kernels_by_their_first_bytes(head: bytes, arch: str) -> None:
    assert guests.kernel_arch(head) == arch
