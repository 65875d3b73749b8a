"""The measurer's whole life, in a process of its own: it ends in one way, whatever the reason."""

from __future__ import annotations

import os
import signal
import socket
import traceback

from coldstart.agent import runtimes, spawn
from coldstart.agent.measurer import Measurer
from coldstart.agent.oneboot import Cancelled
from coldstart.agent.wire import WireError


def main(stream: socket.socket) -> int:
    """Serve until told to end, then leave a clean node; returns the exit code."""
    for name in runtimes.names():
        runtimes.load(name)  # nothing is imported later: a lazy import inside a boot once cost 100 ms
    read_end, write_end = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(write_end, b"x") and None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's keys are the controller's business
    spawn.die_with_parent(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    measurer = Measurer(stream, read_end)
    try:
        measurer.serve()
    except Cancelled:
        pass
    except (OSError, WireError) as error:  # a disk, a permission: it will not be better on the next link
        measurer.send("fault", text=f"{type(error).__name__}: {error}", final=True)
    except Exception:  # noqa: BLE001 - the agent's outermost loop: whatever it was, the controller must hear of it
        measurer.send("fault", text=traceback.format_exc(limit=-3)[-2000:])
    measurer.send("bye", failed=measurer.clean(measurer.run)["failed"])
    return 0
