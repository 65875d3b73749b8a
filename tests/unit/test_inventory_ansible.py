"""Held against ansible-core itself, in this process: generated inventories have the same hosts, groups and variables.

Its warnings go to stderr through its own Display, and are no warnings of Python's.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import re
from pathlib import Path

import pytest
import yaml
from ansible.cli.inventory import InventoryCLI
from ansible.errors import AnsibleError
from ansible.inventory.helpers import sort_groups
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.manager import VariableManager
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from coldstart import inventory
from coldstart.errors import UsageError
from coldstart.report import inventoried

EXAMPLES = 500 if os.environ.get("CI") == "true" else 100
RELAXED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
# Not made smaller when one fails: that takes minutes with documents like these, and the first says enough.
PROFILE = settings(
    max_examples=EXAMPLES, phases=[Phase.reuse, Phase.generate], deadline=None, suppress_health_check=RELAXED
)

GROUPS = ["web", "a", "edge-1", "b_2", "z.z", "Cloud"]  # a group contains only later ones: no loops
KEYS = ["h1", "h2", "10.0.0.1", "pi[01:03]", "pi[1:2]", "box-[a:b].lan", "n[0:4:2]-[x:y]", "2001:db8::1", "db:2222"]
HOSTS = ["h1", "h2", "10.0.0.1", "pi01", "pi02", "pi1", "box-a.lan", "n2-x", "2001:db8::1", "db"]
SHIPPED = Path(__file__).parents[2] / "inventories"


class Theirs:
    """What Ansible makes of an inventory."""

    def __init__(self, path: Path) -> None:
        self.cli = InventoryCLI(["ansible-inventory", "--list", "-i", str(path)])
        self.cli.parse()
        self.cli.loader = DataLoader()
        self.cli.inventory = self.inventory = InventoryManager(loader=self.cli.loader, sources=[str(path)])
        self.cli.vm = VariableManager(loader=self.cli.loader, inventory=self.inventory)

    def hostvars(self) -> dict:
        return {host.name: plain(self.cli._get_host_variables(host)) for host in self.inventory.hosts.values()}

    def listed(self) -> dict:
        listed = json.loads(self.cli.dump(self.cli.json_inventory(self.cli._get_group("all"))))
        del listed["_meta"]["profile"]  # names the encoder, not the inventory
        return listed

    def limited(self, pattern: str) -> set[str]:
        self.inventory.subset(pattern)
        return {host.name for host in self.inventory.get_hosts("all")}


def plain(value):
    """With the types told apart - 1, 1.0, True and "1" - and Ansible's tags left out."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    kind = next(kind for kind in (bool, int, float, str, type(None)) if isinstance(value, kind))
    return kind.__name__, None if value is None else kind(value)


# -- inventories

# What YAML 1.1 and 1.2 disagree on, written without quotes.
_WORDS = [
    "yes",
    "No",
    "on",
    "OFF",
    "true",
    "null",
    "~",
    "0x1F",
    "1_000",
    "-5",
    "1.5",
    ".5",
    "1.0e+3",
    "y",
    "089",
    "0o7",
]
_RAW = st.sampled_from(_WORDS).map("rawword<{}>".format)


def _is_quoted(text: str) -> bool:
    """PyYAML writes 1e3 without quotes, and reads it as text; here it is refused."""
    return not re.fullmatch(r"[-+]?[0-9._]+[eE][-+]?[0-9]+", text)


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0{<"), max_size=12).filter(_is_quoted)
_HOSTILE = st.sampled_from(
    ["$(touch x)", "`id`", "a b", "it's", '"', "\\", "; false", "#x", "- x", "k: v", "\u2028", "\U0001f600"]
)
_SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | _TEXT | _HOSTILE | _RAW
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("klm"), inner, max_size=2),
    max_leaves=2,
)
_USER = st.text(
    st.characters(categories=["L", "N", "P", "S"], exclude_characters="-{<"), min_size=1, max_size=6
).filter(_is_quoted)
_MEANT = st.fixed_dictionaries(
    {},
    optional={
        "ansible_user": _USER | st.just("a $(b) 'c'"),
        "ansible_port": st.integers(1, 65535) | st.integers(1, 65535).map(str),
        "ansible_become": st.booleans() | st.sampled_from(["yes", "no"]),
        "ansible_connection": st.sampled_from(["ssh", "local", "smart", "docker"]),
        "coldstart_site": st.sampled_from(["edge", "cloud"]),
        "ansible_timeout": st.integers(1, 30),
    },
)
_VARS = st.builds(
    lambda own, meant: own | meant, st.dictionaries(st.sampled_from("vwxyz"), _VALUES, max_size=3), _MEANT
)
_PRIORITY = st.none() | st.integers(-3, 12) | st.integers(0, 12).map(str)


