"""Variables that mean something are typed settings; those that could do harm or mean nothing are refused."""

import pytest

from coldstart import variables
from coldstart.sshargs import SshArgs
from coldstart.variables import VariableError


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({}, {}),
        ({"own": [1]}, {}),
        ({"ansible_connection": "smart"}, {"ansible_connection": "ssh"}),
        ({"ansible_connection": "paramiko_ssh"}, {"ansible_connection": "ssh"}),
        ({"ansible_connection": "ansible.builtin.local"}, {"ansible_connection": "local"}),
        ({"ansible_connection": "docker"}, {"ansible_connection": "docker"}),
        ({"ansible_port": "2222"}, {"ansible_port": 2222}),
        ({"ansible_ssh_host": "a", "ansible_host": "b"}, {"ansible_host": "a"}),
        ({"ansible_ssh_user": "a"}, {"ansible_user": "a"}),
        ({"ansible_ssh_port": 7}, {"ansible_port": 7}),
        ({"ansible_private_key_file": "a"}, {"ansible_ssh_private_key_file": "a"}),
        (
            {"ansible_ssh_private_key_file": "b", "ansible_private_key_file": "a"},
            {"ansible_ssh_private_key_file": "b"},
        ),
        ({"ansible_python_interpreter": "auto_silent"}, {}),
        ({"ansible_python_interpreter": "/opt/a b/python3"}, {"ansible_python_interpreter": "/opt/a b/python3"}),
        ({"ansible_become": "no"}, {"ansible_become": False}),
        (
            {"ansible_become": True, "ansible_become_method": "sudo", "ansible_become_user": "root"},
            {"ansible_become": True},
        ),
        (
            {"ansible_ssh_common_args": "-J a", "ansible_ssh_extra_args": "-p 7", "ansible_ssh_args": ""},
            {"ansible_ssh_common_args": SshArgs(jump="a", port=7)},
        ),
        ({"ansible_host_key_checking": True, "ansible_winrm_scheme": "x", "ansible_remote_tmp": "x"}, {}),
        ({"coldstart_memory_floor": "256MiB"}, {"coldstart_memory_floor": 256 << 20}),
        ({"coldstart_disk_floor": "1 GB"}, {"coldstart_disk_floor": 10**9}),
        ({"coldstart_allow_engine_restart": "yes"}, {"coldstart_allow_engine_restart": True}),
        ({"coldstart_runtimes": "process, docker"}, {"coldstart_runtimes": ("process", "docker")}),
        ({"coldstart_docker_host": "unix:///x"}, {"coldstart_docker_host": "unix:///x"}),
    ],
)
def test_settings(given, settings):
    variables.check(given)
    assert variables.settings(given) == settings


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ansible_host", "", "is empty (leave the variable out)"),
        ("ansible_host", "-oProxyCommand=x", "'-oProxyCommand=x' would be taken for an option"),
        ("ansible_host", "a\nb", "'a\\nb' holds a control character or a line break"),
        ("ansible_user", "-l", "'-l' would be taken for an option"),
        ("ansible_user", 1000, 'must be text, not 1000 (put it in quotes: "1000")'),
        ("ansible_user", ["a"], "must be text, not a list"),
        ("ansible_ssh_private_key_file", "a\tb", "'a\\tb' holds a control character"),
        ("ansible_python_interpreter", "-c", "'-c' would be taken for an option"),
        ("coldstart_site", "a\x1b[0m", "'a\\x1b[0m' holds a control character"),
        ("coldstart_docker_host", "a\u2028b", "'a\\u2028b' holds a control character"),
        ("ansible_port", True, "must be a whole number, not True"),
        ("ansible_become_method", "su", "'su' is not supported: become is `sudo -n` and nothing else"),
        ("ansible_become_user", "postgres", "'postgres': become is `sudo -n`, to root"),
        ("ansible_become_flags", "-i", "become is `sudo -n` and nothing else"),
        ("ansible_become_password", "x", "passwords are not read from an inventory"),
        ("ansible_winrm_password", "x", "passwords are not read from an inventory"),
        ("ansible_ssh_private_key_passphrase", "x", "passwords are not read from an inventory"),
        ("ansible_host_key_checking", False, "host keys are always verified (leave it out; --accept-new-host-keys"),
        ("ansible_ssh_common_args", "-o StrictHostKeyChecking=no", "StrictHostKeyChecking=no: host keys are always"),
        ("ansible_ssh_extra_args", "-A", "'-A' is not read here (known: "),
        ("ansible_ssh_executabel", "x", "unknown variable ("),
        ("ansible_prot", 1, "unknown variable (did you mean 'ansible_port'?"),
        ("coldstart_floor", 1, "unknown variable (did you mean 'coldstart_disk_floor'?"),
        ("coldstart_memory_floor", 256, "'256' needs a unit: 8MiB"),
        ("coldstart_memory_floor", "much", "'much' is not a number with a unit"),
        ("coldstart_max_parallel", 0, "0: at least 1"),
        ("coldstart_allow_engine_restart", 2, "must be true or false, not 2"),
        ("group_names", "x", "Ansible sets it itself, whatever stands here"),
        (8080, "x", "a variable's name must be text (put it in quotes)"),
    ],
)
def test_refuses(key, value, message):
    with pytest.raises(VariableError) as error:
        variables.check({"own": 1, key: value})
    assert error.value.key == key
    said = f"{error.value} ({error.value.hint})" if error.value.hint else str(error.value)
    assert said.startswith(message)


def test_contradictions_of_several_variables_are_found_when_they_are_merged():
    given = {"ansible_ssh_common_args": "-J a", "ansible_ssh_extra_args": "-o 'ProxyCommand=nc %h %p'"}
    variables.check(given)
    with pytest.raises(VariableError, match="exclude each other"):
        variables.settings(given)
