"""TCP ports of this node: a free one, and whether one could be served from now."""

from __future__ import annotations

import errno
import socket


def free(address: str) -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as sock:
        sock.bind((address, 0))
        port: int = sock.getsockname()[1]
        return port


def usable(address: str, port: int) -> bool:
    """Whether a server could listen there now (with SO_REUSEADDR, as servers do: TIME_WAIT does not count)."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
            sock.listen()  # with SO_REUSEADDR only this is refused when another one listens
        except OSError as error:
            return error.errno != errno.EADDRINUSE  # a privileged port: nobody can tell, the program will
    return True
