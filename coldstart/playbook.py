"""WHAT: a playbook is targets x start kinds x load, and what `ready` means.

Two steps: pydantic checks the shape and every value that means the same everywhere; then each target meets its
runtime, whose `Options` say which further keys it takes and whose `ready_kinds` and `starts` say what it can do. So a
playbook that asks for what is not there fails here, in one line with file:line, before any node is touched.

An option's key is its field's name without the unit, because the value carries one: `memory_bytes` is written
`memory: 8MiB`. Where that would be a key of the target itself, `_after` is added: `ready_ns` is `ready_after: 5ms`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Strict,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from coldstart import shipped, yamlfile
from coldstart.agent import runtimes
from coldstart.agent.records import STARTS
from coldstart.errors import UsageError
from coldstart.model import Load, Playbook, Ready, Target
from coldstart.units import format_bytes, format_duration, parse_duration_ns, parse_size_bytes
from coldstart.yamlfile import Document, Loc

ARCHITECTURES = ("x86_64", "aarch64")
MAX_BOOTS = 100_000
MAX_TIMEOUT_NS = 24 * 3600 * 1_000_000_000
PARTS = ("kernel", "initrd", "drive", "arch")  # of what a machine boots
# The reference workload echoes the boot's nonce; of others we cannot know.
WITH_NONCE = ("hello", "hello-2", "hello-app", "hello-app-2", "hello-unikernel", "hello-unikernel-2", "hello-vm")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


def find(name: str) -> Path:
    """A file, or a shipped playbook by name. UsageError lists what is shipped."""
    return shipped.find("playbooks", name)


def load(path: str | Path) -> Playbook:
    """Read a playbook. DocumentError with file:line, whatever is wrong with it."""
    return parse(yamlfile.load(path))


def parse(document: Document) -> Playbook:
    """As `load`, of what has been read."""
    written = _validated(document, _Playbook, document.data)
    targets = tuple(_target(document, name, target, written) for name, target in written.targets.items())
    for target in targets:
        for index, start in enumerate(written.start):
            if complaint := _cannot(target, start):
                raise document.refuse(("start", index), complaint)
    return Playbook(
        name=written.name,
        targets=targets,
        starts=tuple(written.start),
        load=Load(written.load.shape, written.load.boots, written.load.gap, written.load.hold),
        order=written.order,
        sync=written.sync,
        text=document.text,
    )


def override(
    playbook: Playbook, *, targets: Sequence[str] = (), starts: Sequence[str] = (), boots: int | None = None
) -> Playbook:
    """The playbook as `--target`, `--start` and `--boots` narrow it; nothing given, nothing changed. UsageError."""
    known = [target.name for target in playbook.targets]
    for name in targets:
        if name not in known:
            raise UsageError(f"--target {name}: no such target", hint=yamlfile.suggestion(name, known))
    for start in starts:
        if start not in STARTS:
            raise UsageError(f"--start {start}: no such start kind", hint=yamlfile.suggestion(start, STARTS))
    if boots is not None and not 1 <= boots <= MAX_BOOTS:
        raise UsageError(f"--boots {boots}: {'at least 1' if boots < 1 else f'at most {MAX_BOOTS}'}")
    chosen = tuple(target for target in playbook.targets if not targets or target.name in targets)
    if boots is not None:
        chosen = tuple(dataclasses.replace(target, boots=None, boots_emulated=None) for target in chosen)
    for target in chosen:
        for start in starts:
            if complaint := _cannot(target, start):
                raise UsageError(f"--start {start}: {complaint}")
    boots = playbook.load.boots if boots is None else boots
    kinds = tuple(dict.fromkeys(starts)) or playbook.starts
    return dataclasses.replace(
        playbook, targets=chosen, starts=kinds, load=dataclasses.replace(playbook.load, boots=boots)
    )


def option_keys(runtime: str) -> dict[str, dataclasses.Field[Any]]:
    """The keys a target of this runtime takes beside `runtime`, `image` and `ready`. KeyError: no such runtime."""
    return {_key(field.name): field for field in dataclasses.fields(runtimes.load(runtime).Options)}


def _key(name: str) -> str:
    stem = name.removesuffix("_ns").removesuffix("_bytes")
    return f"{stem}_after" if stem in _Target.model_fields else stem


# -- what may be written


def _within(low: int, high: int, what: str, show: Callable[[int], str] = str) -> AfterValidator:
    def check(value: int) -> int:
        if not low <= value <= high:
            raise ValueError(f"{show(value)} is not {what}: {show(low)}..{show(high)}")
        return value

    return AfterValidator(check)


def _variables(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not name or "=" in name or not name.isprintable():
            raise ValueError(f"{name!r} is not a variable's name")
    return value


def _one_of(*known: str) -> AfterValidator:
    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"{value!r} is not one of {', '.join(known)}")
        return value

    return AfterValidator(check)


def _with_unit(parse: Callable[[str], int]) -> BeforeValidator:
    """Numbers and the like go to the parser as text: it says what they lack."""
    return BeforeValidator(lambda value: parse("" if value is None else str(value)))


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a name: a-z, 0-9, then also _ . -; at most 63")
    return value


def _timeout(ns: int) -> int:
    if not 0 < ns <= MAX_TIMEOUT_NS:
        raise ValueError(f"{format_duration(ns)} is not a timeout: above 0s, at most {format_duration(MAX_TIMEOUT_NS)}")
    return ns


def _path(value: str) -> str:
    if value.startswith("/") and value.isascii() and value.isprintable() and " " not in value:
        return value
    raise ValueError(f"{value!r} is not a path of a URL: it starts with /, and is ASCII without blanks")


def _regexp(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from None
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _starts(value: list[str]) -> list[str]:
    if not value:
        raise ValueError(f"is empty: name some of {', '.join(STARTS)}")
    if len(set(value)) < len(value):
        raise ValueError("names a start kind twice")
    return value


def _by_architecture(value: Any) -> Any:
    """One image, or one for each architecture."""
    if isinstance(value, str) or (isinstance(value, dict) and set(value) & set(PARTS)):
        return {"": value}
    return yamlfile.known_keys(value, ARCHITECTURES)


def _parts(value: Any) -> Any:
    if isinstance(value, str):
        return value
    for part, name in yamlfile.known_keys(value, PARTS).items():
        if not isinstance(name, str):
            raise ValueError(f"{part}: must be text, a file's name")
    return value


def _images(value: dict[str, str | dict[str, str]]) -> dict[str, str | dict[str, str]]:
    for image in value.values():
        given = [image] if isinstance(image, str) else [name for part, name in image.items() if part != "arch"]
        if not given or not all(given):
            raise ValueError("names no image")
        if isinstance(image, dict) and image.get("arch", ARCHITECTURES[0]) not in ARCHITECTURES:
            raise ValueError(f"arch: {image['arch']!r} is not one of {', '.join(ARCHITECTURES)}")
    if not value:
        raise ValueError("names no image")
    return value


def _some(value: dict[str, Any]) -> dict[str, Any]:
    if not value:
        raise ValueError("is empty: name at least one")
    return value


_Name = Annotated[str, AfterValidator(_name)]
_Port = Annotated[int, _within(1, 65535, "a port")]
_Bool = Annotated[bool, BeforeValidator(yamlfile.as_bool)]
_Duration = Annotated[int, _with_unit(parse_duration_ns)]
_Size = Annotated[int, _with_unit(parse_size_bytes)]
_Starts = Annotated[list[Annotated[str, _one_of(*STARTS)]], BeforeValidator(_listed), AfterValidator(_starts)]
_Image = Annotated[Any, BeforeValidator(_parts)]  # str or dict[str, str]: a union's messages would name both
_Images = Annotated[dict[str, _Image], BeforeValidator(_by_architecture), AfterValidator(_images)]
_Boots = Annotated[int, _within(1, MAX_BOOTS, "a number of boots")]


class _Section(BaseModel):
    """A mapping with these keys and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        return yamlfile.known_keys(data, cls.model_fields)