@st.composite
def _groups(draw, names, depth=3):
    """A group: its sections in any order; children from later names only."""
    chosen = draw(st.lists(st.sampled_from(names), max_size=3, unique=True)) if names and depth else []
    sections = {
        "hosts": draw(st.dictionaries(st.sampled_from(KEYS), st.none() | _VARS, max_size=3)),
        "children": {name: draw(st.none() | _groups(names[names.index(name) + 1 :], depth - 1)) for name in chosen},
        "vars": draw(_VARS) | ({} if (priority := draw(_PRIORITY)) is None else {"ansible_group_priority": priority}),
    }
    order = draw(st.permutations(list(sections)))
    return {key: sections[key] or None for key in order if sections[key] or draw(st.booleans())}


@st.composite
def documents(draw):
    """At least one host; all, ungrouped and the other groups at the top in any order, or nested."""
    top = {"all": draw(_groups(GROUPS))} if draw(st.booleans()) else {}
    top |= {name: draw(_groups(GROUPS[GROUPS.index(name) + 1 :])) for name in draw(st.sets(st.sampled_from(GROUPS)))}
    if draw(st.booleans()):
        hosts = draw(st.dictionaries(st.sampled_from(KEYS), st.none() | _VARS, max_size=2))
        top["ungrouped"] = {"hosts": hosts or None}
    if (top.get("all") or {}).get("vars"):
        top["all"]["vars"].pop("ansible_group_priority", None)
    assume(any(map(_has_hosts, top.values())))
    return {name: top[name] for name in draw(st.permutations(list(top)))}


def _has_hosts(group):
    return bool(group) and bool(group.get("hosts") or any(map(_has_hosts, (group.get("children") or {}).values())))


_FILES = st.dictionaries(
    st.sampled_from(["a.yml", "b", "c.yaml", "d.json", "sub/e.yml", ".f.yml", "g.yml~", "h.md"]), _VARS, max_size=3
)
_ENTRY = st.tuples(st.sampled_from(["", ".yml", ".yaml", ".json"]), _VARS | st.none()) | st.tuples(st.just("/"), _FILES)
_FOLDERS = st.fixed_dictionaries(
    {
        "group_vars": st.dictionaries(st.sampled_from(["all", "ungrouped", "none", *GROUPS]), _ENTRY, max_size=3),
        "host_vars": st.dictionaries(st.sampled_from(HOSTS), _ENTRY, max_size=2),
    }
)


def dumped(data, *, as_json=False) -> str:
    if as_json:
        return re.sub(r"rawword<[^>]*>", "word", json.dumps(data))
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000)
    return re.sub(r"rawword<([^>]*)>", r"\1", text)


def write(folder: Path, document: dict, folders: dict) -> Path:
    file = folder / "inventory.yaml"
    file.write_text(dumped(document), "utf-8")
    for kind, entries in folders.items():
        for name, (ending, data) in entries.items():
            inner = {f"/{key}": value for key, value in data.items()} if ending == "/" else {ending: data}
            for rest, values in inner.items():
                path = folder / kind / f"{name}{rest}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("" if values is None else dumped(values, as_json=rest.endswith(".json")), "utf-8")
    return file


@pytest.fixture
def place(tmp_path):
    """A folder of its own for each example: Ansible remembers by path what it has read."""
    count = itertools.count()

    def make() -> Path:
        folder = tmp_path / str(next(count))
        folder.mkdir()
        return folder

    return make


@given(documents(), _FOLDERS)
@PROFILE
def test_hosts_groups_and_variables_are_ansibles(place, document, folders):
    path = write(place(), document, folders)
    mine, theirs = inventory.load(path), Theirs(path)
    assert {node.name: plain(node.vars) for node in mine.nodes} == theirs.hostvars()
    assert [node.name for node in mine.nodes] == list(theirs.inventory.hosts)
    for node in mine.nodes:
        groups = sort_groups(theirs.inventory.hosts[node.name].get_groups())
        assert node.groups == tuple(group.name for group in groups if group.name != "all")
    assert [group.name for group in mine.groups] == list(theirs.inventory.groups)
    for group in mine.groups:
        known = theirs.inventory.groups[group.name]
        assert group.children == tuple(child.name for child in known.child_groups)
        assert group.hosts == tuple(host.name for host in known.hosts)


