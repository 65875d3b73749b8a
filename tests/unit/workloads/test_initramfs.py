"""The initramfs, read back by a reader of our own. The kernel reads it in tests/live/test_hello_vm.py."""

from __future__ import annotations

import stat
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from coldstart.archive import File
from coldstart.workloads import initramfs

names = st.text("abc-._", min_size=1, max_size=8).filter(lambda name: name not in (".", ".."))
# A file is never a folder as well: names of files end in what no folder has.
paths = st.builds(lambda folders, name: "/".join([*folders, f"{name}x"]), st.lists(names, max_size=3), names)
files = st.lists(
    st.builds(File, paths, st.binary(max_size=40), st.sampled_from([0o644, 0o755])), unique_by=lambda file: file.path
)


@dataclass(frozen=True)
class Member:
    name: str
    number: int
    mode: int
    time: int
    data: bytes
    device: tuple[int, int]


def read(archive: bytes) -> list[Member]:
    """As Documentation/driver-api/early-userspace/buffer-format.rst of the kernel says."""
    members, at = [], 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        number, mode, _, _, _, time, size, _, _, major, minor, name_size, _ = fields
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        at += -(-(110 + name_size) // 4) * 4
        data = archive[at : at + size]
        at += -(-size // 4) * 4
        if name == b"TRAILER!!!\0":
            assert set(archive[at:]) <= {0}
            return members
        members.append(Member(name[:-1].decode(), number, mode, time, data, (major, minor)))


@given(files)
def test_what_is_packed_is_there(given: list[File]) -> None:
    archive = initramfs.pack(given)
    members = read(archive)
    assert len(archive) % 512 == 0
    regular = {m.name: (m.data, stat.S_IMODE(m.mode)) for m in members if stat.S_ISREG(m.mode)}
    assert regular == {file.path: (file.data, file.mode) for file in given}
    console = next(member for member in members if member.name == "dev/console")
    assert stat.S_ISCHR(console.mode)
    assert console.device == (5, 1)


@given(files)
def test_folders_come_before_what_they_hold(given: list[File]) -> None:
    """The kernel makes no missing folders: it would leave out the file without a word."""
    seen = {""}
    for member in read(initramfs.pack(given)):
        assert member.name.rpartition("/")[0] in seen
        assert member.name not in seen
        if stat.S_ISDIR(member.mode):
            seen.add(member.name)


@given(files, st.randoms(use_true_random=False))
def test_same_files_same_bytes(given: list[File], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(given)
    random.shuffle(shuffled)
    archive = initramfs.pack(given)
    assert initramfs.pack(shuffled) == archive
    members = read(archive)
    assert [member.number for member in members] == list(range(1, len(members) + 1))
    assert {member.time for member in members} == {0}


def test_order_and_modes() -> None:
    members = read(initramfs.pack([File("modules/a.ko", b"yz"), File("init", b"x", 0o755)]))
    assert [(member.name, stat.filemode(member.mode)) for member in members] == [
        ("dev", "drwxr-xr-x"),
        ("dev/console", "crw-------"),
        ("init", "-rwxr-xr-x"),
        ("modules", "drwxr-xr-x"),
        ("modules/a.ko", "-rw-r--r--"),
    ]
