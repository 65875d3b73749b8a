"""The store's tables, and rows as records and back. Text in, text out: nothing here opens a file.

The marks of a boot are one integer column each, so that any SQLite client can ask for them; what differs between
boots and is only carried along (memory, page cache, flags) is JSON text.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from coldstart.agent.records import MARKS
from coldstart.model import Boot, Cell, Load, Trial

APPLICATION_ID = 0x636F6C64  # "cold"

# Each brings the file from the version of its position to the next. Never edit one that was released: add another.
# Split at ";" to run inside one transaction, so none may hold a ";" of its own.
MIGRATIONS: tuple[str, ...] = (
    """
CREATE TABLE runs (
    id TEXT PRIMARY KEY CHECK (id <> ''),
    playbook TEXT NOT NULL,
    playbook_text TEXT NOT NULL,
    inventory_text TEXT NOT NULL,
    seed INTEGER NOT NULL CHECK (typeof(seed) = 'integer'),
    version TEXT NOT NULL,
    started_ns INTEGER NOT NULL CHECK (typeof(started_ns) = 'integer'),
    finished_ns INTEGER CHECK (typeof(finished_ns) IN ('integer', 'null')),
    state TEXT NOT NULL CHECK (state IN ('running', 'finished', 'failed', 'interrupted'))
);
CREATE TABLE trials (
    run TEXT NOT NULL REFERENCES runs (id),
    trial INTEGER NOT NULL CHECK (typeof(trial) = 'integer' AND trial >= 0),
    node TEXT NOT NULL,
    site TEXT NOT NULL,
    target TEXT NOT NULL,
    runtime TEXT NOT NULL,
    start TEXT NOT NULL,
    load TEXT NOT NULL CHECK (json_valid(load)),
    planned INTEGER NOT NULL CHECK (planned >= 0),
    arch TEXT NOT NULL DEFAULT '',
    labels TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(labels)),
    image_bytes INTEGER CHECK (typeof(image_bytes) IN ('integer', 'null') AND image_bytes >= 0),
    transfer_bytes INTEGER CHECK (typeof(transfer_bytes) IN ('integer', 'null') AND transfer_bytes >= 0),
    skipped TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (run, trial)
) WITHOUT ROWID;
CREATE TABLE boots (
    run TEXT NOT NULL,
    trial INTEGER NOT NULL,
    idx INTEGER NOT NULL CHECK (typeof(idx) = 'integer' AND idx >= 0),
    outcome TEXT NOT NULL CHECK (outcome IN ('ok', 'timeout', 'not-cold') OR outcome GLOB 'error:?*'),
    detail TEXT NOT NULL,
    flags TEXT NOT NULL CHECK (json_valid(flags)),
    created_ns INTEGER CHECK (typeof(created_ns) IN ('integer', 'null') AND created_ns >= 0),
    api_return_ns INTEGER CHECK (typeof(api_return_ns) IN ('integer', 'null') AND api_return_ns >= 0),
    guest_ns INTEGER CHECK (typeof(guest_ns) IN ('integer', 'null') AND guest_ns >= 0),
    tcp_ns INTEGER CHECK (typeof(tcp_ns) IN ('integer', 'null') AND tcp_ns >= 0),
    ready_ns INTEGER CHECK (typeof(ready_ns) IN ('integer', 'null') AND ready_ns >= 0),
    stop_ns INTEGER CHECK (typeof(stop_ns) IN ('integer', 'null') AND stop_ns >= 0),
    gone_ns INTEGER CHECK (typeof(gone_ns) IN ('integer', 'null') AND gone_ns >= 0),
    reclaimed_ns INTEGER CHECK (typeof(reclaimed_ns) IN ('integer', 'null') AND reclaimed_ns >= 0),
    resolution_ns INTEGER CHECK (typeof(resolution_ns) IN ('integer', 'null') AND resolution_ns >= 0),
    planned_ns INTEGER NOT NULL CHECK (typeof(planned_ns) = 'integer'),
    achieved_ns INTEGER NOT NULL CHECK (typeof(achieved_ns) = 'integer'),
    memory TEXT NOT NULL CHECK (json_valid(memory)),
    cache TEXT NOT NULL CHECK (json_valid(cache)),
    recorded_ns INTEGER NOT NULL,
    PRIMARY KEY (run, trial, idx),
    FOREIGN KEY (run, trial) REFERENCES trials (run, trial),
    CONSTRAINT ok_is_ready CHECK (outcome <> 'ok' OR ready_ns IS NOT NULL)
) WITHOUT ROWID;
CREATE INDEX boots_by_outcome ON boots (run, outcome);
CREATE TABLE nodes (
    run TEXT NOT NULL REFERENCES runs (id),
    node TEXT NOT NULL,
    facts TEXT NOT NULL CHECK (json_valid(facts)),
    PRIMARY KEY (run, node)
) WITHOUT ROWID
""",
    """
