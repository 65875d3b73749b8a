"""YAML as plain data that knows its lines: ruamel.yaml's one door.

ruamel parses the text into nodes with positions; the values are made here, so that every path of keys and indices has
a line. Refused with FILE:LINE: syntax errors, duplicate keys, tags, templates, several documents. The file's author
hears of the first mistake only.

Typing is YAML 1.2's: only true and false are booleans, dates stay text, so that `console: off` can be one of
`on|off|...`; where a boolean is wanted, readers pass the word through `as_bool`.

With `ansible=True` it is that of Ansible's parser, PyYAML, which reads YAML 1.1: yes, no, on and off are booleans, too.
What that makes of 0777, 1:30, 2020-01-01 and 1e3 (511, 90, a date, text) is hardly what was meant, and other programs
read it otherwise: refused, with the advice to put it in quotes.

Limits: 4 MiB, a depth of 60, and 100,000 values once aliases are expanded (a few lines of aliases of aliases make
billions). Messages for pydantic's errors are made here from their plain dictionaries, without importing pydantic.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.tag import Tag

from coldstart.errors import DocumentError

Loc = tuple[str | int, ...]

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 60
MAX_VALUES = 100_000
_TEMPLATES = ("{{", "{%")
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_STANDARD = "tag:yaml.org,2002:"
_PLAIN = "write the value itself: templates are not read"


class UnknownKeyError(ValueError):
    """A key nobody reads: most likely a typing error. Raised inside a validator; `Document.refusal` finds its line."""

    def __init__(self, key: str | int, message: str, hint: str) -> None:
        super().__init__(message)
        self.key = key
        self.hint = hint


class EmptyDocumentError(DocumentError):
    """Nothing but comments: where a file need not be there either, a reader may let it pass."""


@dataclass(frozen=True)
class Document:
    """A YAML file. data: str, int, float, bool, None, lists and dicts; lines: of every path in it, from 1."""

    path: str
    text: str
    data: dict[str, Any]
    lines: Mapping[Loc, int]

    def where(self, loc: Loc = ()) -> str:
        """`file:line` of a path of keys and indices, or of its nearest parent that is there."""
        return f"{self.path}:{self.line(loc)}"

    def line(self, loc: Loc) -> int:
        while loc not in self.lines:
            loc = loc[:-1]
        return self.lines[loc]

    def refuse(self, loc: Loc, message: str, hint: str = "") -> DocumentError:
        """The error to raise about what stands at loc."""
        return DocumentError(f"{self.where(loc)}: {message}", hint=hint)

    def refusal(self, errors: Iterable[Mapping[str, Any]], at: Loc = ()) -> DocumentError:
        """pydantic's errors about the data at `at` as one error: the first in the file."""
        readings = [_reading(error, at) for error in errors]
        return self.refusal_of(*min(readings, key=lambda reading: self.line(reading[0])))

    def refusal_of(self, loc: Loc, message: str, hint: str = "") -> DocumentError:
        """The error about what stands at loc, which it names."""
        name = ".".join(part if str(part).isprintable() else repr(part) for part in map(str, loc))
        return self.refuse(loc, f"{name}: {message}" if name else message, hint)


def load(path: str | Path, *, ansible: bool = False) -> Document:
    """Read a file. ansible: typed as Ansible does. DocumentError, whatever is wrong with it."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in the name
        raise DocumentError(f"{str(path)!r}: cannot be read: not a file name") from None
    return parse(data, str(path), ansible=ansible)


def parse(data: bytes | str, path: str = "<text>", *, ansible: bool = False) -> Document:
    """Read a text. ansible: typed as Ansible does. DocumentError, whatever is wrong with it."""
    text = decoded(data, path) if isinstance(data, bytes) else data
    root = _composed(text, path, ansible)
    if root is None or (isinstance(root, ScalarNode) and root.tag == f"{_STANDARD}null"):
        raise EmptyDocumentError(f"{path}:1: empty")
    if not isinstance(root, MappingNode):
        raise DocumentError(f"{path}:{_line(root)}: not a mapping: the file must consist of `key: value`")
    reader = _Reader(path, ansible)
    return Document(path, text, reader.value(root, ()), reader.lines)


def known_keys(data: Any, known: Collection[str]) -> Any:
    """For pydantic's `before` validators: the data as it is, or UnknownKeyError."""
    for key in data if isinstance(data, dict) else ():
        if key not in known:
            raise UnknownKeyError(key, "unknown key", suggestion(key, known))
    return data


def suggestion(word: object, known: Collection[str]) -> str:
    """The hint for a word that is not known."""
    close = get_close_matches(str(word), known, 1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}known: {', '.join(sorted(known))}"


def text_fault(text: str) -> tuple[str, str] | None:
    """What no text in a document may hold, and the hint; None if all is well."""
    for mark in _TEMPLATES:
        if mark in text:
            return f"a template ({mark})", _PLAIN
    if "\0" in text:
        return "a NUL character: no program can be told it", ""
    if any("\ud800" <= char <= "\udfff" for char in text):
        return "half of a surrogate pair is not text", ""
    return None


