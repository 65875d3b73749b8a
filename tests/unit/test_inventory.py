"""An inventory merges as Ansible does; what would be skipped or guessed is refused with its line."""

import pytest

from coldstart import inventory
from coldstart.errors import DocumentError, UsageError

FLEET = """\
all:
  vars: {level: all, ansible_user: root}
  hosts:
    lone: {ansible_host: 10.0.0.1}
  children:
    edge:
      vars: {level: edge, coldstart_site: edge, coldstart_max_parallel: 2}
      hosts:
        pi1: {ansible_port: "2222", level: host}
        pi2:
      children:
        attic:
          vars: {level: attic}
          hosts: {pi3: {}}
    cloud:
      vars: {level: cloud, ansible_become: yes}
      hosts:
        vm1: {coldstart_runtimes: "process, docker"}
        pi2: {coldstart_runtimes: [process]}
    laptop:
      hosts:
        thinkpad: {ansible_connection: local, color: {any: [1]}}
"""


@pytest.fixture
def read(tmp_path):
    def read(text):
        file = tmp_path / "f.yaml"
        file.write_text(text)
        return inventory.load(file)

    return read


@pytest.fixture
def fleet(read):
    return read(FLEET)


def test_nodes_are_in_the_order_of_the_file(fleet):
    assert [node.name for node in fleet.nodes] == ["lone", "pi1", "pi2", "pi3", "vm1", "thinkpad"]


@pytest.mark.parametrize(
    ("name", "groups", "level"),
    [
        ("lone", ("ungrouped",), "all"),
        ("pi1", ("edge",), "host"),
        ("pi2", ("cloud", "edge"), "edge"),
        ("pi3", ("edge", "attic"), "attic"),
        ("vm1", ("cloud",), "cloud"),
    ],
)
def test_variables_merge_as_ansible_merges_them(fleet, name, groups, level):
    """all < parent < child < host; groups of one depth by name."""
    node = next(node for node in fleet.nodes if node.name == name)
    assert (node.groups, node.vars["level"], node.vars["ansible_user"]) == (groups, level, "root")


def test_variables_are_kept_as_they_are_and_settings_are_typed(fleet):
    """What Ansible would show, and what it means here."""
    by_name = {node.name: node for node in fleet.nodes}
    assert (by_name["pi1"].vars["ansible_port"], by_name["pi1"].settings["ansible_port"]) == ("2222", 2222)
    assert by_name["pi1"].settings["coldstart_max_parallel"] == 2
    assert by_name["vm1"].vars["ansible_become"] is True
    assert by_name["vm1"].vars["coldstart_runtimes"] == "process, docker"
    assert by_name["vm1"].settings["coldstart_runtimes"] == ("process", "docker")
    assert by_name["pi2"].settings["coldstart_runtimes"] == ("process",)
    assert by_name["thinkpad"].vars["color"] == {"any": [1]}
    assert by_name["thinkpad"].settings == {"ansible_connection": "local", "ansible_user": "root"}


def test_a_node_knows_its_site_and_line(fleet):
    sites = {node.name: node.site for node in fleet.nodes}
    assert sites["pi1"] == "edge"
    assert sites["thinkpad"] == "local"
    assert sites["vm1"] == "unknown"
    assert fleet.nodes[1].where == f"{fleet.path}:9"


