"""A process we have started, leader of a session of its own: how it ended, and its end."""

from __future__ import annotations

import contextlib
import os
import signal


class Leader:
    """exited: a descriptor that becomes readable once it has ended. OSError where processes cannot be watched; it is
    killed then."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None
        try:
            self.exited = os.pidfd_open(pid)
        except OSError:
            self._kill()
            raise

    def exit_code(self) -> int | None:
        """As shells count: 128 + n for signal n. None while it runs."""
        if self._code is None:
            seen = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if seen is None:
                return None
            self._code = seen.si_status if seen.si_code == os.CLD_EXITED else 128 + seen.si_status
        return self._code

    def end(self) -> None:
        """Kill the whole group and reap the leader."""
        self._kill()
        os.close(self.exited)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # `clean` was faster
            os.waitpid(self.pid, 0)
