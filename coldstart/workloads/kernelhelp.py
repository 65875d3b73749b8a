"""What to do where there is no kernel for the Linux VM, by distribution."""

from __future__ import annotations

import os
from pathlib import Path

from coldstart.archive import ENGINE_ARCH

_BUILD = "coldstart images build --kernel"
_SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "kernels.sh"  # a wheel does not bring it
GIVE = f"give a Debian package linux-image-RELEASE, or a folder in which packages were unpacked: {_BUILD} PATH"


def next_step(arch: str, machine: str, root: Path) -> str:
    """For somebody who needs one for `arch`, on a distribution for `machine` whose root folder this is."""
    family = _family(root)
    is_debian = "debian" in family and "ubuntu" not in family
    if is_debian and _SCRIPT.exists() and arch in ENGINE_ARCH:
        return f"{_SCRIPT} {arch}"
    if machine != arch:
        return _from_debian(arch)
    if unreadable := [path for path in sorted(root.glob("boot/vmlinuz-*")) if not os.access(path, os.R_OK)]:
        return f"sudo chmod +r {unreadable[-1]}"
    if "ubuntu" in family:
        fetch = "apt-get download linux-image-unsigned-$(uname -r) linux-modules-$(uname -r)"
        return f"{fetch}; unpack both into one folder: dpkg-deb -x FILE DIR; then {_BUILD} DIR"
    if is_debian:
        meta = f"linux-image-cloud-{ENGINE_ARCH[arch]}"
        return f"apt-get download the package that `apt-cache depends {meta}` names, then {_BUILD} FILE"
    if family & {"fedora", "rhel", "centos"}:
        return f"sudo dnf install kernel-core kernel-modules-core; or {_from_debian(arch)}"
    return f"install this distribution's kernel with its modules; or {_from_debian(arch)}"


def _from_debian(arch: str) -> str:
    """Any distribution can run a virtual machine with Debian's kernel."""
    meta = f"linux-image-cloud-{ENGINE_ARCH.get(arch, arch)}"
    return f"download from Debian the package that {meta} depends on, then {_BUILD} FILE"


def _family(root: Path) -> set[str]:
    """The words by which a distribution calls itself and what it is derived from."""
    try:
        text = (root / "etc" / "os-release").read_text()
    except OSError:
        return set()
    fields = (line.partition("=") for line in text.splitlines())
    return {word for name, _, value in fields if name in ("ID", "ID_LIKE") for word in value.strip("\"'").split()}