def test_groups_may_be_defined_apart(read):
    """At the top, again, or by name only: one group is one group."""
    text = """
all: {children: {a: {children: {b: }}}}
b: {hosts: {h: {x: 1}}, vars: {v: b}}
a: {vars: {v: a, w: a}}
c: {hosts: {h: {y: 2}}}
ungrouped: {hosts: {h: , u: }}
"""
    h, u = read(text).nodes
    assert h.groups == ("a", "c", "b")
    assert h.vars == {"v": "b", "w": "a", "x": 1, "y": 2}
    assert u.groups == ("ungrouped",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("all:\n  hosts:\n    h:\n    h:", "4: duplicate key 'h', first on line 3"),
        ("all:\n  hosts: {}", "1: no hosts (add one below `all: hosts:`)"),
        ("all:", "1: no hosts"),
        ("all:\n  host: {h: }", "2: all.host: unknown key (did you mean 'hosts'? known: children, hosts, vars)"),
        ("all: text", "1: all: must be a mapping of keys to values, not 'text'"),
        ("all:\n  hosts: h", "2: all.hosts: must be a mapping of keys to values, not 'h'"),
        ("all:\n  hosts: [h]", "2: all.hosts: must be a mapping of keys to values, not a list"),
        ("all:\n  hosts:\n    7: ", '3: all.hosts.7: must be text, not 7 (put it in quotes: "7")'),
        ("all:\n  hosts:\n    h: 1", "3: all.hosts.h: must be a mapping of keys to values, not 1"),
        (
            "all:\n  hosts:\n    pi[03:01]:",
            "3: 'pi[03:01]': [03:01] is not a range of hosts (it begins after its end)",
        ),
        ("all:\n  hosts:\n    'web:0':", "3: 'web:0': 0 is not a port (1..65535)"),
        ("all:\n  hosts:\n    'a b':", "3: 'a b' is not a host name (letters, digits, _ . - and ranges like [01:20])"),
        ("all:\n  hosts:\n    h:\n  children:\n    a:\n      hosts:\n        'h:22':", "7: h was named first at "),
        ("all:\n  hosts:\n    h: {x: 0777}", "3: '0777': Ansible reads an octal number here (put it in quotes)"),
        ("a:\n  children:\n    ungrouped:", "3: a > ungrouped: ungrouped is what is in no other group"),
        ("ungrouped:\n  children:\n    a:", "3: ungrouped > a: ungrouped is what is in no other group"),
        ("all:\n  hosts: {'h[0:9999]': , 'g[1:90001]': }", "2: 'g[1:90001]' are more than 10,000 hosts"),
        ("all:\n  children:\n    'a b':", "3: 'a b' is not a group name"),
        ("7: {hosts: {h: }}", "1: 7: a group's name must be text (put it in quotes)"),
        ("all:\n  hosts:\n    g:\n  children:\n    g:", "3: 'g' is a group and a host (rename one)"),
        (
            "all:\n  children:\n    a:\n      children:\n        b:\n          children:\n            a:",
            "5: groups that",
        ),
        ("a:\n  hosts: {h: }\n  children:\n    all:", "4: groups that contain each other: "),
        (
            "all:\n  hosts:\n    h:\n      ansible_hots: x",
            "4: all.hosts.h.ansible_hots: unknown variable (did you mean 'ansible_host'? known: ansible_become, ",
        ),
        ("all:\n  hosts: {h: }\n  vars:\n    coldstart_sight: x", "4: all.vars.coldstart_sight: unknown variable (did"),
        ("all:\n  vars: {ansible_group_priority: 9}", "2: all.vars.ansible_group_priority: all comes first, whatever"),
        (
            "a:\n  vars: {ansible_group_priority: x}",
            "2: a.vars.ansible_group_priority: must be a whole number, not 'x'",
        ),
        ("a:\n  hosts:\n    h: {ansible_group_priority: 2}", "3: a.hosts.h.ansible_group_priority: counts only in"),
        ("all:\n  vars:\n    8: 9", "3: all.vars.8: a variable's name must be text"),
        *(
            (f"all:\n  hosts:\n    h:\n      {name}: x", f"4: all.hosts.h.{name}: passwords are not read from an inv")
            for name in ("ansible_password", "ansible_ssh_pass", "ansible_become_password", "ansible_sudo_pass")
        ),
        ("all:\n  vars: {ansible_port: 70000}", "2: all.vars.ansible_port: 70000 is not a port: 1..65535"),
        ("all:\n  vars: {ansible_port: ssh}", "2: all.vars.ansible_port: must be a whole number, not 'ssh'"),
        (
            "all:\n  vars: {ansible_host: 10.5}",
            '2: all.vars.ansible_host: must be text, not 10.5 (put it in quotes: "10',
        ),
        ("all:\n  vars: {ansible_user: }", "2: all.vars.ansible_user: has no value; it must be text"),
        ("all:\n  vars: {ansible_become: maybe}", "2: all.vars.ansible_become: must be true or false, not 'maybe'"),
        ("all:\n  vars: {coldstart_max_parallel: 0}", "2: all.vars.coldstart_max_parallel: 0: at least 1"),
        ("all:\n  vars: {coldstart_runtimes: []}", "2: all.vars.coldstart_runtimes: must be a list of runtimes: ["),
        (
            "all:\n  vars: {coldstart_runtimes: dokcer}",
            "2: all.vars.coldstart_runtimes: no runtime 'dokcer': did you me",
        ),
        ("all:\n  vars: {coldstart_runtimes: [[]]}", "2: all.vars.coldstart_runtimes: no runtime []: known: "),
        ("all:\n  hosts:\n    h: {x: '{{ y }}'}", "3: a template ({{)"),
        ("all:\n  hosts:\n    h: {x: !vault y}", "3: tag !vault: secrets are neither needed nor read here"),
    ],
)
def test_refuses_with_the_line(read, tmp_path, text, message):
    with pytest.raises(DocumentError) as error:
        read(text)
    assert str(error.value).startswith(f"{tmp_path}/f.yaml:{message}")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("all", "lone pi1 pi2 pi3 vm1 thinkpad"),
        ("*", "lone pi1 pi2 pi3 vm1 thinkpad"),
        ("edge", "pi1 pi2 pi3"),
        ("vm1,pi1", "pi1 vm1"),
        ("vm1:pi1", "pi1 vm1"),
        (" vm1 , attic ", "pi3 vm1"),
        ("pi?", "pi1 pi2 pi3"),
        ("cl*", "pi2 vm1"),
        ("edge:&cloud", "pi2"),
        ("edge,!pi1", "pi2 pi3"),
        ("!pi1,edge", "pi2 pi3"),
        ("!edge", "lone vm1 thinkpad"),
        ("&cloud", "pi2 vm1"),
        ("edge,cloud,&edge,!attic", "pi1 pi2"),
        ("ungrouped", "lone"),
        ("", "lone pi1 pi2 pi3 vm1 thinkpad"),
        ("~pi[12]$", "pi1 pi2"),
        ("pi[!3]", "pi1 pi2"),
        ("edge[0]", "pi1"),
        ("edge[-1]", "pi3"),
        ("edge[1:2]", "pi2 pi3"),
        ("edge[1:]:!attic", "pi2"),
        ("edge[0],cloud[0]", "pi1 vm1"),
        ("cloud:edge[0]", "pi1 pi2 vm1"),
        ("all:!ungrouped", "pi1 pi2 pi3 vm1 thinkpad"),
    ],
)
def test_limit_selects_as_ansible_does(fleet, pattern, names):
    assert " ".join(node.name for node in inventory.select(fleet, pattern)) == names


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("pi9", "--limit pi9: no host or group 'pi9' (did you mean 'pi3'? known: all, attic, cloud, edge, laptop"),
        ("edge,!pu1", "--limit edge,!pu1: no host or group 'pu1' (did you mean 'pi1'?"),
        ("x*", "--limit x*: no host or group 'x*'"),
        ("attic:&cloud", "--limit attic:&cloud: no node of "),
        ("~(", "--limit ~(: '~(' is not a regular expression"),
        ("edge[3]", "--limit edge[3]: 'edge[3]': edge has 3 host(s)"),
        ("edge[7:9]", "--limit edge[7:9]: 'edge[7:9]': edge has 3 host(s)"),
        ("@retry", "--limit @retry: '@retry': files of names are not read (write the names: a,b)"),
        ("!", "--limit !: no host or group ''"),
    ],
)
def test_limit_refuses(fleet, pattern, message):
    with pytest.raises(UsageError) as error:
        inventory.select(fleet, pattern)
    assert str(error.value).startswith(message)


def test_the_shipped_inventory_is_this_machine():
    (node,) = inventory.load(inventory.find("local")).nodes
    assert (node.name, node.site, node.vars) == ("localhost", "local", {"ansible_connection": "local"})


def test_an_unknown_inventory_lists_the_shipped_ones():
    with pytest.raises(UsageError) as error:
        inventory.find("locla")
    assert str(error.value).startswith("locla: no such file (did you mean 'local'? shipped inventories: ")
