"""The store keeps every boot exactly once, through kills and full disks, and refuses what is not its own."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coldstart.agent.records import MARKS
from coldstart.errors import StoreError, UsageError
from coldstart.model import Boot, Load, Order, Plan, Run, Trial
from coldstart.schema import APPLICATION_ID, BOOT_COLUMNS, MIGRATIONS
from coldstart.store import Store, default_path, filesystem_of, new_run_id

RUN = Run(id="20261122-184530-3fa9", playbook="quick", seed=7, started_ns=1_000, version="0.1.0")
TRIALS = (
    Trial(0, "vm1", "cloud", "process", "process", "warm", Load(boots=3)),
    Trial(1, "vm1", "cloud", "container", "docker", "warm", Load(boots=3)),
)
ORDERS = tuple(Order(t.id, index, t.target) for index in range(3) for t in TRIALS)
PLAN = Plan(seed=7, trials=TRIALS, orders={"vm1": ORDERS})


def a_boot(trial: int = 0, index: int = 0, **changes: object) -> Boot:
    boot = Boot(
        trial=trial,
        index=index,
        outcome="ok",
        detail="",
        marks_ns={mark: 1_000_000 * (at + 1) for at, mark in enumerate(MARKS) if mark != "guest"},
        resolution_ns=150_000,
        planned_ns=5,
        achieved_ns=9,
        memory_bytes={"pss": 4096},
        cache_bytes={"files": 10, "before": 10, "start": 0},
        flags=("disturbed:steal",),
    )
    return dataclasses.replace(boot, **changes)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some" / "where" / "coldstart.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path) as store:
        store.begin(RUN, "name: quick\n", "all: {}\n", PLAN)
        yield store


def test_what_goes_in_comes_out(store: Store) -> None:
    """A boot is read back equal to what was added, with its trial and what the node said of it."""
    store.describe(RUN.id, 0, arch="x86_64", labels={"net": "tap"}, image_bytes=10, transfer_bytes=20)
    assert store.add(RUN.id, a_boot())
    cells = store.cells(RUN.id)
    assert [cell.trial for cell in cells] == list(TRIALS)
    assert cells[0].boots == (a_boot(),)
    assert (cells[0].arch, cells[0].labels, cells[0].image_bytes) == ("x86_64", {"net": "tap"}, 10)
    assert cells[1].boots == ()
    [(cell, boot)] = store.boots(RUN.id)
    assert (cell.trial, cell.boots, boot) == (TRIALS[0], (), a_boot())
    assert store.texts(RUN.id) == ("name: quick\n", "all: {}\n")


def test_absent_marks_and_odd_text_survive(store: Store) -> None:
    """A failed boot without marks, with text that is not valid Unicode, is a row like any other."""
    boot = Boot(trial=1, index=2, outcome="error:exited", detail="code 1: \ud800 | 'quoted'\n")
    store.add(RUN.id, boot)
    read = store.cells(RUN.id)[1].boots[0]
    assert (read.marks_ns, read.resolution_ns, read.detail) == ({}, None, "code 1: ? | 'quoted'\n")
    assert not store.add(RUN.id, boot)


def test_a_boot_is_stored_exactly_once(store: Store) -> None:
    """The same boot again is ignored; another one in its place is refused and changes nothing."""
    assert store.add(RUN.id, a_boot())
    assert not store.add(RUN.id, a_boot())
    with pytest.raises(StoreError, match="run 20261122-184530-3fa9, trial 0 already has another boot 0"):
        store.add(RUN.id, a_boot(detail="not the same"))
    assert next(store.boots(RUN.id))[1] == a_boot()
    assert store.done(RUN.id) == {(0, 0)}


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "fine"},
        {"outcome": "error:"},
        {"index": -1},
        {"marks_ns": {"ready": -1}},
        {"marks_ns": {"ready": 0.5}},
        {"marks_ns": {"created": 1}},  # ok, but never ready
        {"marks_ns": {"ready": 2**70}},
        {"marks_ns": {"ready": 1, "lunch": 2}},
        {"resolution_ns": -1},
        {"planned_ns": "soon"},
        {"trial": 9},
    ],
    ids=str,
)
def test_impossible_boots_are_refused(store: Store, changes: dict[str, object]) -> None:
    """What cannot be true never gets into the file, and the message names the store."""
    with pytest.raises(StoreError, match=r"coldstart\.db"):
        store.add(RUN.id, a_boot(**changes))
    assert store.done(RUN.id) == set()


def test_every_mark_has_a_column() -> None:
    """A mark added to the agent without a migration would be lost: this test says so first."""
    assert {f"{mark}_ns" for mark in MARKS} <= set(BOOT_COLUMNS.split(", "))
    assert all(f"{mark}_ns INTEGER" in "".join(MIGRATIONS) for mark in MARKS)


def test_runs_are_listed_newest_first_with_their_counts(store: Store) -> None:
    """A run shows how many boots it has and how many failed; one that nobody finished shows as running."""
    later = dataclasses.replace(RUN, id="20261123-000000-0000", started_ns=2_000)
    store.begin(later, "", "", PLAN)
    store.add(RUN.id, a_boot())
    store.add(RUN.id, a_boot(index=1, outcome="timeout", marks_ns={}))
    store.finish(RUN.id, "failed")
    newest, oldest = store.runs()
    assert (newest.id, newest.state, newest.boots, newest.finished_ns) == (later.id, "running", 0, None)
    assert (oldest.state, oldest.boots, oldest.failed) == ("failed", 2, 1)
    assert oldest.finished_ns is not None
    store.resume(RUN.id)
    assert store.find(RUN.id).state == "running"


def test_a_run_is_found_by_latest_id_or_prefix(store: Store) -> None:
    """An ambiguous or unknown reference lists what could have been meant."""
    store.begin(dataclasses.replace(RUN, id="20261122-184530-4000", started_ns=2_000), "", "", PLAN)
    assert store.find("latest").id == "20261122-184530-4000"
    assert store.find("20261122-184530-3").id == RUN.id
    with pytest.raises(UsageError, match=r"names several runs.*20261122-184530-4000, 20261122-184530-3fa9"):
        store.find("2026")
    with pytest.raises(UsageError, match=r"'x' names no run.*choose from"):
        store.find("x")
    with pytest.raises(UsageError, match="names no run"):
        store.texts("x")


def test_an_exact_id_wins_over_a_longer_one(store: Store) -> None:
    """A run whose id begins another's can still be named."""
    store.begin(dataclasses.replace(RUN, id=RUN.id + "x"), "", "", PLAN)
    assert store.find(RUN.id).id == RUN.id


