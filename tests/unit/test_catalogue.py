"""What nodes share of images: found once, made once, and nobody is told of what nobody waits for."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from coldstart import archive, sources
from coldstart.archive import ContainerImage, File
from coldstart.catalogue import Catalogue
from coldstart.errors import ImageError
from coldstart.model import Node, Ready, Target


def test_an_archive_is_made_once(tmp_path: Path) -> None:
    """Fifty nodes whose engines cannot pull have the controller read an image once."""
    path = tmp_path / "app.tar"
    image = ContainerImage("x.example/app", "x86_64", ((File("hello", b"y", 0o755),),), ("/hello",))
    path.write_bytes(archive.pack(image))
    source = sources.read(path, "x86_64")

    async def two() -> None:
        catalogue = Catalogue()
        one, other = await asyncio.gather(*(catalogue.archive(source, "ours:1") for _ in range(2)))
        assert one is other
        assert (await catalogue.archive(source, "ours:2")).digest != one.digest

    asyncio.run(two())


def test_a_failure_that_nobody_waits_for_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep was ended while an image was being read, which then proves to be none."""
    target = Target("it", "process", {"": "./not-there"}, Ready(port=80))

    async def ended() -> None:
        catalogue = Catalogue()
        waiting = asyncio.create_task(catalogue.image(target, "x86_64", Node("here")))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0.2)
        with pytest.raises(ImageError):
            await catalogue.image(target, "x86_64", Node("here"))

    said: list[object] = []

    async def listening() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        await ended()
        gc.collect()

    asyncio.run(listening())
    assert said == []
