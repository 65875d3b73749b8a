"""Which kernel is taken, from where, and what is said if there is none. Nothing here looks at this machine."""

from __future__ import annotations

import gzip
import lzma
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_fixtures import ARM, IN_ORDER, MODULES, X86, deb, gz, installed, module, place

from coldstart.errors import ImageError
from coldstart.workloads import kernelhelp, kernelimage, kernels
from coldstart.workloads.kernels import Kernel

CLOUD = "6.1.0-9-cloud-amd64"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class Machine:
    """An x86_64 with an empty file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = place(folder / "root", {})
        self.kept = folder / "kept"

    def install(self, release: str, image: bytes = X86, **more: Any) -> None:
        place(self.root, installed(release, image, **more))

    def is_called(self, os_release: str) -> None:
        place(self.root, {"etc/os-release": os_release.encode()})

    def find(self, arch: str = "x86_64") -> Kernel:
        return kernels.find(arch, kept=self.kept, root=self.root, machine="x86_64")

    def package(self, data: bytes, name: str = "given.deb") -> Path:
        place(self.folder, {name: data})
        return self.folder / name

    def refusal(self, arch: str = "x86_64") -> str:
        with pytest.raises(ImageError) as caught:
            self.find(arch)
        return str(caught.value)


# --- the distribution's own ---


def test_image_and_modules_in_order(machine: Machine) -> None:
    machine.install(CLOUD)
    kernel = machine.find()
    assert (kernel.arch, kernel.release, kernel.source) == ("x86_64", CLOUD, machine.root)
    contents = kernels.load(kernel)
    assert (contents.release, contents.image) == (CLOUD, X86)
    assert [file.path for file in contents.modules] == IN_ORDER
    assert contents.modules[0].data == MODULES["kernel/drivers/virtio/virtio_ring.ko"]


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_only_for_its_own_architecture(machine: Machine, arch: str) -> None:
    machine.install(CLOUD)
    if arch == "x86_64":
        assert machine.find(arch).release == CLOUD
    else:
        assert "no Linux kernel for aarch64: none was given" in machine.refusal(arch)


@pytest.mark.parametrize(
    ("releases", "best"),
    [
        (["6.1.0-9-amd64", "6.1.0-10-amd64"], "6.1.0-10-amd64"),
        (["6.12.1-amd64", CLOUD], CLOUD),
        (["5.10.0-9-cloud-amd64", CLOUD], CLOUD),
    ],
)
def test_clouds_first_then_the_newest(machine: Machine, releases: list[str], best: str) -> None:
    for release in releases:
        machine.install(release)
    assert machine.find().release == best


@pytest.mark.parametrize("compress", [lzma.compress, gz])
def test_compressed_modules(machine: Machine, compress: Any) -> None:
    suffix = ".xz" if compress is lzma.compress else ".gz"
    files = {f"{name}{suffix * name.endswith('.ko')}": compress(data) for name, data in MODULES.items()}
    machine.install(CLOUD, files={**files, "modules.builtin": b""})
    modules = kernels.load(machine.find()).modules
    assert [file.path for file in modules] == IN_ORDER
    assert modules[-1].data == MODULES["kernel/drivers/net/virtio_net.ko"]


def test_all_built_in(machine: Machine) -> None:
    drivers = b"kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/net/virtio_net.ko\n"
    machine.install(CLOUD, files={"modules.builtin": drivers})
    assert kernels.load(machine.find()).modules == ()


@pytest.mark.parametrize("lib", ["lib", "usr/lib"])
def test_image_beside_its_modules(machine: Machine, lib: str) -> None:
    """Fedora and Arch keep it there."""
    files = {f"{lib}/modules/6.9/{name}": data for name, data in {**MODULES, "vmlinuz": X86}.items()}
    place(machine.root, files)
    assert kernels.load(machine.find()).image == X86


def test_lib_that_leads_to_usr(machine: Machine) -> None:
    place(machine.root / "usr", {name: data for name, data in installed("6.9").items() if name.startswith("lib")})
    place(machine.root, {"boot/vmlinuz-6.9": X86})
    (machine.root / "lib").symlink_to("usr/lib")
    assert [file.path for file in kernels.load(machine.find()).modules] == IN_ORDER


def test_another_stamp_once_its_files_are_others(machine: Machine) -> None:
    machine.install(CLOUD)
    before = machine.find()
    assert machine.find() == before
    machine.install(CLOUD, X86 + b"x")
    assert machine.find().stamp != before.stamp


# --- the distribution's own cannot be used ---


def test_one_without_the_driver_is_passed_over(machine: Machine) -> None:
    machine.install("6.12.1-cloud-amd64", files={"modules.builtin": b"kernel/drivers/virtio/virtio_pci.ko\n"})
    assert f"{machine.root}: 6.12.1-cloud-amd64 has no virtio_net (" in machine.refusal()
    machine.install("6.11.1-cloud-amd64", files={"modules.order": b""})
    assert f"has no virtio_net; {machine.root}: no modules of 6.11.1-cloud-amd64 in it (" in machine.refusal()
    machine.install(CLOUD)
    assert machine.find().release == CLOUD


def test_one_that_may_not_be_read(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ubuntu's are root's alone, and tests may be root."""
    machine.install("6.8.0-9-generic")
    image = machine.root / "boot/vmlinuz-6.8.0-9-generic"
    readable = Path.open

    def refuse(path: Path, *args: Any, **more: Any) -> Any:
        if path == image:
            raise PermissionError(13, "Permission denied", str(path))
        return readable(path, *args, **more)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("os.access", lambda path, mode: path != image)
    assert f"{image}: Permission denied (sudo chmod +r {image})" in machine.refusal()


