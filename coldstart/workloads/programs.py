"""What the reference workload consists of, and how each part is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Program:
    """A file for each architecture. Sources are named from this folder; in them and in flags {arch} is replaced."""

    name: str
    system: str  # what the compiler is to expect there: `linux`, or nothing at all
    sources: tuple[str, ...]
    flags: tuple[str, ...] = ()
    container: bool = False  # an image with nothing else in it, too
    flat: tuple[str, ...] = ()  # for these, what would be in memory instead of an ELF file
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # more sources, by architecture

    def arguments(self, arch: str) -> list[str]:
        """For the compiler, all but where to put it."""
        machine = BARE[arch] if self.system == "freestanding" else (f"-mcpu={CPU[arch]}",)
        own = [each.format(arch=arch) for each in (*self.flags, *self.sources, *self.only.get(arch, ()))]
        return ["-target", f"{arch}-{self.system}-none", *machine, *FLAGS, *own]


# The oldest machines of each architecture: a Raspberry Pi 3, any 64-bit PC. Never the machine that compiles.
CPU = {"x86_64": "x86_64", "aarch64": "generic"}
# Without an operating system nobody has switched floating point on, nor may unaligned access be there yet, and an
# interrupt uses the stack.
BARE = {
    "x86_64": ("-mcpu=x86_64-mmx-sse-sse2-x87+soft_float", "-mno-red-zone"),
    "aarch64": ("-mcpu=generic-neon-fp_armv8+strict_align",),
}
FLAGS = (
    *("-std=gnu11", "-Os", "-Wall", "-Wextra", "-Wconversion", "-Werror"),
    *("-ffreestanding", "-fno-builtin", "-fno-stack-protector", "-fno-sanitize=all", "-nostdlib"),
    *("-static", "-fno-pic", "-fno-pie", "-Wl,--gc-sections", "-Wl,-z,noexecstack"),
    # Nothing that only a debugger would read, or that depends on where it was compiled.
    *("-g0", "-s", "-Wl,--build-id=none", "-fno-ident", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables"),
)

PROGRAMS = (
    Program("hello", "linux", ("hello/http.c", "hello/linux.c"), container=True),
    Program("hello-vm-init", "linux", ("vm/init.c",)),  # starts it in a virtual machine: linuxvm.py
    Program(
        "hello-unikernel",
        "freestanding",
        (
            *("unikernel/{arch}.S", "unikernel/{arch}.c", "unikernel/main.c", "unikernel/options.c"),
            *("unikernel/net.c", "unikernel/tcp.c", "unikernel/virtio_net.c", "unikernel/virtio_mmio.c"),
            *("unikernel/memory.c", "hello/http.c"),
        ),
        ("-Ihello", "-Wl,-T,unikernel/{arch}.ld"),
        flat=("aarch64",),
        only={"x86_64": ("unikernel/virtio_pci.c",), "aarch64": ("unikernel/devicetree.c",)},
    ),
)
