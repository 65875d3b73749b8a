"""The Linux VM's two files: built once, from what was given, and again when that is another. Booted: tests/live."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from kernel_fixtures import IN_ORDER, MODULES, X86, deb, installed, place

from coldstart.archive import File
from coldstart.errors import ImageError
from coldstart.workloads import build, initramfs, kernels, linuxvm
from coldstart.workloads.kernels import Kernel
from coldstart.workloads.linuxvm import LinuxVm

RELEASE = "6.1.0-9-cloud-amd64"


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return kernels.examine(place(tmp_path / "tree", installed(RELEASE)))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Kernel]:
    """The kernels that were read: what costs seconds."""
    seen = []
    load = kernels.load

    def count(kernel: Kernel) -> kernels.Contents:
        seen.append(kernel)
        return load(kernel)

    monkeypatch.setattr(kernels, "load", count)
    return seen


def make(kernel: Kernel, out: Path, *, program: bytes = b"hello", init: bytes = b"init") -> LinuxVm:
    return linuxvm.build("x86_64", out=out, program=program, init=init, kernel=kernel)


def test_what_is_in_it(kernel: Kernel, tmp_path: Path) -> None:
    """What vm/init.c expects: itself, the handler, and the modules with their order."""
    vm = make(kernel, tmp_path / "out")
    assert vm == LinuxVm(tmp_path / "out/hello-vm.x86_64.kernel", tmp_path / "out/hello-vm.x86_64.initrd")
    assert vm.kernel.read_bytes() == X86
    by_name = {name.rpartition("/")[2]: data for name, data in MODULES.items()}
    files = [File("init", b"init", 0o755), File("hello", b"hello", 0o755)]
    files += [File(f"modules/{name}", by_name[name]) for name in IN_ORDER]
    order = "".join(f"/modules/{name}\n" for name in IN_ORDER).encode()
    assert vm.initrd.read_bytes() == initramfs.pack([*files, File("modules/order", order)])


def test_nothing_to_load(tmp_path: Path) -> None:
    drivers = {"modules.builtin": b"a/virtio_pci.ko\na/virtio_net.ko\n"}
    kernel = kernels.examine(place(tmp_path / "tree", installed("6.9", files=drivers)))
    files = [File("init", b"init", 0o755), File("hello", b"hello", 0o755), File("modules/order", b"")]
    assert make(kernel, tmp_path / "out").initrd.read_bytes() == initramfs.pack(files)


def test_built_once(kernel: Kernel, loads: list[Kernel], tmp_path: Path) -> None:
    first = make(kernel, tmp_path)
    written = [path.stat().st_mtime_ns for path in (first.kernel, first.initrd)]
    assert make(kernel, tmp_path) == first
    assert [path.stat().st_mtime_ns for path in (first.kernel, first.initrd)] == written
    assert len(loads) == 1


@pytest.mark.parametrize("change", ["program", "init", "stamp"])
def test_built_again_from_other_inputs(kernel: Kernel, loads: list[Kernel], tmp_path: Path, change: str) -> None:
    make(kernel, tmp_path)
    if change == "stamp":
        make(replace(kernel, stamp="another"), tmp_path)
    else:
        vm = make(kernel, tmp_path, **{change: b"other"})
        assert b"other" in vm.initrd.read_bytes()
    assert len(loads) == 2


@pytest.mark.parametrize("suffix", ["kernel", "initrd", "stamp"])
@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_built_again_if_something_is_wrong(kernel: Kernel, tmp_path: Path, suffix: str, how: str) -> None:
    make(kernel, tmp_path)
    path = tmp_path / f"hello-vm.x86_64.{suffix}"
    right = path.read_bytes()
    path.unlink() if how == "gone" else path.write_bytes(right[:-1])
    make(kernel, tmp_path)
    assert path.read_bytes() == right


def test_whole_or_not_at_all(kernel: Kernel, tmp_path: Path) -> None:
    """The files of an earlier build stay, and no half of a new one does."""
    out = tmp_path / "out"
    make(kernel, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    place(tmp_path / "tree", {f"lib/modules/{RELEASE}/kernel/drivers/virtio/virtio.ko": b"\x1f\x8bdamaged"})
    with pytest.raises(ImageError, match=r"virtio\.ko: damaged"):
        make(kernel, out, program=b"other")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_same_inputs_same_bytes(kernel: Kernel, tmp_path: Path) -> None:
    one, other = make(kernel, tmp_path / "one"), make(kernel, tmp_path / "other")
    assert one.initrd.read_bytes() == other.initrd.read_bytes()
    assert one.kernel.read_bytes() == other.kernel.read_bytes()


def test_a_folder_that_cannot_be_written(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match=r"file/out: Not a directory \(set XDG_CACHE_HOME"):
        make(kernel, tmp_path / "file" / "out")


# --- in the usual places ---


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folders, and built programs."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    programs = {
        f"{program.name}.{arch}": program.name.encode() for program in build.PROGRAMS for arch in build.ARCHITECTURES
    }
    monkeypatch.setattr(build, "BUILT", place(tmp_path / "built", programs))
    monkeypatch.setattr(build, "is_right", Path.exists)
    return tmp_path


def test_found_and_built(places: Path) -> None:
    package = deb(installed(RELEASE), package=f"linux-image-{RELEASE}", architecture="amd64")
    kernels.keep(next(iter(place(places / "given", {"x.deb": package}).iterdir())))
    vm = linuxvm.find_or_build("x86_64")
    assert vm.kernel == places / "cache/coldstart/vm/hello-vm.x86_64.kernel"
    assert vm.initrd.read_bytes().count(b"hello-vm-init") == 1
    assert sorted(path.name for path in (places / "data/coldstart/kernels").iterdir()) == ["x86_64.deb"]


def test_what_is_not_built_yet_is_built(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (places / "built" / "hello-vm-init.aarch64").unlink()

    def compile_it(out: Path) -> None:
        place(out, {"hello-vm-init.aarch64": b"just compiled"})

    monkeypatch.setattr(build, "build", compile_it)
    arm = deb(installed("6.1", bytes(56) + b"ARM\x64"))
    place(places / "data/coldstart/kernels", {"aarch64.deb": arm})
    assert b"just compiled" in linuxvm.find_or_build("aarch64").initrd.read_bytes()


def test_an_architecture_it_is_not_built_for(places: Path) -> None:
    with pytest.raises(ImageError, match="hello-vm is built for x86_64 and aarch64, not for riscv64"):
        linuxvm.find_or_build("riscv64")
