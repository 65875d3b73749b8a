"""group_vars/ and host_vars/ beside an inventory are read as Ansible reads them, or refused: never passed over."""

import pytest

from coldstart import inventory
from coldstart.errors import DocumentError

FLEET = "all:\n  vars: {x: inline all}\n  children:\n    web:\n      vars: {x: inline web}\n      hosts: {h: }\n"
PIPE = "; or let Ansible read it: ansible-inventory -i {}/f.yaml --list, and INVENTORY as `-`)"


@pytest.fixture
def read(tmp_path):
    def read(files, text=FLEET):
        for name, content in {"f.yaml": text, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return inventory.load(tmp_path / "f.yaml")

    return read


@pytest.mark.parametrize(
    ("files", "x"),
    [
        ({}, "inline web"),
        ({"group_vars/all.yml": "x: file all"}, "file all"),
        ({"group_vars/all": "x: a", "group_vars/web.json": '{"x": "file web"}'}, "file web"),
        ({"group_vars/web/10.yml": "x: ten", "group_vars/web/20.yml": "x: twenty"}, "twenty"),
        ({"group_vars/web/b/1.yml": "x: deep", "group_vars/web/a": "x: flat"}, "deep"),
        ({"host_vars/h.yaml": "x: host", "group_vars/web.yml": "x: web"}, "host"),
        ({"group_vars/web.yml": "# nothing\n"}, "inline web"),
        (
            {"group_vars/web/.hidden": "x: [", "group_vars/web/x.yml~": "x: [", "group_vars/web/README.md": "-"},
            "inline web",
        ),
        ({"group_vars/other.yml": "not: [", "host_vars/other": "not: ["}, "inline web"),
        ({"group_vars/web.yml": "x: yes"}, True),
        ({"group_vars/web.json": '{"x": "\\ud83d\\ude00\x7f"}'}, "\U0001f600\x7f"),
        ({"group_vars/web.json": "x: no JSON"}, "no JSON"),
    ],
)
def test_the_later_file_wins(read, files, x):
    """all < group < host, and each file after what the inventory says of groups."""
    (node,) = read(files).nodes
    assert node.vars["x"] == x


def test_a_hosts_own_variables_win_over_group_vars(read):
    text = "web:\n  hosts: {h: {x: inline host}}\n"
    assert read({"group_vars/web.yml": "x: web"}, text).nodes[0].vars["x"] == "inline host"
    assert read({"host_vars/h.yml": "x: file"}, text).nodes[0].vars["x"] == "file"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"group_vars/web.yml": "$ANSIBLE_VAULT;1.1;AES256\n6162\n"},
            "group_vars/web.yml:1: encrypted by ansible-vault: secrets are neither needed nor read here (",
        ),
        ({"group_vars/web.yml": "a: 1\nx: !vault y"}, "group_vars/web.yml:2: tag !vault: secrets are neither"),
        ({"host_vars/h.yml": "a: 1\nx: '{{ y }}'"}, "host_vars/h.yml:2: a template ({{) (write the value itself"),
        ({"group_vars/web": "[web]\nx=1\n"}, "group_vars/web:2: "),
        ({"group_vars/web.yml": "- x"}, "group_vars/web.yml:1: not a mapping"),
        ({"group_vars/web.yml": "x: 0777"}, "group_vars/web.yml:1: '0777': Ansible reads an octal number here"),
        ({"group_vars/web.ini": "x=1"}, "group_vars/web.ini:1: only YAML and JSON are read (rename it web.yaml"),
        ({"group_vars/web/x.ini": "x=1"}, "group_vars/web/x.ini:1: only YAML and JSON are read"),
        ({"group_vars/web/x.d/y.yml": "x: 1"}, "group_vars/web/x.d:1: only YAML and JSON are read"),
        (
            {"group_vars/web.yml": "x: 1", "group_vars/web/y.yml": "x: 1"},
            "group_vars/web.yml:1: Ansible reads only web, which is also there (make them one",
        ),
        ({"group_vars": "x: 1"}, "group_vars:1: is no folder (rename it"),
        ({"group_vars/web.yml": "ansible_hots: h"}, "group_vars/web.yml:1: ansible_hots: unknown variable (did you m"),
        ({"group_vars/web.yml": "ansible_group_priority: 5"}, "group_vars/web.yml:1: ansible_group_priority: counts o"),
        ({"host_vars/h.yml": "ansible_ssh_pass: x"}, "host_vars/h.yml:1: ansible_ssh_pass: passwords are not read"),
    ],
)
def test_what_cannot_be_read_is_refused(read, tmp_path, files, message):
    with pytest.raises(DocumentError) as error:
        read(files)
    assert str(error.value).startswith(f"{tmp_path}/{message}")
    assert str(error.value).endswith(PIPE.format(tmp_path).removeprefix("; "))
