"""What an inventory's variables mean here: a node's settings, typed; and which variables nobody may set.

Names that begin with `ansible_` or `coldstart_` mean something to somebody: those below are read, those of other tools
and of Ansible's own ways (HARMLESS) are let pass, and whatever is left is most likely a typing error and refused. All
others are the user's own and are kept as they are.

Hosts, users and paths become arguments of programs and lines of protocols: what could be taken for an option, or ends a
line, is refused, whatever the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from coldstart import sshargs, units, yamlfile
from coldstart.agent import runtimes

_SECRET = re.compile(r"ansible_.*pass(word|wd|phrase)?(_.*)?|ansible_(ssh_)?private_key")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class VariableError(ValueError):
    """A variable that cannot be. key: its name; hint: the next step."""

    def __init__(self, key: str | int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.key = key
        self.hint = hint


def check(variables: Mapping[Any, Any]) -> None:
    """VariableError for the first that is unknown or cannot be what it is."""
    for key, value in variables.items():
        if not isinstance(key, str):
            raise VariableError(key, "a variable's name must be text", "put it in quotes")
        if key in _MEANT:
            _read(key, value)
        else:
            _check_unread(key)


def checked(document: yamlfile.Document, variables: Mapping[Any, Any] | None, at: yamlfile.Loc) -> dict[str, Any]:
    """The variables that stand at `at`. DocumentError with the line of the first that cannot be."""
    try:
        check(variables or {})
    except VariableError as error:
        raise document.refusal_of((*at, error.key), str(error), error.hint) from None
    return dict(variables or {})


def settings(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The merged variables of a node that mean something, typed, each under its first name. What is not set is absent.
    `ansible_ssh_common_args` is an SshArgs, of all such variables. VariableError if they contradict each other."""
    found = {key: _read(key, variables[key]) for key in sorted(_PLAIN) if key in variables}
    for first, names in _ALIASES.items():
        for name in names:
            if name in variables:
                found[first] = _read(name, variables[name])
    if texts := [variables[key] for key in _SSH_ARGS if key in variables]:
        found["ansible_ssh_common_args"] = _read("ansible_ssh_common_args", " ".join(texts))
    return {key: value for key, value in found.items() if value is not None}


def _read(key: str, value: Any) -> Any:
    try:
        return _MEANT[key](value)
    except ValueError as error:
        raise VariableError(key, str(error), getattr(error, "hint", "")) from None


def _check_unread(key: str) -> None:
    if key in _ANSIBLES_OWN:
        raise VariableError(key, "Ansible sets it itself, whatever stands here", "choose another name")
    if not key.startswith(("ansible_", "coldstart_")):
        return
    if _SECRET.fullmatch(key):
        raise VariableError(key, "passwords are not read from an inventory", "use a key; become is `sudo -n`")
    if key in _ELSEWHERE:
        raise VariableError(key, *_ELSEWHERE[key])
    if key not in HARMLESS and not key.startswith(HARMLESS_PREFIXES):
        raise VariableError(key, "unknown variable", yamlfile.suggestion(key, _MEANT))


# -- values


class _ValueError(ValueError):
    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def _text(value: Any) -> str:
    if value is None:
        raise ValueError("has no value; it must be text")
    if not isinstance(value, str):
        kind = "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else f"{value!r:.80}"
        plain = isinstance(value, bool | int | float)
        raise _ValueError(f"must be text, not {kind}", f'put it in quotes: "{str(value).lower()}"' if plain else "")
    if _CONTROL.search(value):
        raise ValueError(f"{value!r:.80} holds a control character or a line break")
    return value


def _word(value: Any) -> str:
    """Of a host, a user or a file: not to be taken for an option, or for nothing."""
    text = _text(value)
    if not text.strip():
        raise _ValueError("is empty", "leave the variable out")
    if text.startswith("-"):
        raise ValueError(f"{text!r:.80} would be taken for an option")
    return text


def _whole(low: int, high: int, message: str) -> Callable[[Any], int]:
    """Ansible takes "22" for 22, and `ansible-inventory` may write it so."""

    def read(value: Any) -> int:
        number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value) else value
        if isinstance(number, bool) or not isinstance(number, int):
            if value is None:
                raise ValueError("has no value; it must be a whole number")
            raise ValueError(f"must be a whole number, not {value!r:.80}")
        if not low <= number <= high:
            raise ValueError(f"{number}{message}")
        return number

    return read


def _size_bytes(value: Any) -> int:
    return units.parse_size_bytes(
        str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)
    )


def _connection(value: Any) -> str:
    name = _word(value).removeprefix("ansible.builtin.")
    return "ssh" if name in ("ssh", "smart", "paramiko", "paramiko_ssh") else name


def _interpreter(value: Any) -> str | None:
    """None: to be looked for."""
    path = _word(value)
    return None if path in ("auto", "auto_silent", "auto_legacy", "auto_legacy_silent") else path


def _runtimes(value: Any) -> tuple[str, ...]:
    words = [word.strip() for word in value.split(",")] if isinstance(value, str) else value
    if not isinstance(words, list) or not words:
        raise ValueError("must be a list of runtimes: [process, docker]")
    known = runtimes.names()
    for word in words:
        if word not in known:
            raise ValueError(f"no runtime {word!r}: {yamlfile.suggestion(word, known)}")
    return tuple(words)


