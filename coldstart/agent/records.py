"""The data that crosses the link: what to boot (`Order`), when it counts as ready (`Ready`), what happened (`Boot`).

Plain frozen dataclasses of JSON types; `wire.py` frames them, nothing here reads or writes. Durations are integer
nanoseconds (`_ns`), sizes integer bytes (`_bytes`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

# In the order in which they are expected; `guest` and `tcp` need not be seen.
MARKS = ("pulled", "created", "api_return", "guest", "tcp", "ready", "stop", "gone", "reclaimed")
STARTS = ("warm", "page-cold", "image-absent")
IMAGE_ABSENT = "image-absent"

OK = "ok"
TIMEOUT = "timeout"
NOT_COLD = "not-cold"


@dataclass(frozen=True)
class Ready:
    """When an instance counts as ready.

    kind: `http` (status, body and nonce must be right), `tcp` (a connection to the instance's own address),
    `output` (a line of its output matches `pattern`), `exit` (it ends with `code`).
    body: text that must be in the answer's body; empty: any. nonce: the answer must bear this boot's nonce.
    timeout_ns: from `command`; 20 s unless told.
    """

    kind: str = "http"
    port: int = 0
    path: str = "/"
    status: int = 200
    body: str = ""
    nonce: bool = False
    pattern: str = ""
    code: int = 0
    timeout_ns: int = 20_000_000_000


@dataclass(frozen=True)
class Image:
    """One packaging of a workload, as the node is told of it.

    files: the sha256 of each file that the controller offers, by its part in the image (`program`, `archive`, `kernel`,
    `initrd`, `drive`; none: `reference` is all there is); sizes: of these files. reference: the name an engine has it
    under; id, digest: of a container's config and manifest (`sha256:...`), what it is whatever it is called, empty
    where only the engine knows. env, args: what the workload wants to be told, where `{nonce}`, `{address}` and
    `{port}` are filled in at every boot.
    """

    name: str
    files: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    reference: str = ""
    id: str = ""
    digest: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order:
    """One boot to do: the `index`-th of trial `trial`, of prepared target `target`.

    gap_ns: idle time before it; hold_ns: how long the instance is kept after it was ready.
    """

    trial: int
    index: int
    target: str
    start: str = "warm"
    gap_ns: int = 0
    hold_ns: int = 0


@dataclass(frozen=True)
class Boot:
    """What one boot showed.

    outcome: `ok`, `timeout`, `not-cold` or `error:<what>`; detail: the reason in words, for a failure.
    marks_ns: ns since `command` (which is 0 by definition) on the node's monotonic clock.
    resolution_ns: by how much `ready` may be late, because nobody asked earlier; None when no probe failed.
    planned_ns, achieved_ns: when it should start and did, node's monotonic clock.
    memory_bytes: by named definition (`pss`, `cgroup_current`, `cgroup_peak`), read between ready and stop.
    cache_bytes: page cache of the image's files: `files` (their size), `before` (resident as found),
    `start` (resident when the boot began).
    transfer_bytes: what the controller sent in the middle of it; None where nothing is fetched in a boot.
    flags: `disturbed:...`, each a reason to doubt this boot.
    """

    trial: int
    index: int
    outcome: str
    detail: str = ""
    marks_ns: Mapping[str, int] = field(default_factory=dict)
    resolution_ns: int | None = None
    planned_ns: int = 0
    achieved_ns: int = 0
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    cache_bytes: Mapping[str, int] = field(default_factory=dict)
    transfer_bytes: int | None = None
    flags: tuple[str, ...] = ()


_Record = TypeVar("_Record", Ready, Image, Order, Boot)
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "int | None": (int, type(None)),
    "Mapping[str, str]": (dict,),
    "Mapping[str, int]": (dict,),
    "tuple[str, ...]": (list, tuple),
}


def to_json(record: Any) -> dict[str, Any]:
    """A record as a JSON object; the inverse of `from_json`."""
    return dataclasses.asdict(record)


def from_json(kind: type[_Record], data: Any) -> _Record:
    """A JSON object as a record. ValueError names the field that is missing, unknown or of the wrong type."""
    if not isinstance(data, dict):
        raise ValueError(f"{kind.__name__}: not an object")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ValueError(f"{kind.__name__}: unknown field {unknown[0]!r}")
    values = {name: _checked(kind.__name__, fields[name], value) for name, value in data.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from None


def _checked(kind: str, spec: Any, value: Any) -> Any:
    allowed = _JSON_TYPES[spec.type]
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise ValueError(f"{kind}.{spec.name}: {value!r} is not {spec.type}")
    if isinstance(value, dict):
        inner = str if spec.type.endswith("str]") else int
        if not all(isinstance(k, str) and type(v) is inner for k, v in value.items()):
            raise ValueError(f"{kind}.{spec.name}: {value!r} is not {spec.type}")
    if isinstance(value, (list, tuple)):
        if not all(isinstance(item, str) for item in value):
            raise ValueError(f"{kind}.{spec.name}: {value!r} is not {spec.type}")
        return tuple(value)
    return value
