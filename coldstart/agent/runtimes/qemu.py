"""Machines - unikernels, Linux, anything that boots - under QEMU, with KVM where it works and emulated where not.

A run has a bridge of its own, every boot a tap device on it, with an address and a hardware address that nobody had.
Where tap devices are not permitted QEMU's own network stack must do (`net=user`): it accepts connections before the
guest runs, so `tcp` is not known there, and takes one connection at a time. QEMU is our own child, ends when we end,
and is killed to stop the machine: as abrupt as a container's removal.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Mapping
from typing import Any

from coldstart.agent import launcher, ports, spawn, subnets, tap
from coldstart.agent.leader import Leader
from coldstart.agent.qemu import accel, command
from coldstart.agent.qemu.command import Attachment, Start
from coldstart.agent.qemu.instance import ADDRESS, Console, Qemu
from coldstart.agent.qemu.options import AUTO, ON, TAP, USER, Machine, Options, complete
from coldstart.agent.records import Image, Ready
from coldstart.agent.runtimes import Context, Place, Prepared, Stamp, StartFailed, Unavailable

__all__ = ["Options", "Runtime"]
_BRIDGE = "tap bridge"
_EXAMPLE: Mapping[str, Any] = {"runtime": "qemu", "image": "hello-unikernel", "console": "on"}
_PACKAGE = {"x86_64": "qemu-system-x86", "aarch64": "qemu-system-arm"}
_QCOW2 = b"QFI\xfb"
MIB = 1 << 20


class Runtime:
    packaging = "machine"
    ready_kinds = ("http", "tcp", "output", "exit")
    starts = ("warm", "page-cold", "image-absent")
    typical_boot_ns = 400_000_000
    examples = (
        {**_EXAMPLE, "arch": "x86_64", "codes": {0: 1, 3: 7}},  # isa-debug-exit: (code << 1) | 1
        {**_EXAMPLE, "arch": "aarch64", "codes": {0: 0, 3: 0}},  # PSCI knows only off
    )

    def __init__(self, options: Options, context: Context) -> None:
        self._run = context.run
        self._shared = context.shared
        self._node_arch = platform.machine()
        self._machine: Machine = complete(options, self._node_arch)
        self._program = shutil.which(f"qemu-system-{self._machine.arch}") or ""
        self._bridge: tap.Bridge | None = None
        self._accel = ""
        self._files: Mapping[str, str] = {}
        self._format = "raw"
        self._env: Mapping[str, str] = {}
        self._port = 0
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        self._environ = {**kept, spawn.MARK: context.run}

    @staticmethod
    def objection(options: Options, ready: Ready) -> str:
        """Why these options cannot tell `ready`, if they cannot; for playbooks."""
        if ready.kind == "output" and options.console != ON:
            return "`ready: output` needs `console: on`"
        if ready.kind == "tcp" and options.net == USER:
            return "`ready: tcp` needs `net: tap`: QEMU's user networking accepts before there is a guest"
        return ""

    def check(self) -> dict[str, str]:
        if not self._program:
            package = _PACKAGE.get(self._machine.arch, "qemu-system")
            raise Unavailable(f"no qemu-system-{self._machine.arch} here", f"install QEMU: apt-get install {package}")
        if not spawn.can_watch():
            raise Unavailable(*spawn.CANNOT_WATCH)
        done = subprocess.run([self._program, "--version"], capture_output=True, text=True, timeout=30, check=False)
        words = done.stdout.split()
        if done.returncode or len(words) < 4:
            raise Unavailable(f"{self._program} does not run: {done.stderr.strip()[:200]}", "install it anew")
        return {f"qemu_{self._machine.arch}": words[3]}

    def prepare(self, image: Image, ready: Ready, files: Mapping[str, str]) -> Prepared:
        options = self._machine.options
        launcher.path()  # made now, so that the first boot does not pay for it
        self._files, self._port = files, ready.port
        if "kernel" not in files and (options.cmdline or options.env):
            raise Unavailable("`cmdline` and `env` are told to a kernel, and this image has none", "leave them out")
        trial = accel.Trial(self._program, self._environ, self._shared)
        self._accel, emulated = accel.choose(self._machine, trial, self._node_arch)
        self._bridge, no_tap = self._choose_net(ready)
        self._format = _drive_format(files.get("drive", ""))
        self._env = {**image.env, **options.env}
        cold = tuple(files.values()) + ((self._program,) if options.evict != "image" else ())
        size = sum(os.stat(file).st_size for file in files.values())
        return Prepared(self._labels(), cold, size, tuple(filter(None, (emulated, no_tap))))

    def place(self, nonce: str) -> Place:
        name = f"coldstart-{self._run}-{nonce}"
        if self._bridge is None:
            return Place(name, ADDRESS, ports.free(ADDRESS), nonce)
        return Place(name, self._bridge.next_address(), self._port, nonce)

    def start(self, place: Place, stamp: Stamp) -> Qemu:
        interface = subnets.bridge_name(place.name) if self._bridge else ""
        argv = [*filter(None, [launcher.path()]), *self._argv(place)]
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as undo:
            try:
                said = os.memfd_create("qemu", os.MFD_CLOEXEC)
                undo.callback(os.close, said)
                console = Console(self._machine.options.marker)
                undo.callback(console.close)
                ours.callback(os.close, console.write_end)
                streams = {1: console.write_end, 2: said}
                if self._bridge:
                    streams[command.TAP_FD] = self._bridge.plug(interface, place.address)
                    ours.callback(os.close, streams[command.TAP_FD])
                leader = Leader(spawn.spawn_with(argv, self._environ, streams))
            except OSError as error:
                raise StartFailed(f"{error.filename or interface or self._program}: {error.strerror}") from None
            undo.pop_all()
        stamp("created")
        port = 0 if self._bridge else place.port
        in_order = self._machine.options.exit_codes
        return Qemu(leader, said, console, tap=interface, port=port, in_order=in_order)

    def stop(self, handle: Qemu) -> None:
        handle.end()

    def close(self) -> None:
        pass

    def clean(self, run: str) -> list[str]:
        found = spawn.marked(spawn.MARK, run, but=self._run)
        for pid in found:
            spawn.kill(pid, signal.SIGKILL)
        return [f"process {pid}" for pid in found] + tap.remove_marked(run, but=self._run)

    def _choose_net(self, ready: Ready) -> tuple[tap.Bridge | None, str]:
        """The run's bridge, or None for QEMU's own stack, with a warning if that is second best."""
        net = self._machine.options.net
        # Without a command line nobody tells the guest its address on a tap device; QEMU's own stack has DHCP.
        untold = net == AUTO and "kernel" not in self._files and ready.kind != "tcp"
        if net == USER or untold:
            return None, ""
        try:
            if _BRIDGE not in self._shared:
                self._shared[_BRIDGE] = tap.create(self._run)
            return self._shared[_BRIDGE], ""
        except (OSError, StopIteration) as error:
            reason = getattr(error, "strerror", "") or "no free subnet"
        if net == TAP or ready.kind == "tcp":
            raise Unavailable(f"no tap device: {reason}", "it needs root (CAP_NET_ADMIN) and /dev/net/tun")
        return None, f"no tap device ({reason}): user networking instead, one connection at a time, no `tcp`"

    def _argv(self, place: Place) -> list[str]:
        if self._bridge:
            addresses = self._bridge.addresses
            attachment = Attachment(place.address, addresses.gateway, addresses.subnet.prefixlen, self._port)
        else:
            guest = (command.USER_ADDRESS, command.USER_GATEWAY, command.USER_PREFIX)
            attachment = Attachment(*guest, self._port, place.port)
        start = Start(
            self._program, place.name, self._accel, self._files, self._env, place.nonce, attachment, self._format
        )
        return command.argv(self._machine, start)

    def _labels(self) -> dict[str, str]:
        options = self._machine.options
        labels = {
            "accel": self._accel,
            "net": TAP if self._bridge else USER,
            "console": options.console,
            "machine": self._machine.label,
            "memory": f"{options.memory_bytes / MIB:g}MiB",
            "nic": self._machine.nic,
            "cpu": options.cpu,
            "cpus": str(options.cpus) if options.cpus > 1 else "",
            "firmware": options.firmware,
            "evict": options.evict if options.evict != "image" else "",
            "guest": self._machine.arch if self._machine.arch != self._node_arch else "",
        }
        return {name: value for name, value in labels.items() if value}


def _drive_format(drive: str) -> str:
    """By its first bytes, here, once: QEMU's own guess would let a guest turn a raw disk into something else."""
    if not drive:
        return "raw"
    with open(drive, "rb") as file:
        return "qcow2" if file.read(4) == _QCOW2 else "raw"
