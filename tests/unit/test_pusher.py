"""What a boot without its image must be sent, and what it means if less was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coldstart import source
from coldstart.agent import supply
from coldstart.agent.records import Boot, Image
from coldstart.images import ResolvedImage
from coldstart.push import Pusher, Shared, least_bytes

BASE, ONE, TWO = (source.in_memory(bytes([n]) * size, source.LAYER_TYPE) for n, size in ((1, 1000), (2, 30), (3, 40)))
CONFIG = source.in_memory(b"{}", source.CONFIG_TYPE)


def image(*layers: source.Blob) -> ResolvedImage:
    manifest = source.manifest_of(CONFIG, layers)
    return ResolvedImage(Image("app"), source=source.Source("x86_64", manifest, CONFIG, layers, ()))


@pytest.mark.parametrize(
    ("wanted", "previous", "bytes_"),
    [
        (image(BASE, ONE), None, 1030),
        (image(BASE, TWO), image(BASE, ONE), 40),
        (image(BASE, ONE), image(BASE, ONE), 0),
        (image(BASE, ONE, ONE), None, 1030),
        (ResolvedImage(Image("kernel", {"kernel": "a", "initrd": "b"}, {"kernel": 5, "initrd": 7})), None, 12),
        (ResolvedImage(Image("nginx", reference="nginx")), None, 0),
    ],
)
def test_least_bytes(wanted: ResolvedImage, previous: ResolvedImage | None, bytes_: int) -> None:
    """Every layer that the version before does not have, once; files whole."""
    assert least_bytes(wanted, previous) == bytes_


@pytest.mark.parametrize(
    ("outcome", "sent", "expected"), [("ok", 1030, "ok"), ("ok", 900, "not-cold"), ("timeout", 0, "timeout")]
)
def test_what_was_sent_in_a_boot(outcome: str, sent: int, expected: str) -> None:
    """It is kept with the boot, and tells whether the image was absent."""
    talk: Any = None  # nothing is said
    pusher = Pusher("n", talk, lambda event: None, Shared(None, lambda *_: talk), {})
    pusher._registry.sent_bytes[supply.repository(3, 4)] = sent
    boot = Boot(3, 4, outcome, marks_ns={"pulled": 1, "ready": 2})
    seen = pusher.with_transfer(boot, 1030)
    assert (seen.outcome, seen.transfer_bytes) == (expected, sent)
    warm = replace(boot, marks_ns={"ready": 2})
    assert pusher.with_transfer(warm, 1030) == warm