def test_an_empty_store_says_what_to_do(path: Path) -> None:
    """`latest` of nothing is an error with the next step."""
    with Store.open(path) as store, pytest.raises(UsageError, match="coldstart sweep"):
        store.find("latest")


def test_long_lists_of_candidates_are_cut(store: Store) -> None:
    """Ten runs do not fill the screen."""
    for number in range(9):
        store.begin(dataclasses.replace(RUN, id=f"2027-{number}"), "", "", PLAN)
    with pytest.raises(UsageError, match="and 5 more: coldstart runs"):
        store.find("zzz")


def test_a_resumed_run_keeps_what_was_sent(store: Store) -> None:
    """The first attempt's transfer is the true one; a reason to skip is gone once the trial was prepared."""
    store.describe(RUN.id, 0, arch="x86_64", labels={}, image_bytes=10, transfer_bytes=700)
    store.skip(RUN.id, 0, "no engine")
    assert store.cells(RUN.id)[0].skipped == "no engine"
    store.describe(RUN.id, 0, arch="x86_64", labels={}, image_bytes=10, transfer_bytes=0)
    assert store.cells(RUN.id)[0].transfer_bytes == 700
    assert store.cells(RUN.id)[0].skipped == ""


def test_node_facts_are_kept_per_node(store: Store) -> None:
    """A later finding replaces an earlier one."""
    store.node_facts(RUN.id, "vm1", {"cpus": 2})
    store.node_facts(RUN.id, "vm1", {"cpus": 4, "kvm": False})
    assert store.facts(RUN.id) == {"vm1": {"cpus": 4, "kvm": False}}


def test_what_does_not_exist_cannot_be_changed(store: Store) -> None:
    """An unknown run, trial or state is an error, never a silent nothing."""
    for change in (
        lambda: store.finish("nobody", "finished"),
        lambda: store.finish(RUN.id, "lost"),
        lambda: store.skip(RUN.id, 9, "why"),
        lambda: store.begin(RUN, "", "", PLAN),
    ):
        with pytest.raises(StoreError):
            change()


def test_a_refused_begin_leaves_nothing(store: Store) -> None:
    """A run is there with all its trials or not at all."""
    twice = Plan(seed=1, trials=(TRIALS[0], TRIALS[0]), orders={})
    with pytest.raises(StoreError):
        store.begin(dataclasses.replace(RUN, id="other"), "", "", twice)
    assert [run.id for run in store.runs()] == [RUN.id]