class _Http(_Section):
    port: _Port
    path: Annotated[str, AfterValidator(_path)] = "/"
    status: Annotated[int, _within(100, 599, "a status")] = 200
    body: str = ""
    nonce: _Bool | None = None


class _Tcp(_Section):
    port: _Port


class _Ready(_Section):
    http: _Http | None = None
    tcp: _Tcp | None = None
    output: Annotated[str, AfterValidator(_regexp)] | None = None
    exit: Annotated[int, _within(0, 255, "an exit code")] | None = None
    timeout: Annotated[_Duration, AfterValidator(_timeout)] = 20_000_000_000

    @model_validator(mode="after")
    def _exactly_one(self) -> _Ready:
        given = [kind for kind in ("http", "tcp", "output", "exit") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"takes exactly one of http, tcp, output, exit; it has {' and '.join(given) or 'none'}")
        return self


class _Load(_Section):
    shape: Annotated[str, _one_of("sequential")] = "sequential"
    boots: _Boots = 20
    gap: _Duration = 100_000_000
    hold: _Duration = 0


class _Target(BaseModel):
    """Further keys are the runtime's: `_options` checks them."""

    model_config = ConfigDict(extra="allow", strict=True)

    runtime: str
    image: _Images
    ready: _Ready | None = None
    boots: _Boots | None = None
    boots_emulated: _Boots | None = None
    update_from: _Images = {}


