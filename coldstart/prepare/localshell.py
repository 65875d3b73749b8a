"""Commands on this machine itself."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from coldstart.errors import NodeError
from coldstart.prepare.shell import LOOK_S, Ran


class LocalShell:
    """No shell reads the words; a Ctrl-C at the terminal does not reach what runs."""

    def run(self, argv: Sequence[str], *, limit_s: float = LOOK_S) -> Ran:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=limit_s,
                start_new_session=True,
                check=False,
            )
        except OSError as error:
            return Ran(127, "", f"{argv[0]}: {error.strerror}")
        except subprocess.TimeoutExpired:
            hint = "look what it does"
            raise NodeError(f"no end of `{' '.join(argv)}` within {limit_s:g} s", hint=hint) from None
        return Ran(done.returncode, done.stdout, done.stderr)

    def close(self) -> None:
        pass
