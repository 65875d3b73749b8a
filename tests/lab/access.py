"""How the lab is reached: an inventory for coldstart, and a configuration for ssh(1) itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One node. jump: name of the node in front of it; way: to there, as `ssh -J` reads it."""

    name: str
    site: str
    address: str
    user: str
    jump: str = ""
    way: str = ""


def inventory(folder: Path, entries: Sequence[Entry]) -> str:
    """Ansible's YAML; host keys are verified with the lab's own list."""
    options = f"-o UserKnownHostsFile={folder}/known_hosts"
    lines = [
        "# The lab: made by `make lab`, gone with `make lab-down`.",
        "all:",
        "  vars:",
        f"    ansible_ssh_private_key_file: {folder}/key",
        f"    ansible_ssh_common_args: {options}",
        "  children:",
    ]
    for site in dict.fromkeys(entry.site for entry in entries):
        lines += [f"    {site}:", "      vars:", f"        coldstart_site: {site}", "      hosts:"]
        for entry in (entry for entry in entries if entry.site == site):
            lines += [f"        {entry.name}:", f"          ansible_host: {entry.address}"]
            lines += [f"          ansible_user: {entry.user}"]
            if entry.jump:
                lines += [f"          ansible_ssh_common_args: {options} -J {entry.way}"]
    return "\n".join([*lines, ""])


def ssh_config(folder: Path, entries: Sequence[Entry]) -> str:
    """For `ssh -F`, by the nodes' names."""
    blocks = []
    for entry in entries:
        blocks += [f"Host {entry.name}", f"  HostName {entry.address}", f"  User {entry.user}"]
        blocks += [f"  ProxyJump {entry.jump}"] if entry.jump else []
    common = [
        "Host *",
        f"  IdentityFile {folder}/key",
        "  IdentitiesOnly yes",
        f"  UserKnownHostsFile {folder}/known_hosts",
        "  GlobalKnownHostsFile /dev/null",
        "  StrictHostKeyChecking yes",
        "  BatchMode yes",
        "  LogLevel ERROR",
    ]
    return "\n".join([*blocks, *common, ""])