def test_removed_kernels_leave_folders_behind(machine: Machine) -> None:
    machine.install("6.9")
    (machine.root / "boot/vmlinuz-6.9").unlink()
    assert f"none with its modules is installed in {machine.root}/boot" in machine.refusal()


@pytest.mark.parametrize(
    ("os_release", "advice"),
    [
        ("ID=debian\n", r"apt-get download the package that `apt-cache depends linux-image-cloud-amd64` names, then"),
        (
            'ID=ubuntu\nID_LIKE="debian"\n',
            r"apt-get download linux-image-unsigned-.*dpkg-deb -x FILE DIR.*--kernel DIR",
        ),
        (
            'ID="rocky"\nID_LIKE="rhel centos fedora"\n',
            r"sudo dnf install kernel-core kernel-modules-core; or download",
        ),
        (
            "ID=other\n",
            r"install this distribution's kernel .* from Debian the package that linux-image-cloud-amd64 depends on",
        ),
        ("", r"install this distribution's kernel"),
    ],
)
def test_the_next_step_by_distribution(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, os_release: str, advice: str
) -> None:
    """For those who have no source tree."""
    monkeypatch.setattr(kernelhelp, "_SCRIPT", machine.folder / "none")
    if os_release:
        machine.is_called(os_release)
    refusal = machine.refusal()
    assert f"none was given (nothing in {machine.kept}); none with its modules is installed in" in refusal
    assert re.search(advice, refusal)


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_next_step_in_a_source_tree(machine: Machine, arch: str) -> None:
    """On Debian only: others have no sources that would bring it."""
    script = Path(kernels.__file__).parents[2] / "scripts" / "kernels.sh"
    machine.is_called("ID=debian\n")
    assert machine.refusal(arch).endswith(f"({script} {arch})")
    machine.is_called("ID=ubuntu\nID_LIKE=debian\n")
    assert str(script) not in machine.refusal(arch)


def test_the_next_step_for_another_architecture(machine: Machine) -> None:
    machine.is_called("ID=ubuntu\nID_LIKE=debian\n")
    assert "linux-image-cloud-arm64 depends on, then coldstart images build --kernel FILE" in machine.refusal("aarch64")


# --- packages ---


@pytest.mark.parametrize(("compress", "suffix"), [(lzma.compress, ".xz"), (gz, ".gz"), (bytes, "")])
def test_a_package(machine: Machine, compress: Any, suffix: str) -> None:
    files = installed("6.1.0-9-cloud-arm64", ARM)
    kernel = kernels.examine(machine.package(deb(files, compress=compress, suffix=suffix)))
    assert (kernel.arch, kernel.release) == ("aarch64", "6.1.0-9-cloud-arm64")
    contents = kernels.load(kernel)
    assert (contents.release, contents.image) == (kernel.release, ARM)
    assert [file.path for file in contents.modules] == IN_ORDER


@pytest.mark.parametrize("package", ["linux-image-unsigned-6.8.0-9-generic", "linux-image-6.8.0-9-generic-unsigned"])
def test_unsigned_is_no_part_of_the_release(machine: Machine, package: str) -> None:
    path = machine.package(deb({}, package=package))
    assert kernels.examine(path).release == "6.8.0-9-generic"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a Debian package, or a damaged one: it does not begin like one"),
        (b"\x7fELF" * 30, "not a Debian package"),
        (deb({}, package="bash"), "the package 'bash' is no Linux kernel (give a Debian package linux-image-RELEASE"),
        (deb({}, architecture="riscv64"), "a kernel for 'riscv64' (give one for amd64 and arm64)"),
        (deb({})[:72], "not a Debian package, or a damaged one: no control.tar in it"),
    ],
)
def test_packages_that_are_refused(machine: Machine, data: bytes, says: str) -> None:
    path = machine.package(data)
    with pytest.raises(ImageError) as caught:
        kernels.examine(path)
    assert f"{path}: {says}" in str(caught.value)