class _Playbook(_Section):
    name: _Name
    ready: _Ready | None = None
    targets: Annotated[dict[_Name, _Target], AfterValidator(_some)]
    start: _Starts = ["warm"]
    load: _Load = _Load()
    order: Annotated[str, _one_of("interleaved", "blocked")] = "interleaved"
    sync: Annotated[str, _one_of("loop", "wave")] = "loop"


# Types of options, read as this language writes them.
_READ: dict[Any, Any] = {
    bool: _Bool,
    int: Annotated[int, Strict()],
    tuple[int, ...]: tuple[Annotated[int, Strict()], ...],
    Mapping[str, str]: Annotated[dict[str, str], AfterValidator(_variables)],
}
_Model = TypeVar("_Model", bound=BaseModel)


def _validated(document: Document, model: type[_Model], data: Any) -> _Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise document.refusal(error.errors(include_url=False)) from None


# -- a target meets its runtime


def _target(document: Document, name: str, written: _Target, playbook: _Playbook) -> Target:
    at: Loc = ("targets", name)
    known = runtimes.names()
    if written.runtime not in known:
        message = f"target {name}: no runtime {written.runtime!r}"
        raise document.refuse((*at, "runtime"), message, yamlfile.suggestion(written.runtime, known))
    condition = written.ready or playbook.ready
    if condition is None:
        raise document.refuse(at, f"target {name}: no `ready`", "write one in the target, or one for all at the top")
    ready = _ready(condition, nonce=all(image in WITH_NONCE for image in written.image.values()))
    runtime = runtimes.load(written.runtime)
    if ready.kind not in runtime.Runtime.ready_kinds:
        message = f"target {name}: runtime {written.runtime} cannot tell `ready: {ready.kind}`"
        raise document.refuse((*at, "ready"), message, f"it can tell {', '.join(runtime.Runtime.ready_kinds)}")
    options = _options(document, at, written)
    if written.boots_emulated and written.boots_emulated > (written.boots or playbook.load.boots):
        message = f"target {name}: more boots where the processor is emulated than elsewhere"
        raise document.refuse((*at, "boots_emulated"), message, "it is for fewer")
    objection = getattr(runtime.Runtime, "objection", None)
    if objection and (said := objection(runtime.Options(**options), ready)):
        raise document.refuse(at, f"target {name}: {said}")
    return Target(
        name,
        written.runtime,
        written.image,
        ready,
        options,
        base=str(Path(document.path).parent),
        where=document.where(at),
        boots=written.boots,
        boots_emulated=written.boots_emulated,
        update_from=written.update_from,
    )


def _ready(written: _Ready, *, nonce: bool) -> Ready:
    """nonce: what it is where the playbook does not say."""
    if written.http is not None:
        http = written.http
        asked = nonce if http.nonce is None else http.nonce
        return Ready("http", http.port, http.path, http.status, http.body, asked, timeout_ns=written.timeout)
    if written.tcp is not None:
        return Ready("tcp", written.tcp.port, timeout_ns=written.timeout)
    if written.output is not None:
        return Ready("output", pattern=written.output, timeout_ns=written.timeout)
    return Ready("exit", code=written.exit or 0, timeout_ns=written.timeout)


def _options(document: Document, at: Loc, written: _Target) -> dict[str, Any]:
    known = option_keys(written.runtime)
    hints = get_type_hints(runtimes.load(written.runtime).Options)
    options = {}
    for key, value in (written.model_extra or {}).items():
        if key not in known:
            message = f"target {at[-1]}: runtime {written.runtime} takes no key {key!r}"
            raise document.refuse((*at, key), message, yamlfile.suggestion(key, [*_Target.model_fields, *known]))
        field = known[key]
        try:
            options[field.name] = TypeAdapter(_option_type(field, hints[field.name])).validate_python(value)
        except ValidationError as error:
            raise document.refusal(error.errors(include_url=False), (*at, key)) from None
    return options


def _option_type(field: dataclasses.Field[Any], hint: Any) -> Any:
    """What pydantic is to check."""
    if "choices" in field.metadata:
        return Annotated[str, _one_of(*field.metadata["choices"])]
    kind: Any = _READ.get(hint, hint)
    for suffix, quantity in (("_ns", _Duration), ("_bytes", _Size)):
        kind = quantity if field.name.endswith(suffix) else kind
    if "range" in field.metadata:
        low, high = field.metadata["range"]
        show = format_bytes if field.name.endswith("_bytes") else str
        return Annotated[kind, _within(low, high, "in range", show)]
    return kind


def _cannot(target: Target, start: str) -> str:
    """Why this target has no such start; empty if it has."""
    offered = runtimes.load(target.runtime).Runtime.starts
    if start in offered:
        return ""
    return f"target {target.name}: runtime {target.runtime} has no start `{start}`, only {', '.join(offered)}"