def piped_in(text, monkeypatch):
    inventory._stdin.cache_clear()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    return inventory.load("-")


def understood(nodes):
    return {node.name: (plain(node.vars), node.site, set(node.groups), node.settings) for node in nodes}


@given(documents(), _FOLDERS)
@settings(PROFILE, max_examples=EXAMPLES // 10)
def test_json_is_what_ansible_inventory_lists(place, document, folders):
    """And read again through `-` it is the same inventory."""
    path = write(place(), document, folders)
    mine, theirs = inventory.load(path), Theirs(path).listed()
    assert plain(json.loads(inventoried.as_json(mine.nodes, mine.groups))) == plain(theirs)
    with pytest.MonkeyPatch.context() as patch:
        assert understood(piped_in(json.dumps(theirs), patch).nodes) == understood(mine.nodes)


@pytest.mark.parametrize("name", ["local", "edge", "hybrid"])
def test_shipped_inventories_are_what_ansible_lists(name):
    path = SHIPPED / f"{name}.yaml"
    mine = inventory.load(path)
    assert json.loads(inventoried.as_json(mine.nodes, mine.groups)) == Theirs(path).listed()


# -- patterns

_NAMES = st.sampled_from(
    [*GROUPS, *HOSTS, "all", "ungrouped", "*", "pi*", "?eb", "[!p]*", "*.lan", "~pi0[12]", "~.*-", "n0-x"]
)
_SUBSCRIPTS = st.sampled_from(["[0]", "[1]", "[-1]", "[0:1]", "[1:]", "[1:2]", "[5]"])
_PARTS = _NAMES | st.builds("{}{}".format, st.sampled_from(GROUPS), _SUBSCRIPTS)
_PATTERNS = st.builds(
    lambda parts, by: by.join(sign + part for sign, part in parts),
    st.lists(st.tuples(st.sampled_from(["", "", "!", "&"]), _PARTS), min_size=1, max_size=4),
    st.sampled_from([",", ":", ", "]),
)


@given(documents(), st.lists(_PATTERNS, min_size=3, max_size=8))
@settings(PROFILE, max_examples=EXAMPLES // 4)
def test_limit_names_the_hosts_ansible_would(place, document, patterns):
    """What is refused here is empty there, or has a word that names nothing."""
    path = write(place(), document, {})
    mine, theirs = inventory.load(path), Theirs(path)
    below = {group.name: group.children for group in mine.groups}
    shuffled = [name for name, children in below.items() if any(below[child] for child in children)]
    for pattern in patterns:
        if any(f"{name}[" in pattern for name in shuffled):
            continue  # of grandchildren Ansible's order is that of memory addresses
        try:
            chosen = {node.name for node in inventory.select(mine, pattern)}
        except UsageError as error:
            chosen = set() if error.message.endswith("is left") else None
        if chosen is not None:
            assert chosen == theirs.limited(pattern)
        else:
            assert names_nothing(theirs, pattern)


def names_nothing(theirs: Theirs, pattern: str) -> bool:
    """Whether a word of the pattern names no host in Ansible's eyes. With `:` between them, words cannot be told from
    here: a name with a colon in it is one."""
    words = [word.strip().lstrip("!&") for word in pattern.split(",")]
    return ":" in pattern or any(is_empty(theirs, word) for word in words)


def is_empty(theirs: Theirs, word: str) -> bool:
    try:
        return not theirs.limited(word)
    except AnsibleError:
        return True


# -- values


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30) | _HOSTILE,
    st.sampled_from(["own", "ansible_python_interpreter", "coldstart_site", "ansible_user", "ansible_host"]),
)
@PROFILE
def test_a_value_comes_out_as_the_same_text(place, value, key):
    """Spaces, quotes, `$(...)`: nothing is split, filled in or stripped. Or it is refused, with the line."""
    path = place() / "f.yaml"
    path.write_text(yaml.safe_dump({"all": {"hosts": {"h": {key: value}}}}, width=10_000), "utf-8")
    try:
        (node,) = inventory.load(path).nodes
    except UsageError as error:
        refused = str(error)
    else:
        refused = ""
        assert node.vars[key] == value
        assert key in ("own", "ansible_python_interpreter") or node.settings[key] == value
    assert not refused or re.match(rf"{path}:\d: ", refused)
    assert not refused or key != "own" or "{{" in value or "{%" in value