def as_bool(value: Any) -> bool:
    """true, false, and the words YAML 1.1 and Ansible read as such. ValueError for anything else."""
    word = str(value).lower() if isinstance(value, bool | str) else ""
    if word not in _WORDS:
        raise ValueError(f"must be true or false, not {value!r}")
    return _WORDS[word]


_MESSAGES = {
    "missing": "is missing",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "mapping_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
}


def _reading(error: Mapping[str, Any], at: Loc) -> tuple[Loc, str, str]:
    """Where, what and the next step, of one of pydantic's errors."""
    loc: Loc = at + tuple(part for part in error["loc"] if part != "[key]")
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, UnknownKeyError):
        return (*loc, cause.key), str(cause), cause.hint
    if isinstance(cause, ValueError):
        return loc, str(cause), getattr(cause, "hint", "")
    message = _MESSAGES.get(error["type"], error["msg"])
    if error["type"] == "missing":
        return loc, message, ""
    if error["input"] is None:
        return loc, f"has no value; it {message}", ""
    return loc, f"{message}, not {_shown(error['input'])}", _quoting(error)


def _shown(value: Any) -> str:
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else f"{value!r:.80}"


def _quoting(error: Mapping[str, Any]) -> str:
    quotable = error["type"] == "string_type" and isinstance(error["input"], bool | int | float)
    return f'put it in quotes: "{str(error["input"]).lower()}"' if quotable else ""


def decoded(data: bytes, path: str) -> str:
    """Bytes as text. DocumentError if they are too many or no text."""
    if len(data) > MAX_BYTES:
        raise DocumentError(f"{path}: larger than {MAX_BYTES // 1024**2} MiB: this is not an inventory or a playbook")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DocumentError(f"{path}:{line}: not UTF-8 text", hint="save the file as UTF-8") from None