def test_reading_while_another_handle_writes(store: Store, path: Path) -> None:
    """A reader sees each boot as soon as `add` returned, cannot write, and never disturbs the writer."""
    with Store.open(path, readonly=True) as reader:
        for index in range(3):
            store.add(RUN.id, a_boot(index=index))
            assert len(reader.done(RUN.id)) == index + 1
        half_read = reader.boots(RUN.id)
        next(half_read)
        store.add(RUN.id, a_boot(trial=1))
        with pytest.raises(StoreError, match="readonly"):
            reader.add(RUN.id, a_boot(trial=1, index=1))


def test_reading_needs_a_store(path: Path) -> None:
    """Before the first sweep there is a clear message, and reading creates nothing."""
    with pytest.raises(StoreError, match=r"no store at .*coldstart\.db yet .*coldstart sweep"):
        Store.open(path, readonly=True)
    assert not path.parent.exists()


def test_an_empty_file_is_migrated_but_not_by_a_reader(tmp_path: Path) -> None:
    """user_version 0 becomes the current one by opening it for writing."""
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(StoreError, match="empty or older"):
        Store.open(path, readonly=True)
    Store.open(path).close()
    assert pragma(path, "user_version") == len(MIGRATIONS)
    assert pragma(path, "application_id") == APPLICATION_ID
    Store.open(path).close()


def test_a_broken_migration_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrations are one transaction: after a failure the file is as it was."""
    monkeypatch.setattr("coldstart.store.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE more (x); CREATE TABLE runs (x)"))
    path = tmp_path / "half.db"
    with pytest.raises(StoreError, match="runs already exists"):
        Store.open(path)
    assert pragma(path, "user_version") == 0
    monkeypatch.undo()
    Store.open(path).close()
    assert pragma(path, "user_version") == len(MIGRATIONS)


def test_an_older_store_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next migration runs on what is there."""
    path = tmp_path / "old.db"
    with Store.open(path) as store:
        store.begin(RUN, "", "", PLAN)
    monkeypatch.setattr("coldstart.store.MIGRATIONS", (*MIGRATIONS, "ALTER TABLE runs ADD COLUMN note TEXT"))
    with Store.open(path) as store:
        assert [run.id for run in store.runs()] == [RUN.id]
    assert pragma(path, "user_version") == len(MIGRATIONS) + 1


def test_a_newer_store_is_refused(store: Store, path: Path) -> None:
    """Its meaning is unknown: nothing is read from it."""
    pragma(path, f"user_version={len(MIGRATIONS) + 1}")
    for readonly in (False, True):
        with pytest.raises(StoreError, match="upgrade coldstart"):
            Store.open(path, readonly=readonly)