NO_PCI = {name: data for name, data in MODULES.items() if "virtio_pci" not in name}
NO_RING = {name: data for name, data in MODULES.items() if "virtio_ring" not in name}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no vmlinuz-RELEASE in it (a package that only depends on a kernel's?"),
        (installed("6.1", ARM, {}), "no modules of 6.1 in it (Ubuntu's are in linux-modules-RELEASE"),
        (installed("6.1", ARM, NO_PCI), "6.1 has no virtio_pci"),
        (installed("6.1", ARM, NO_RING), "the module virtio_ring, which others need, is missing"),
        (installed("6.1", X86), "vmlinuz-6.1 is for x86_64, not for aarch64"),
        (installed("6.1", b"?" * 1000), "vmlinuz-6.1 is for an unknown architecture"),
    ],
)
def test_packages_that_lack_something(machine: Machine, files: dict[str, bytes], says: str) -> None:
    """And none of them is kept."""
    path = machine.package(deb(files))
    with pytest.raises(ImageError) as caught:
        kernels.keep(path, machine.kept)
    assert f"{path}: {says}" in str(caught.value)
    assert not machine.kept.exists()


WHOLE = deb(installed("6.1.0-9-cloud-arm64", ARM))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, len(WHOLE) - 1), position=st.integers(0, len(WHOLE) - 1))
def test_damaged_packages(machine: Machine, length: int, position: int) -> None:
    """Cut short or overwritten anywhere: an answer or an ImageError, nothing else."""
    overwritten = WHOLE[:position] + bytes([WHOLE[position] ^ 0xFF]) + WHOLE[position + 1 :]
    for damaged in (WHOLE[:length], overwritten):
        try:
            kernels.load(kernels.examine(machine.package(damaged)))
        except ImageError:
            pass


# --- keeping ---


def test_a_kept_package_is_preferred(machine: Machine) -> None:
    machine.install("7.0-cloud-amd64")
    files = installed(CLOUD)
    kept = kernels.keep(machine.package(deb(files, package=f"linux-image-{CLOUD}", architecture="amd64")), machine.kept)
    assert machine.find() == kept
    assert kept.source == machine.kept / "x86_64.deb"
    assert kernels.load(kept).release == CLOUD
    assert [path.name for path in machine.kept.iterdir()] == ["x86_64.deb"]


def test_the_last_one_given_counts(machine: Machine) -> None:
    """A package, then a folder, then a package: there is never more than one for an architecture."""
    package = machine.package(deb(installed("6.1", ARM), package="linux-image-6.1"))
    folder = place(machine.folder / "tree", installed("6.2", ARM))
    for source, release in ((package, "6.1"), (folder, "6.2"), (package, "6.1")):
        kernels.keep(source, machine.kept)
        assert machine.find("aarch64").release == release
        assert kernels.load(machine.find("aarch64")).release == release
        assert len(list(machine.kept.iterdir())) == 1


def test_a_folder_without_a_kernel(machine: Machine) -> None:
    with pytest.raises(ImageError, match=r"root: no boot/vmlinuz-RELEASE with lib/modules/RELEASE in it \(give a"):
        kernels.keep(machine.root, machine.kept)


def test_nothing_there(machine: Machine) -> None:
    with pytest.raises(ImageError, match=r"none\.deb: No such file or directory \(name a file that can be read"):
        kernels.keep(machine.folder / "none.deb", machine.kept)


def test_a_link_to_a_folder_that_has_gone(machine: Machine) -> None:
    kernels.keep(place(machine.folder / "tree", installed("6.2", ARM)), machine.kept)
    (machine.folder / "tree").rename(machine.folder / "elsewhere")
    assert f"{machine.kept}/aarch64: " in machine.refusal("aarch64")


def test_kept_under_the_wrong_name(machine: Machine) -> None:
    place(machine.kept, {"x86_64.deb": WHOLE})
    assert f"{machine.kept}/x86_64.deb: a kernel for aarch64, not for x86_64 (remove it)" in machine.refusal()


def test_no_place_to_keep_it(machine: Machine) -> None:
    blocked = place(machine.folder, {"file": b""}) / "file"
    with pytest.raises(ImageError, match=r"Not a directory \(set XDG_DATA_HOME to a folder you may write"):
        kernels.keep(machine.package(WHOLE), blocked / "kept")


@pytest.mark.parametrize(("value", "where"), [("/data", "/data"), ("", "~/.local/share"), ("rel", "~/.local/share")])
def test_where_they_are_kept(monkeypatch: pytest.MonkeyPatch, value: str, where: str) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", value)
    assert kernels.default_folder() == Path(where).expanduser() / "coldstart" / "kernels"


# --- images ---


def zboot(image: bytes) -> bytes:
    packed = gzip.compress(image)
    return b"MZ\0\0zimg" + struct.pack("<II", 64, len(packed)) + bytes(48) + packed + b"tail"


@pytest.mark.parametrize("wrap", [bytes, gzip.compress, zboot])
def test_an_arm_kernel_however_it_is_wrapped(machine: Machine, wrap: Any) -> None:
    folder = place(machine.folder / "tree", installed("6.2", wrap(ARM)))
    assert kernels.load(kernels.examine(folder)).image == ARM
    assert kernels.examine(folder).arch == "aarch64"


def test_images_that_are_none() -> None:
    for data in (b"", b"MZ", bytes(4096), module("x")):
        assert kernelimage.architecture(data) == ""