class _AnsibleResolver(VersionedResolver):
    """What a plain word is to PyYAML; and under names of their own, what it would make something else of."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is ScalarNode and implicit[0]:
            return Tag(suffix=f"{_STANDARD}{_kind_to_ansible(value)}")
        return super().resolve(kind, value, implicit)


def _kind_to_ansible(word: str) -> str:
    found = _ANSIBLE_KINDS.fullmatch(word)
    return str(found.lastgroup) if found else "str"


def _composed(text: str, path: str, ansible: bool) -> Node | None:
    yaml = YAML(typ="safe", pure=True)
    if ansible:
        yaml.Resolver = _AnsibleResolver
    yaml.composer.warn_double_anchors = False  # legal: the later one counts from there on
    try:
        root: Node | None = yaml.compose(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DocumentError(f"{path}:{line}: not text: a control character") from None
    except MarkedYAMLError as error:
        raise _syntax(error, path) from None
    except RecursionError:
        raise DocumentError(f"{path}:1: nested too deeply") from None
    # ruamel lets some of its own slips through: chr() of an escape beyond Unicode, an empty tag or directive.
    except (YAMLError, ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DocumentError(f"{path}:1: not valid YAML: {error}") from None
    return root


def _syntax(error: MarkedYAMLError, path: str) -> DocumentError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    if "another document" in str(error.problem):
        return DocumentError(f"{path}:{line}: a second document begins here: only one is read", hint="remove the `---`")
    return DocumentError(f"{path}:{line}: not valid YAML: {error.problem or error.context}")


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


class _Reader:
    """Nodes -> plain values, noting the line of every path. Aliases are expanded: each use has paths of its own."""

    def __init__(self, path: str, ansible: bool) -> None:
        self._path = path
        self._ansible = ansible
        self._values = 0
        self.lines: dict[Loc, int] = {}

    def value(self, node: Node, loc: Loc) -> Any:
        self.lines.setdefault(loc, _line(node))
        self._spend(node, len(loc))
        if isinstance(node, MappingNode):
            return {key: self._value_of(pair, (*loc, key)) for key, pair in self._pairs(node, len(loc)).items()}
        if isinstance(node, SequenceNode):
            self._check_tag(node, "seq")
            return [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]
        return self._scalar(node)

    def _value_of(self, pair: tuple[Node, Node], loc: Loc) -> Any:
        key_node, value_node = pair
        self.lines[loc] = _line(key_node)
        return self.value(value_node, loc)

    def _pairs(self, node: MappingNode, depth: int) -> dict[str | int, tuple[Node, Node]]:
        """The keys of a mapping and what `<<` brings: its own win, then the first of several sources."""
        self._check_tag(node, "map")
        pairs: dict[str | int, tuple[Node, Node]] = {}
        merged: list[Node] = []
        for key_node, value_node in node.value:
            self._spend(key_node, depth)
            if key_node.tag == f"{_STANDARD}merge":
                merged += value_node.value if isinstance(value_node, SequenceNode) else [value_node]
                continue
            key = self._key(key_node)
            if key in pairs:
                raise self._refuse(key_node, f"duplicate key {key!r}, first on line {_line(pairs[key][0])}")
            pairs[key] = (key_node, value_node)
        for source in merged:
            if not isinstance(source, MappingNode):
                raise self._refuse(source, "`<<` takes a mapping")
            pairs = self._pairs(source, depth + 1) | pairs
        return pairs

    def _key(self, node: Node) -> str | int:
        if not isinstance(node, ScalarNode):
            raise self._refuse(node, "a key must be one word, not a mapping or a list", _PLAIN)
        key = self._scalar(node)
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise self._refuse(node, f"a key must be text, not {node.value or 'empty'}", "put it in quotes")
        return key

    def _scalar(self, node: Node) -> Any:
        kind = str(node.tag).removeprefix(_STANDARD)
        if self._ansible:
            self._check_meaning(node, kind)
        read = _SCALARS.get(kind)
        if read is None:
            raise self._bad_tag(node)
        if self._ansible and kind == "bool":
            return _WORDS[node.value.lower()]
        try:
            value = read(node.value)
        except ValueError:
            raise self._refuse(
                node, f"{node.value!r:.60} is not a number of 64 bits", "put it in quotes if it is text"
            ) from None
        if isinstance(value, str):
            self._check_text(node, value)
        return value

    def _check_meaning(self, node: Node, kind: str) -> None:
        """Refuses what Ansible takes for something else than it looks like, also behind a tag: `!!int 0777`."""
        seen = _kind_to_ansible(node.value)
        if kind in _TYPED and seen != kind:
            kind = seen if seen in _AMBIGUOUS else "typed"
        if kind in _AMBIGUOUS:
            raise self._refuse(node, f"{node.value!r:.60}: Ansible reads {_AMBIGUOUS[kind]} here", "put it in quotes")

    def _check_text(self, node: Node, text: str) -> None:
        if fault := text_fault(text):
            raise self._refuse(node, *fault)

    def _check_tag(self, node: Node, kind: str) -> None:
        if node.tag != f"{_STANDARD}{kind}":
            raise self._bad_tag(node)

    def _bad_tag(self, node: Node) -> DocumentError:
        tag = str(node.tag).replace(_STANDARD, "!!")
        if "vault" in tag:
            return self._refuse(node, f"tag {tag}: secrets are neither needed nor read here", "remove it")
        return self._refuse(node, f"tag {tag}: tags are not read", _PLAIN)

    def _spend(self, node: Node, depth: int) -> None:
        """Bounds what aliases can make of a small file; an alias of itself ends at the depth."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise self._refuse(node, f"more than {MAX_VALUES:,} values", "are these aliases of aliases?")
        if depth > MAX_DEPTH:
            raise self._refuse(node, "nested too deeply")

    def _refuse(self, node: Node, message: str, hint: str = "") -> DocumentError:
        return DocumentError(f"{self._path}:{_line(node)}: {message}", hint=hint)


def _integer(text: str) -> int:
    digits = text.replace("_", "")
    number = int(digits, 0 if digits.lstrip("+-").startswith(("0x", "0o", "0b")) else 10)
    if number.bit_length() > 63:  # neither the link nor the store takes more; nor can Python print very large ones
        raise ValueError(text)
    return number


def _float(text: str) -> float:
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS: Mapping[str, Callable[[str], Any]] = {
    "str": str,
    "int": _integer,
    "float": _float,
    "bool": lambda text: {"true": True, "false": False}.get(text.lower(), text),  # `%YAML 1.1` makes off one of them
    "null": lambda _: None,
    "timestamp": str,
    "value": str,  # a lone `=`
    "merge": str,  # `<<` where a value stands
}

# Kinds by which PyYAML reads a plain word, and those under which it is refused; in their order, as some are alike.
_ANSIBLE_KINDS = re.compile(
    r"""(?P<bool>yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)
    |(?P<null>~|null|Null|NULL|)
    |(?P<int>[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+))
    |(?P<octal>[-+]?0[0-7_]+)
    |(?P<float>[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?
        |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))
    |(?P<exponent>[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+)
    |(?P<sexagesimal>[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*)
    |(?P<timestamp>[0-9]{4}-[0-9]{2}-[0-9]{2}
        |[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?
        (?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?)
    |(?P<merge><<)|(?P<value>=)""",
    re.VERBOSE | re.ASCII,
)
_TYPED = ("bool", "null", "int", "float")
_AMBIGUOUS = {
    "octal": "an octal number",
    "exponent": "text, not a number,",
    "sexagesimal": "a number to the base of 60",
    "timestamp": "a date",
    "typed": "something else",
    "value": "a sign without meaning",
    "merge": "a sign without meaning",
}
