"""Machines under QEMU: what `runtimes/qemu.py` stands on."""
