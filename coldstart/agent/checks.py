"""Is this the right answer? Pure: bytes or a handle in, yes, no or not yet out.

An HTTP answer counts only with the right status, the right body and, where the workload can echo it, the nonce of this
very boot: a leftover instance, a proxy's error page or a captive portal must never be taken for the one just started.
"""

from __future__ import annotations

import re

from coldstart.agent.records import Ready
from coldstart.agent.runtimes import Handle, Place

ANSWER_LIMIT_BYTES = 1 << 20


class HttpCheck:
    """What to ask, and whether an answer is the right one: status, body, and this boot's nonce."""

    def __init__(self, ready: Ready, place: Place) -> None:
        self._ready = ready
        self._nonce = place.nonce.encode()
        self._wrong = b""  # the last answer that will never be right
        host = f"{place.address}:{place.port}"
        self.request = (
            f"GET {ready.path} HTTP/1.1\r\nHost: {host}\r\n"
            "User-Agent: coldstart\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        ).encode()

    def verdict(self, answer: bytes, *, ended: bool) -> bool | None:
        """True: valid; False: never will be; None: more is needed. ended: the peer has closed."""
        verdict = self._verdict(answer, ended=ended)
        self._wrong = answer if verdict is False else self._wrong
        return verdict

    def remark(self) -> str:
        """What was wrong with the last answer that was not right; '' if there was none."""
        first = self._wrong[:100].split(b"\r\n")[0].decode("latin-1")
        if not first:
            return ""
        head, _, _ = self._wrong.partition(b"\r\n\r\n")
        return f"; it answered {first!r}" + (
            ", but not with what `ready` asks for" if self._head_is_right(head) else ""
        )

    def _verdict(self, answer: bytes, *, ended: bool) -> bool | None:
        head, found, body = answer.partition(b"\r\n\r\n")
        if not found:
            return False if ended or len(answer) > ANSWER_LIMIT_BYTES else None
        if not self._head_is_right(head):
            return False
        if self._ready.body.encode() in body:
            return True
        complete = ended or len(body) >= _content_length(head) or len(body) > ANSWER_LIMIT_BYTES
        return False if complete else None

    def _head_is_right(self, head: bytes) -> bool:
        match = re.match(rb"HTTP/1\.[01] (\d{3})", head)
        if match is None or int(match.group(1)) != self._ready.status:
            return False
        return not self._ready.nonce or self._nonce in _header(head, b"x-coldstart-nonce")


def _header(head: bytes, name: bytes) -> tuple[bytes, ...]:
    pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return tuple(value.strip() for key, _, value in pairs if key.strip().lower() == name)


def _content_length(head: bytes) -> int | float:
    values = _header(head, b"content-length")
    return int(values[0]) if values and values[0].isdigit() else float("inf")


class OutputCheck:
    """A line of the instance's output matches."""

    def __init__(self, pattern: str) -> None:
        self._pattern = re.compile(pattern, re.MULTILINE)

    def verdict(self, handle: Handle) -> bool | None:
        return True if self._pattern.search(handle.output()) else None


class ExitCheck:
    """The instance has ended, with the expected code."""

    def __init__(self, code: int) -> None:
        self._code = code

    def verdict(self, handle: Handle) -> bool | None:
        code = handle.exit_code()
        if code is None or getattr(handle, "refused", bool)():
            return None
        return code == self._code


def last_words(handle: Handle) -> str:
    """Why an instance ended, as far as it said."""
    said = handle.output().strip().splitlines()
    meaning = getattr(handle, "epitaph", str)()
    words = f"ended with code {handle.exit_code()}" + (f" ({meaning})" if meaning else "")
    return words + (f": {said[-1][:200]}" if said else "")