def _become_method(value: Any) -> None:
    if _text(value).removeprefix("ansible.builtin.") != "sudo":
        raise _ValueError(f"{value!r:.80} is not supported: become is `sudo -n` and nothing else", "leave it out")


def _become_user(value: Any) -> None:
    if _text(value) != "root":
        raise _ValueError(f"{value!r:.80}: become is `sudo -n`, to root", "leave it out, or set ansible_user")


def _checked(value: Any) -> None:
    if not yamlfile.as_bool(value):
        raise _ValueError("host keys are always verified", "leave it out; --accept-new-host-keys stores new ones")


def _ssh_args(value: Any) -> sshargs.SshArgs:
    return sshargs.parse(_text(value))


_PORT = _whole(1, 65535, " is not a port: 1..65535")
_MEANT: dict[str, Callable[[Any], Any]] = {
    "ansible_become": yamlfile.as_bool,
    "ansible_become_method": _become_method,
    "ansible_become_user": _become_user,
    "ansible_connection": _connection,
    "ansible_host": _word,
    "ansible_host_key_checking": _checked,
    "ansible_port": _PORT,
    "ansible_private_key_file": _word,
    "ansible_python_interpreter": _interpreter,
    "ansible_ssh_args": _ssh_args,
    "ansible_ssh_common_args": _ssh_args,
    "ansible_ssh_extra_args": _ssh_args,
    "ansible_ssh_host": _word,
    "ansible_ssh_host_key_checking": _checked,
    "ansible_ssh_port": _PORT,
    "ansible_ssh_private_key_file": _word,
    "ansible_ssh_user": _word,
    "ansible_user": _word,
    "coldstart_allow_engine_restart": yamlfile.as_bool,
    "coldstart_disk_floor": _size_bytes,
    "coldstart_docker_host": _text,
    "coldstart_max_parallel": _whole(1, 10**6, ": at least 1"),
    "coldstart_memory_floor": _size_bytes,
    "coldstart_runtimes": _runtimes,
    "coldstart_site": _text,
}
_ALIASES = {  # as in Ansible, the last name that is set counts
    "ansible_host": ("ansible_host", "ansible_ssh_host"),
    "ansible_port": ("ansible_port", "ansible_ssh_port"),
    "ansible_user": ("ansible_user", "ansible_ssh_user"),
    "ansible_ssh_private_key_file": ("ansible_private_key_file", "ansible_ssh_private_key_file"),
}
_SSH_ARGS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
_PLAIN = _MEANT.keys() - {name for names in _ALIASES.values() for name in names} - set(_SSH_ARGS)

_ELSEWHERE = {
    "ansible_group_priority": ("counts only in `vars:` of a group, in the inventory itself", "move it there"),
    "ansible_become_flags": ("become is `sudo -n` and nothing else", "leave it out"),
    "ansible_become_exe": ("become is `sudo -n` and nothing else", "leave it out"),
}
_ANSIBLES_OWN = frozenset(
    [
        "group_names",
        "groups",
        "hostvars",
        "inventory_dir",
        "inventory_file",
        "inventory_hostname",
        "inventory_hostname_short",
        "omit",
        "play_hosts",
        "playbook_dir",
        "role_name",
        "role_names",
        "role_path",
        "role_uuid",
    ]
)
# How Ansible itself goes about its work: nothing that changes which node is reached, or as whom.
HARMLESS = frozenset(
    [
        "ansible_async_dir",
        "ansible_common_remote_group",
        "ansible_control_path",
        "ansible_control_path_dir",
        "ansible_deprecation_warnings",
        "ansible_facts_modules",
        "ansible_facts_parallel",
        "ansible_interpreter_python_fallback",
        "ansible_keep_remote_files",
        "ansible_local_become_strip_preamble",
        "ansible_local_become_success_timeout",
        "ansible_module_compression",
        "ansible_no_target_syslog",
        "ansible_pipelining",
        "ansible_python_module_rlimit_nofile",
        "ansible_remote_tmp",
        "ansible_scp_executable",
        "ansible_scp_extra_args",
        "ansible_scp_if_ssh",
        "ansible_sftp_batch_mode",
        "ansible_sftp_executable",
        "ansible_sftp_extra_args",
        "ansible_shell_allow_world_readable_temp",
        "ansible_shell_executable",
        "ansible_shell_type",
        "ansible_ssh_control_path",
        "ansible_ssh_control_path_dir",
        "ansible_ssh_executable",
        "ansible_ssh_pipelining",
        "ansible_ssh_retries",
        "ansible_ssh_timeout",
        "ansible_ssh_transfer_method",
        "ansible_ssh_use_tty",
        "ansible_ssh_verbosity",
        "ansible_system_tmpdirs",
        "ansible_target_log_info",
        "ansible_timeout",
    ]
)
# Of connections that are none of ours.
HARMLESS_PREFIXES = (
    "ansible_aws_ssm_",
    "ansible_docker_",
    "ansible_httpapi_",
    "ansible_kubectl_",
    "ansible_libssh_",
    "ansible_lxd_",
    "ansible_netconf_",
    "ansible_network_",
    "ansible_persistent_",
    "ansible_podman_",
    "ansible_psrp_",
    "ansible_win_",
    "ansible_winrm_",
)
