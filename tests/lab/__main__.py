"""`python -m lab up|down|...`: what `make lab` and `make lab-down` call, and things to do to a node by hand."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lab import removal, shapes
from lab.fleet import FOLDER, Lab, LabError, attach

DEEDS = ("cut", "mend", "reboot", "halt", "stop_sshd", "start_sshd", "restart_engine", "leftovers")


def main() -> int:
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start a fleet, and print its inventory's path and what to do with it")
    up.add_argument("--plain", type=int, default=0, metavar="N", help="N plain nodes instead of the default fleet")
    up.add_argument("--folder", type=Path, default=FOLDER)
    verbs.add_parser("down", help="remove it; also what is left of one that died")
    ssh = verbs.add_parser("ssh", help="into a node of the default fleet")
    ssh.add_argument("node")
    ssh.add_argument("argv", nargs=argparse.REMAINDER)
    for name in DEEDS:
        verbs.add_parser(name, help=f"{name} a node of the default fleet").add_argument("node")
    options = parser.parse_args()
    try:
        return run(options)
    except (LabError, KeyError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def run(options: argparse.Namespace) -> int:
    if options.verb == "up":
        return start(Lab(options.folder, shapes.plain(options.plain) if options.plain else shapes.DEFAULT))
    if options.verb == "down":
        removal.remove(Path(removal.STATE.read_text()) if removal.STATE.exists() else FOLDER)
        return 0
    lab = attach()
    if options.verb == "ssh":
        argv = lab.ssh(options.node, *options.argv)
        os.execvp(argv[0], argv)
    found = getattr(lab.nodes[options.node], options.verb)()
    print("\n".join(found or ()), end="\n" if found else "")
    return 0


def start(lab: Lab) -> int:
    lab.up()
    for node in lab.nodes.values():
        print(f"{node.name:<12} {node.address:<12} {node.shape.site}")
    print(f"ssh:   ssh -F {lab.ssh_config} {next(iter(lab.nodes))}")
    print(f"check: coldstart check {lab.inventory}")
    print(f"sweep: coldstart sweep {lab.inventory} --boots 5")
    print(lab.inventory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