@pytest.mark.parametrize("readonly", [False, True])
def test_foreign_files_are_refused_and_not_touched(tmp_path: Path, readonly: bool) -> None:
    """Another program's database, a text file, a directory: named, with --store FILE as the next step."""
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE bookmarks (url)")
    connection.close()
    text = tmp_path / "notes.txt"
    text.write_text("shopping: milk\n" * 100)
    for path in (other, text, tmp_path):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(StoreError, match=r"--store FILE") as caught:
            Store.open(path, readonly=readonly)
        assert str(path) in caught.value.message
        assert caught.value.exit_code == 2
        assert not path.is_file() or path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["notes.txt", "other.db"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file where a folder should be is the user's to solve, not a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="Not a directory"):
        Store.open(tmp_path / "file" / "deeper" / "coldstart.db")


def test_folders_are_private(store: Store, path: Path) -> None:
    """Inventories may tell of hosts: the folders made for them are for their owner only."""
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.parent.parent.stat().st_mode & 0o777 == 0o700


def test_a_full_store_says_so_and_keeps_what_it_has(store: Store) -> None:
    """When there is no room, every boot whose `add` returned is still there."""
    store._connection.execute("PRAGMA max_page_count=20")
    stored, error = add_until_refused(store)
    assert "full" in error
    assert "make room" in error
    assert 0 < stored == len(store.done(RUN.id))


@pytest.mark.live
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    """The same on a real disk that is really full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(disk)], check=True)
    try:
        with Store.open(disk / "coldstart.db") as store:
            store.begin(RUN, "", "", PLAN)
            stored, error = add_until_refused(store)
            assert "make room" in error
            assert 0 < stored == len(store.done(RUN.id))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


ADDER = """
import sys
from coldstart.model import Boot
from coldstart.store import Store
with Store.open(sys.argv[1]) as store:
    for index in range(100_000):
        store.add(sys.argv[2], Boot(trial=0, index=index, outcome="ok", marks_ns={"ready": 1}))
        print(index, flush=True)
"""


def test_a_killed_writer_loses_nothing_it_reported(store: Store, path: Path) -> None:
    """kill -9 in the middle of writing: every boot whose `add` returned is in the file."""
    child = subprocess.Popen([sys.executable, "-c", ADDER, str(path), RUN.id], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout as lines:
        reported = {int(next(lines)) for _ in range(100)}
        os.kill(child.pid, signal.SIGKILL)
        reported |= {int(line) for line in lines if line.endswith("\n")}
    assert child.wait() == -signal.SIGKILL
    assert reported <= {index for _, index in store.done(RUN.id)}
    assert len(reported) >= 100


def test_a_locked_store_is_waited_for_then_named(store: Store, path: Path) -> None:
    """Another writer that never ends is an error with the next step."""
    store._connection.execute("PRAGMA busy_timeout=1")
    blocker = sqlite3.connect(path, isolation_level=None)
    try:
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"locked.*another process"):
            store.add(RUN.id, a_boot())
    finally:
        blocker.close()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/x.db", "ext4"),
        ("/mnt/share/x.db", "nfs4"),
        ("/mnt/shared/x.db", "ext4"),
        ("/mnt/my share/x.db", "cifs"),
        ("/over/x.db", "tmpfs"),
    ],
)
def test_the_file_system_is_the_longest_mount_point(path: str, kind: str) -> None:
    """Whole components count, escapes are undone, a later mount hides an earlier one; short lines are passed over."""
    mounts = (
        "/dev/vda / ext4 rw 0 0\nnas:/x /mnt/share nfs4 rw 0 0\n//nas/y /mnt/my\\040share cifs rw 0 0\n"
        "broken\nnas:/z /over nfs rw 0 0\nnone /over tmpfs rw 0 0\n"
    )
    assert filesystem_of(path, mounts) == kind
    assert filesystem_of(path, "") == ""


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "ceph", "glusterfs"])
def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Their locks lose data; the type is named."""
    monkeypatch.setattr("coldstart.store.filesystem_of", lambda path, mounts: kind)
    with pytest.raises(StoreError, match=f"network file system \\({kind}\\)"):
        Store.open(tmp_path / "x.db")


@pytest.mark.parametrize("kind", ["ext4", "9p", "overlay", "fuse.gocryptfs", "btrfs", ""])
def test_local_file_systems_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """9p too: some virtual machines have their own disk through it."""
    monkeypatch.setattr("coldstart.store.filesystem_of", lambda path, mounts: kind)
    Store.open(tmp_path / "x.db").close()


def test_a_file_system_without_shared_memory_is_refused(tmp_path: Path) -> None:
    """WAL is needed; SQLite silently takes another journal where it cannot have it, as in memory."""
    store = Store(tmp_path / "x.db", sqlite3.connect(":memory:", isolation_level=None))
    with store, pytest.raises(StoreError, match="cannot do WAL"):
        store._accept(readonly=False)


def test_a_store_on_a_read_only_medium_can_be_read(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archived store has no room for SQLite's helper files: none are made."""
    store.add(RUN.id, a_boot())
    store.close()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, who may run this, can write everywhere
    with Store.open(path, readonly=True) as reader:
        assert reader.done(RUN.id) == {(0, 0)}
        assert [entry.name for entry in path.parent.iterdir()] == ["coldstart.db"]


def test_without_proc_mounts_any_place_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every controller is a Linux."""
    monkeypatch.setattr("coldstart.store.MOUNTS", tmp_path / "absent")
    Store.open(tmp_path / "x.db").close()


def test_the_default_path_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_STATE_HOME if absolute, else ~/.local/state."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "coldstart" / "coldstart.db"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_path() == Path("/home/me/.local/state/coldstart/coldstart.db")


def test_run_ids_sort_by_time_and_differ() -> None:
    """UTC, to the second, with a random end."""
    assert new_run_id(1_795_373_130_000_000_000).startswith("20261122-184530-")
    assert new_run_id(0) < new_run_id(10**9) < new_run_id()
    assert len({new_run_id(0) for _ in range(10)}) > 1


def test_the_store_imports_no_numpy() -> None:
    """The command line opens the store at its start; numpy would cost it a tenth of a second."""
    code = "import sys, coldstart.store; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def pragma(path: Path, name: str) -> int:
    connection = sqlite3.connect(path)
    try:
        [value] = connection.execute(f"PRAGMA {name}").fetchone() or (0,)
        return int(value)
    finally:
        connection.commit()
        connection.close()


def add_until_refused(store: Store) -> tuple[int, str]:
    """How many boots went in, and what was said then."""
    for index in range(100_000):
        try:
            store.add(RUN.id, a_boot(index=index))
        except StoreError as error:
            return index, str(error)
    raise AssertionError("never full")
