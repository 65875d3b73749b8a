"""The store: one SQLite file, one row per boot, durable before `add` returns. Results and journal in one.

Mechanism. WAL, so that readers never wait for the writer; `synchronous=FULL`, so that a row survives a power cut;
one transaction per boot. The key `(run, trial, index)` makes a boot exactly-once: the same row again is ignored,
another one under that key is an error. `application_id` marks the file as ours, `user_version` numbers its schema:
an older one is migrated in one transaction, a newer one is refused. Only raw rows are kept; summaries are derived.

Limits. One machine: WAL needs shared memory, so network file systems are refused. A run whose controller was
killed stays `running` here: nothing else knows better. Foreign exceptions leave this file as StoreError only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from coldstart.errors import StoreError, UsageError
from coldstart.model import Boot, Cell, Plan, Push, Run, WaveStart
from coldstart.schema import (
    APPLICATION_ID,
    BOOT_COLUMNS,
    MIGRATIONS,
    PUSH_COLUMNS,
    TRIAL_COLUMNS,
    WAVE_COLUMNS,
    boot_of,
    boot_row,
    cell_of,
    to_text,
    trial_row,
)

MOUNTS = Path("/proc/mounts")
_NETWORK = re.compile(r"nfs|cifs|smb|ceph|glusterfs|fuse\.(sshfs|glusterfs|ceph)")
_NO_ROOM = "make room, or name another file with --store FILE"
_HINTS = {
    sqlite3.SQLITE_FULL: _NO_ROOM,
    sqlite3.SQLITE_IOERR: _NO_ROOM,  # a full disk also shows as a failed write of the WAL's index
    sqlite3.SQLITE_READONLY: "make the file and its folder writable, or name another with --store FILE",
    sqlite3.SQLITE_CANTOPEN: "check the folder's permissions, or name another with --store FILE",
    sqlite3.SQLITE_BUSY: "another process has held it for 10 s: let it end, or name another with --store FILE",
    sqlite3.SQLITE_CORRUPT: "keep a copy, try `sqlite3 FILE .recover`, and name another with --store FILE",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite file: name another with --store FILE",
    sqlite3.SQLITE_CONSTRAINT: "what should be stored is invalid: please report it",
}


def default_path() -> Path:
    """Where the store is unless the user says otherwise."""
    state = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a relative path here is invalid and to be ignored.
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "coldstart" / "coldstart.db"


def new_run_id(now_ns: int | None = None) -> str:
    """Sorts by time (UTC), short enough for names on a node, and two in one second still differ."""
    seconds = (time.time_ns() if now_ns is None else now_ns) // 1_000_000_000
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(seconds))}-{secrets.token_hex(2)}"


def filesystem_of(path: str, mounts: str) -> str:
    """The type of the file system that holds an absolute path, from the text of /proc/mounts; empty if unknown."""
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[1])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # equal length: mounted over the earlier one
            best, kind = point, fields[2]
    return kind


class Store:
    """An open store; a context manager. Open it with `Store.open`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: str | Path, *, readonly: bool = False) -> Store:
        """Open, create or migrate the store at `path`. StoreError if that is not to be had."""
        path = Path(path).expanduser().resolve()
        with _translated(path):
            _check_place(path, readonly)
            store = cls(path, _connect(path, readonly))
        try:
            store._accept(readonly)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # -- writing ------------------------------------------------------------------------------------------------

    def begin(self, run: Run, playbook_text: str, inventory_text: str, plan: Plan) -> None:
        """Record a run and all its trials, before any node is touched."""
        planned = Counter(order.trial for orders in plan.orders.values() for order in orders)
        row = (run.id, run.playbook, playbook_text, inventory_text, run.seed, run.version, run.started_ns, run.state)
        columns = "id, playbook, playbook_text, inventory_text, seed, version, started_ns, state"
        with self._transaction():
            self._connection.execute(f"INSERT INTO runs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._connection.executemany(
                "INSERT INTO trials (run, trial, node, site, target, runtime, start, load, planned)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [trial_row(run.id, trial, planned[trial.id]) for trial in plan.trials],
            )

    def resume(self, run: str) -> None:
        """A run goes on: `running` again."""
        self._update("runs", "state = 'running', finished_ns = NULL", (), "id = ?", (run,))

    def finish(self, run: str, state: str) -> None:
        """A run has ended as `finished`, `failed` or `interrupted`."""
        self._update("runs", "state = ?, finished_ns = ?", (state, time.time_ns()), "id = ?", (run,))

    def describe(
        self,
        run: str,
        trial: int,
        *,
        arch: str,
        labels: Mapping[str, str],
        image_bytes: int | None = None,
        transfer_bytes: int | None = None,
    ) -> None:
        """What the node said of a trial when it was prepared."""
        # A resumed run sends nothing for an image that is there: what the first attempt sent stays.
        changes = "arch = ?, labels = ?, image_bytes = ?, transfer_bytes = coalesce(transfer_bytes, ?), skipped = ''"
        values = (arch, to_text(labels), image_bytes, transfer_bytes)
        self._update("trials", changes, values, "run = ? AND trial = ?", (run, trial))

    def skip(self, run: str, trial: int, reason: str) -> None:
        """A trial is not run, and why."""
        self._update("trials", "skipped = ?", (reason,), "run = ? AND trial = ?", (run, trial))

    def node_facts(self, run: str, node: str, facts: Mapping[str, Any]) -> None:
        """What was found on a node; a later finding replaces an earlier one."""
        statement = (
            "INSERT INTO nodes (run, node, facts) VALUES (?, ?, ?)"
            " ON CONFLICT (run, node) DO UPDATE SET facts = excluded.facts"
        )
        with _translated(self.path):
            self._connection.execute(statement, (run, node, to_text(facts)))

    def node_lost(self, run: str, node: str, reason: str) -> None:
        """Why a node ended early; empty: it did not."""
        statement = (
            "INSERT INTO nodes (run, node, facts, lost) VALUES (?, ?, '{}', ?)"
            " ON CONFLICT (run, node) DO UPDATE SET lost = excluded.lost"
        )
        with _translated(self.path):
            self._connection.execute(statement, (run, node, reason))

    def add_start(self, run: str, start: WaveStart) -> None:
        """How a node started a wave."""
        values = (run, *dataclasses.astuple(start))
        with _translated(self.path):
            self._connection.execute(
                f"INSERT OR REPLACE INTO waves (run, {WAVE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values
            )

    def add_push(self, run: str, push: Push) -> None:
        """An image came to a node."""
        values = (run, *dataclasses.astuple(push))
        with _translated(self.path):
            self._connection.execute(f"INSERT INTO pushes (run, {PUSH_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def add(self, run: str, boot: Boot) -> bool:
        """Store a boot, durably. False if that very boot was there; StoreError if another one has its place."""
        row = self._row(run, boot)
        marks = ", ".join("?" * len(row))
        with _translated(self.path):
            try:
                statement = f"INSERT INTO boots ({BOOT_COLUMNS}, recorded_ns) VALUES ({marks}, ?)"
                self._connection.execute(statement, (*row, time.time_ns()))
            except sqlite3.IntegrityError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
                    raise
            else:
                return True
        return self._refuse_other(row)

    # -- reading ------------------------------------------------------------------------------------------------

    def runs(self) -> list[Run]:
        """Every run, newest first, with its number of boots and of those that failed."""
        rows = self._rows(
            "SELECT id, playbook, seed, started_ns, finished_ns, state, version, coalesce(n, 0), coalesce(failed, 0)"
            " FROM runs LEFT JOIN (SELECT run, count(*) AS n, sum(outcome <> 'ok') AS failed FROM boots GROUP BY run)"
            " ON run = id ORDER BY started_ns DESC, id DESC"
        )
        return [Run(*row) for row in rows]

    def find(self, reference: str) -> Run:
        """The run that `latest`, an id or the unique beginning of one names. UsageError lists what there is."""
        runs = self.runs()
        if reference == "latest":
            matches = runs[:1]
        else:
            matches = [run for run in runs if run.id == reference] or [r for r in runs if r.id.startswith(reference)]
        if len(matches) == 1:
            return matches[0]
        problem = "names several runs" if matches else "names no run"
        raise UsageError(f"run {reference!r} {problem} in {self.path}", hint=_candidates(matches or runs))

    def texts(self, run: str) -> tuple[str, str]:
        """The playbook and the inventory of a run, as they were."""
        rows = list(self._rows("SELECT playbook_text, inventory_text FROM runs WHERE id = ?", (run,)))
        if not rows:
            raise UsageError(f"run {run!r} names no run in {self.path}", hint="list them: coldstart runs")
        return (str(rows[0][0]), str(rows[0][1]))

    def cells(self, run: str) -> list[Cell]:
        """Every trial of a run with all its boots, in the order of the plan."""
        boots: dict[int, list[Boot]] = {}
        cells = self._trials(run)
        for row in self._boot_rows(run):
            boots.setdefault(row[1], []).append(boot_of(row))
        return [dataclasses.replace(cell, boots=tuple(boots.get(id, ()))) for id, cell in cells.items()]

    def boots(self, run: str) -> Iterator[tuple[Cell, Boot]]:
        """Every boot of a run with its cell (which has no boots here), one at a time: memory does not grow."""
        cells = self._trials(run)
        for row in self._boot_rows(run):
            yield cells[row[1]], boot_of(row)

    def done(self, run: str) -> set[tuple[int, int]]:
        """`(trial, index)` of every boot that is stored: what a resumed run need not do again."""
        return set(self._rows("SELECT trial, idx FROM boots WHERE run = ?", (run,)))

    def facts(self, run: str) -> dict[str, dict[str, Any]]:
        """Per node, what was found on it."""
        rows = self._rows("SELECT node, facts FROM nodes WHERE run = ?", (run,))
        return {node: json.loads(facts) for node, facts in rows}

    def lost(self, run: str) -> dict[str, str]:
        """Nodes that ended early, and why."""
        return dict(self._rows("SELECT node, lost FROM nodes WHERE run = ? AND lost <> ''", (run,)))

    def starts(self, run: str) -> list[WaveStart]:
        """How the nodes started every wave."""
        rows = self._rows(f"SELECT {WAVE_COLUMNS} FROM waves WHERE run = ? ORDER BY wave, node", (run,))
        return [WaveStart(*row) for row in rows]

    def pushes(self, run: str) -> list[Push]:
        """What images came to which nodes, in that order."""
        rows = self._rows(f"SELECT {PUSH_COLUMNS} FROM pushes WHERE run = ? ORDER BY id", (run,))
        return [Push(*row) for row in rows]

    # -- inside -------------------------------------------------------------------------------------------------

    def _accept(self, readonly: bool) -> None:
        """Make sure that the file is ours and current; nothing is written to one that is not."""
        version = self._version()
        if version < len(MIGRATIONS) and readonly:
            problem = f"store {self.path} is empty or older than this coldstart"
            raise StoreError(problem, hint="run `coldstart sweep` once")
        if version == len(MIGRATIONS):
            return
        with _translated(self.path):
            mode = self._connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(f"store {self.path}: its file system cannot do WAL", hint="name another with --store FILE")
        with self._transaction():
            # Asked again: another process may have migrated it since.
            for script in MIGRATIONS[self._version() :]:
                for statement in script.split(";"):
                    self._connection.execute(statement)
            self._connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            self._connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")

    def _version(self) -> int:
        [(owner, version, tables)] = self._rows(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
            " FROM pragma_application_id, pragma_user_version"
        )
        if owner != APPLICATION_ID and (owner or version or tables):
            raise StoreError(f"{self.path} is another program's database", hint="name another file with --store FILE")
        if version > len(MIGRATIONS):
            problem = f"store {self.path} has version {version}, this coldstart knows {len(MIGRATIONS)}"
            raise StoreError(problem, hint="upgrade coldstart, or name another file with --store FILE")
        return int(version)

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        with _translated(self.path):
            # `yield from` would close the cursor of an abandoned reader, perhaps after its connection: an error.
            for row in self._connection.execute(statement, values):  # noqa: UP028
                yield row

    def _boot_rows(self, run: str) -> Iterator[tuple[Any, ...]]:
        return self._rows(f"SELECT {BOOT_COLUMNS} FROM boots WHERE run = ? ORDER BY trial, idx", (run,))

    def _trials(self, run: str) -> dict[int, Cell]:
        rows = self._rows(f"SELECT {TRIAL_COLUMNS} FROM trials WHERE run = ? ORDER BY trial", (run,))
        return {row[0]: cell_of(row) for row in rows}

    def _update(self, table: str, changes: str, values: Sequence[Any], where: str, key: Sequence[Any]) -> None:
        with _translated(self.path):
            done = self._connection.execute(f"UPDATE {table} SET {changes} WHERE {where}", (*values, *key))
        if done.rowcount == 0:
            raise StoreError(f"store {self.path}: {table} has no {key}", hint="please report it")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:
                yield

    def _row(self, run: str, boot: Boot) -> tuple[Any, ...]:
        try:
            return boot_row(run, boot)
        except ValueError as error:
            raise StoreError(f"store {self.path}: {error}", hint="the node's agent is of another version") from None

    def _refuse_other(self, row: tuple[Any, ...]) -> bool:
        there = list(self._rows(f"SELECT {BOOT_COLUMNS} FROM boots WHERE run = ? AND trial = ? AND idx = ?", row[:3]))
        if there == [row]:
            return False
        problem = f"store {self.path}: run {row[0]}, trial {row[1]} already has another boot {row[2]}"
        raise StoreError(problem, hint="two controllers may be running the same run: stop one")


def _check_place(path: Path, readonly: bool) -> None:
    if path.is_dir():
        raise StoreError(f"store {path} is a directory", hint="name a file in it with --store FILE")
    if readonly and not path.exists():
        hint = "run `coldstart sweep` first, or name one with --store FILE"
        raise StoreError(f"there is no store at {path} yet", hint=hint)
    try:
        mounts = MOUNTS.read_text(errors="replace")
    except OSError:  # not Linux: nothing to ask
        mounts = ""
    kind = filesystem_of(str(path), mounts)
    if _NETWORK.match(kind):
        problem = f"store {path} is on a network file system ({kind}), where SQLite's locks cannot be trusted"
        raise StoreError(problem, hint="name a file on a local disk with --store FILE")


def _connect(path: Path, readonly: bool) -> sqlite3.Connection:
    options = "mode=ro" if readonly else "mode=rwc"
    if not readonly:
        for folder in reversed([folder for folder in path.parents if not folder.exists()]):
            folder.mkdir(mode=0o700, exist_ok=True)
    elif not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists():
        options = "immutable=1"  # a read-only medium has no room for the WAL's index, and no writer either
    connection = sqlite3.connect(f"{path.as_uri()}?{options}", uri=True, timeout=10, isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """The one door: what SQLite or the file system raise inside becomes a StoreError with the next step."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
        raise StoreError(f"store {path}: {error}", hint=_HINTS.get(code, "name another with --store FILE")) from error
    except OverflowError as error:
        raise StoreError(f"store {path}: {error}", hint=_HINTS[sqlite3.SQLITE_CONSTRAINT]) from error
    except OSError as error:
        raise StoreError(f"store {path}: {error.strerror}", hint="name another with --store FILE") from error


def _candidates(runs: Sequence[Run]) -> str:
    if not runs:
        return "there is none yet: run `coldstart sweep` first"
    names = ", ".join(run.id for run in runs[:5])
    return f"choose from {names}" + (f" and {len(runs) - 5} more: coldstart runs" if len(runs) > 5 else "")
