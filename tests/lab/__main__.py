"""`python -m lab up|down|...`: what `make lab` and `make lab-down` call, and things to do to a node by hand."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lab import names, removal, shapes
from lab.fleet import FOLDER, Lab, LabError
from lab.guest import NotPossible
from lab.network import CommandFailed
from lab.waiting import TooLateError

DEEDS = ("cut", "mend", "reboot", "halt", "stop_sshd", "start_sshd", "kill_engine", "restart_engine", "leftovers")


def main() -> int:
    options = parser().parse_args()
    try:
        return run(options)
    except (LabError, CommandFailed, NotPossible, TooLateError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="lab", description=__doc__)
    top.add_argument("--folder", type=Path, default=FOLDER, help=f"of the lab (default: {FOLDER})")
    verbs = top.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start a fleet, print what to do with it and its inventory's path")
    up.add_argument("--plain", type=int, default=0, metavar="N", help="N plain nodes instead of the default fleet")
    up.add_argument("--aarch64", action="store_true", help=f"and an emulated aarch64 machine: {shapes.PI.name}")
    down = verbs.add_parser("down", help="remove it, and those that died")
    down.add_argument("--all", action="store_true", help="every lab on this machine")
    ssh = verbs.add_parser("ssh", help="into a node")
    ssh.add_argument("node")
    ssh.add_argument("argv", nargs=argparse.REMAINDER)
    deed = verbs.add_parser("do", help="to a node: " + ", ".join(DEEDS))
    deed.add_argument("deed", choices=DEEDS)
    deed.add_argument("node", choices=[shape.name for shape in (*shapes.DEFAULT, shapes.PI)])
    return top


def run(options: argparse.Namespace) -> int:
    if options.verb == "up":
        fleet = shapes.plain(options.plain) or shapes.DEFAULT
        start(Lab(options.folder, (*fleet, shapes.PI) if options.aarch64 else fleet))
    elif options.verb == "down":
        stop(options.folder, everything=options.all)
    elif options.verb == "ssh":
        argv = Lab(options.folder).ssh(options.node, *options.argv)
        os.execvp(argv[0], argv)
    else:
        found = getattr(attached(options.folder).nodes[options.node], options.deed)()
        print(*(found or ()), sep="\n", end="\n" if found else "")
    return 0


def attached(folder: Path) -> Lab:
    """To the default fleet, as it was started."""
    has_pi = (folder / shapes.PI.name).exists()
    return Lab(folder, (*shapes.DEFAULT, shapes.PI) if has_pi else shapes.DEFAULT).attach()


def start(lab: Lab) -> None:
    lab.up()
    for node in lab.nodes.values():
        print(f"{node.name:<12} {node.address:<12} {node.shape.site}")
    print(f"ssh -F {lab.ssh_config} {next(iter(lab.nodes))}")
    print(f"coldstart check {lab.inventory}")
    print(f"coldstart sweep {lab.inventory} --boots 5")
    print(lab.inventory)


def stop(folder: Path, *, everything: bool) -> None:
    removal.remove_orphans()
    for state in names.states():
        if everything or state.folder == folder.absolute():
            removal.remove(state.names, state.folder)
    removal.forget(folder.absolute())


if __name__ == "__main__":
    sys.exit(main())
