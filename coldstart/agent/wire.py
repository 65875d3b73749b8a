"""The language of the link: JSON lines, one message a line. Bytes in, messages out; nothing here opens or reads.

Every message is an object with `v` (the protocol's version), `seq` (0, 1, 2, ... per direction, so that a lost or
foreign line is noticed) and `type`; the rest are its fields. A line is at most LIMIT_BYTES long. The decoder keeps
what has no newline yet; after an error it stays broken, because nothing that follows can be trusted.
"""

from __future__ import annotations

import json
from typing import Any

VERSION = 1
LIMIT_BYTES = 1 << 20
# As raw bytes: grown by base64 it stays under LIMIT_BYTES with room for the envelope.
CHUNK_BYTES = 384 * 1024

Message = dict[str, Any]


class WireError(Exception):
    """What came is not our protocol. The message quotes its beginning, so that a login banner explains itself."""


class Encoder:
    """Messages out, as bytes."""

    def __init__(self) -> None:
        self._seq = 0

    def encode(self, kind: str, **fields: Any) -> bytes:
        """One message as a line. ValueError if it is larger than the other side would take."""
        message = {"v": VERSION, "seq": self._seq, "type": kind, **fields}
        line = json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
        if len(line) > LIMIT_BYTES:
            raise ValueError(f"{kind}: {len(line)} bytes are more than a message may have ({LIMIT_BYTES})")
        self._seq += 1
        return line


class Decoder:
    """Bytes in, messages out."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0  # bytes of _rest already known to hold no newline: keeps byte-wise feeding linear
        self._seq = 0
        self._error: WireError | None = None

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes. WireError for anything else, now and ever after."""
        if self._error is not None:
            raise self._error
        self._rest += data
        messages: list[Message] = []
        try:
            while self._has_line():
                messages.append(self._next())
        except WireError as error:
            self._error = error
            if not messages:
                raise
        return messages

    def _has_line(self) -> bool:
        at = self._rest.find(b"\n", self._searched)
        self._searched = at if at >= 0 else len(self._rest)
        if self._searched >= LIMIT_BYTES:
            raise WireError(f"a line of more than {LIMIT_BYTES} bytes, beginning {bytes(self._rest[:60])!r}")
        return at >= 0

    def _next(self) -> Message:
        line = bytes(self._rest[: self._searched])
        del self._rest[: self._searched + 1]
        self._searched = 0
        message = _parsed(line)
        if message["seq"] != self._seq:
            raise WireError(f"message {message['seq']} came where {self._seq} was due")
        self._seq += 1
        return message


def _parsed(line: bytes) -> Message:
    try:
        message = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise WireError(f"not a message of ours: {line[:60]!r}") from None
    if not isinstance(message, dict):
        raise WireError(f"not an object: {line[:60]!r}")
    if message.get("v") != VERSION or isinstance(message["v"], bool):
        raise WireError(f"version {message.get('v')!r} of the protocol, this side speaks {VERSION}")
    if type(message.get("seq")) is not int or type(message.get("type")) is not str:
        raise WireError(f"no sequence number or no type: {line[:60]!r}")
    return message