ALTER TABLE nodes ADD COLUMN lost TEXT NOT NULL DEFAULT '';
CREATE TABLE waves (
    run TEXT NOT NULL REFERENCES runs (id),
    wave INTEGER NOT NULL CHECK (typeof(wave) = 'integer' AND wave >= 0),
    node TEXT NOT NULL,
    planned_ns INTEGER NOT NULL CHECK (typeof(planned_ns) = 'integer'),
    achieved_ns INTEGER NOT NULL CHECK (typeof(achieved_ns) = 'integer'),
    offset_ns INTEGER NOT NULL CHECK (typeof(offset_ns) = 'integer'),
    bound_ns INTEGER NOT NULL CHECK (typeof(bound_ns) = 'integer' AND bound_ns >= 0),
    rtt_ns INTEGER NOT NULL CHECK (typeof(rtt_ns) = 'integer' AND rtt_ns >= 0),
    PRIMARY KEY (run, wave, node)
) WITHOUT ROWID
""",
    """
ALTER TABLE boots ADD COLUMN pulled_ns INTEGER CHECK (typeof(pulled_ns) IN ('integer', 'null') AND pulled_ns >= 0);
ALTER TABLE boots ADD COLUMN transfer_bytes INTEGER
    CHECK (typeof(transfer_bytes) IN ('integer', 'null') AND transfer_bytes >= 0);
CREATE TABLE pushes (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL REFERENCES runs (id),
    node TEXT NOT NULL,
    target TEXT NOT NULL,
    image TEXT NOT NULL,
    how TEXT NOT NULL,
    transfer_bytes INTEGER NOT NULL CHECK (typeof(transfer_bytes) = 'integer' AND transfer_bytes >= 0),
    duration_ns INTEGER NOT NULL CHECK (typeof(duration_ns) = 'integer' AND duration_ns >= 0)
);
CREATE INDEX pushes_by_run ON pushes (run)
""",
)

WAVE_COLUMNS = "wave, node, planned_ns, achieved_ns, offset_ns, bound_ns, rtt_ns"  # as in WaveStart
PUSH_COLUMNS = "node, target, image, how, transfer_bytes, duration_ns"  # as in Push
TRIAL_COLUMNS = "trial, node, site, target, runtime, start, load, arch, labels, image_bytes, transfer_bytes, skipped"
BOOT_COLUMNS = ", ".join(
    (
        *("run", "trial", "idx", "outcome", "detail", "flags"),
        *(f"{mark}_ns" for mark in MARKS),
        *("resolution_ns", "planned_ns", "achieved_ns", "memory", "cache", "transfer_bytes"),
    )
)


def to_text(value: Any) -> str:
    """A mapping or a sequence as JSON; equal values give equal text."""
    plain = dict(value) if isinstance(value, Mapping) else list(value)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def trial_row(run: str, trial: Trial, planned: int) -> tuple[Any, ...]:
    load = to_text(dataclasses.asdict(trial.load))
    return (run, trial.id, trial.node, trial.site, trial.target, trial.runtime, trial.start, load, planned)


def cell_of(row: tuple[Any, ...]) -> Cell:
    """A row of TRIAL_COLUMNS as a cell without its boots."""
    id, node, site, target, runtime, start, load, arch, labels, image_bytes, transfer_bytes, skipped = row
    trial = Trial(id, node, site, target, runtime, start, Load(**json.loads(load)))
    return Cell(trial, arch, json.loads(labels), image_bytes, transfer_bytes, skipped)


def boot_row(run: str, boot: Boot) -> tuple[Any, ...]:
    """A boot as a row of BOOT_COLUMNS. ValueError names a mark that has no column."""
    unknown = sorted(set(boot.marks_ns) - set(MARKS))
    if unknown:
        raise ValueError(f"boot {boot.index} of trial {boot.trial} has an unknown mark {unknown[0]!r}")
    # A node's output may hold half a surrogate pair, which SQLite's UTF-8 cannot.
    detail = boot.detail.encode("utf-8", "replace").decode()
    key = (run, boot.trial, boot.index, boot.outcome, detail, to_text(boot.flags))
    marks = tuple(boot.marks_ns.get(mark) for mark in MARKS)
    times = (boot.resolution_ns, boot.planned_ns, boot.achieved_ns)
    return (*key, *marks, *times, to_text(boot.memory_bytes), to_text(boot.cache_bytes), boot.transfer_bytes)


def boot_of(row: tuple[Any, ...]) -> Boot:
    """A row of BOOT_COLUMNS as a boot."""
    _, trial, index, outcome, detail, flags, *marks, resolution_ns, planned_ns, achieved_ns, memory, cache, sent = row
    return Boot(
        trial=trial,
        index=index,
        outcome=outcome,
        detail=detail,
        marks_ns={mark: at for mark, at in zip(MARKS, marks, strict=True) if at is not None},
        resolution_ns=resolution_ns,
        planned_ns=planned_ns,
        achieved_ns=achieved_ns,
        memory_bytes=json.loads(memory),
        cache_bytes=json.loads(cache),
        transfer_bytes=sent,
        flags=_flags(flags),
    )


@lru_cache(maxsize=64)
def _flags(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))  # nearly always "[]": parsed once
