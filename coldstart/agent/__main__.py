"""The node's side starts here: by the first stage of `bundle.py` on a node, or by `python -m coldstart.agent`."""

from __future__ import annotations

import os
import sys

from coldstart.agent import spawn
from coldstart.agent.watchdog import Watchdog


def main() -> int:
    """Keep stdin and stdout for the protocol; whatever prints, prints to stderr."""
    reader, writer = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    spawn.seal()
    return Watchdog(reader, writer).guard()


if __name__ == "__main__":
    sys.exit(main())
