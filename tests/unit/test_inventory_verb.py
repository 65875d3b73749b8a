"""The verb `inventory` shows what was understood; a pattern is completed from it."""

import io
import json

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from coldstart import cli, inventory
from coldstart.errors import DocumentError
from coldstart.model import Node
from coldstart.report import inventoried

LISTED = {
    "_meta": {"hostvars": {"h1": {"ansible_port": 22, "own": "\U0001f600"}, "h2": {"coldstart_site": "edge"}}},
    "all": {"children": ["ungrouped", "web", "empty"]},
    "web": {"hosts": ["h1", "h2"]},
}


def run(*words, text=""):
    inventory._stdin.cache_clear()
    return CliRunner().invoke(cli.main, ["inventory", *words], input=text, catch_exceptions=False)


@pytest.fixture
def read(monkeypatch):
    def read(text):
        inventory._stdin.cache_clear()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return inventory.load("-")

    return read


def test_a_table_of_nodes():
    lines = run("hybrid", "--limit", "vm-arm,shop-a").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["node", "site", "address", "groups", "settings"],
        ["vm-arm", "cloud", "ubuntu@203.0.113.11", "arm,", "cloud,", "public", "-"],
        ["shop-a", "edge", "pi@shop-a", "arm,", "edge", "memory_floor=128MiB,", "runtimes=process,docker"],
    ]


def test_json_lists_only_the_limits_hosts():
    listed = json.loads(run("hybrid", "--limit", "vm-arm", "--format", "json").stdout)
    assert list(listed["_meta"]["hostvars"]) == ["vm-arm"]
    assert listed["public"] == {"hosts": ["vm-arm"]}
    assert listed["cloud"] == {"children": ["public", "private"]}
    assert "private" not in listed


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "h"),
        ({"ansible_connection": "local"}, "local"),
        ({"ansible_host": "10.0.0.1", "ansible_user": "pi", "ansible_port": 2222}, "pi@10.0.0.1:2222"),
        ({"ansible_host": "::1", "ansible_port": 22}, "[::1]:22"),
        ({"ansible_host": "::1"}, "::1"),
        ({"ansible_connection": "docker"}, "docker h"),
    ],
)
def test_addresses(settings, address):
    assert inventoried.address(Node("h", settings=settings)) == address


# -- standard input


def test_what_ansible_inventory_lists_is_read(read):
    """Its variables are final; characters that JSON writes as two escapes are one."""
    found = read(json.dumps(LISTED, indent=4))
    h1, h2 = found.nodes
    assert h1.vars == {"ansible_port": 22, "own": "\U0001f600"}
    assert (h2.site, h2.groups, h2.where) == ("edge", ("web",), "<stdin>:23")
    assert "empty" in {group.name for group in found.groups}


def test_a_verb_may_ask_twice(read):
    read(json.dumps(LISTED))
    assert len(inventory.load("-").nodes) == 2


def test_the_yaml_form_is_read(read):
    (node,) = read("all:\n  hosts:\n    h: {x: yes}\n").nodes
    assert node.vars == {"x": True}


def test_folders_are_not_looked_for(read, tmp_path, monkeypatch):
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_text("x: 1")
    monkeypatch.chdir(tmp_path)
    assert read(json.dumps(LISTED)).nodes[1].vars == {"coldstart_site": "edge"}


def changed(**parts):
    return json.dumps(LISTED | parts, indent=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: empty (ansible-inventory -i INVENTORY --list | coldstart ... -)"),
        ("  \n", "1: empty"),
        ("{", "1: not valid JSON: "),
        ('{"a": 1,\n}', "2: not valid JSON: "),
        ("[]", "1: not a mapping"),
        ("{}", "1: no `_meta` with `hostvars` in it (pipe what"),
        ('{"_meta": {}}', "1: no `_meta` with `hostvars`"),
        ('{"_meta": {"hostvars": []}}', "1: no `_meta` with `hostvars`"),
        ('{"_meta": {"hostvars": {}}}', "1: no hosts"),
        ('{"a": 1, "a": 2}', "1: duplicate key 'a'"),
        ("[" * 3_000, "1: nested too deeply"),
        (changed(x="[" * 70).replace('"' + "[" * 70 + '"', "[" * 70 + "]" * 70), "26: nested too deeply"),
        ('{"a": ' + "[" * 100_000, "1: nested too deeply"),
        (changed(web={"hosts": ["h1"], "vars": {"x": 1}}), "24: web.vars: the hosts' variables are not merged (list w"),
        (changed(web={"hosts": "h1"}), "21: web.hosts: must be a list, not 'h1'"),
        (changed(web={"hosts": ["h[1:2]"]}), "22: 'h[1:2]' is not a host name"),
        (changed(web={"hosts": ["h1"], "hots": []}), "24: web.hots: unknown key (did you mean 'hosts'?"),
        (changed(a={"children": ["b"]}, b={"children": ["a"]}), "33: groups that contain each other: b > a"),
        (changed(_meta={"hostvars": {"h1": {"x": "{{ y }}"}}}), "5: _meta.hostvars.h1.x: a template ({{)"),
        (
            changed(_meta={"hostvars": {"h1": {"ansible_port": 0}}}),
            "5: _meta.hostvars.h1.ansible_port: 0 is not a port",
        ),
        (changed(_meta={"hostvars": {"h1": 7}}), "4: _meta.hostvars.h1: must be a mapping"),
    ],
)
def test_stdin_is_refused_with_the_line(read, text, message):
    with pytest.raises(DocumentError) as error:
        read(text)
    assert str(error.value).startswith(f"<stdin>:{message}")


# -- completion


@pytest.mark.parametrize(
    ("words", "begun", "values"),
    [
        (["inventory", "hybrid", "--limit"], "vm", ["vm-x86", "vm-arm"]),
        (["inventory", "hybrid", "--limit"], "cloud:!p", ["cloud:!public", "cloud:!private"]),
        (["sweep", "hybrid", "--boots", "3", "--limit"], "arm,&ed", ["arm,&edge"]),
        (["inventory", "--limit"], "vm", []),
        (["inventory", "nothing.yaml", "--limit"], "vm", []),
        (["inventory", "-", "--limit"], "vm", []),
    ],
)
def test_a_pattern_is_completed_from_the_inventory(words, begun, values):
    completer = ShellComplete(cli.main, {}, "coldstart", "_COLDSTART_COMPLETE")
    assert [item.value for item in completer.get_completions(words, begun)] == values
