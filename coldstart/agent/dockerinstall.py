"""How an image comes into an engine before a sweep: through a relay that keeps what has come, so that a push that was
cut goes on; or from an archive."""

from __future__ import annotations

from coldstart.agent import dockerimage
from coldstart.agent.cache import Cache
from coldstart.agent.dockerapi import ApiError, Engine
from coldstart.agent.dockersupply import AskEngine
from coldstart.agent.records import Image
from coldstart.agent.relay import Relay
from coldstart.agent.runtimes import Unavailable
from coldstart.agent.upstream import Broken

PRESENT, ABSENT, PULLED, LOADED, UNREACHABLE = "present", "absent", "pulled", "loaded", "unreachable"


def install(ask: AskEngine, image: Image, port: int, cache: Cache) -> str:
    """Have the engine hold the image: PRESENT, it did; PULLED; LOADED from the archive in the cache; ABSENT: there is
    neither port nor archive; UNREACHABLE: the engine cannot reach the port, an archive would do. Unavailable if it
    failed."""
    archive = cache.file(image.files.get("archive", ""))
    try:
        with ask() as engine:
            if dockerimage.find(engine, image):
                dockerimage.adopt(engine, image)
                return PRESENT
            if archive:
                return _load(engine, image, archive, cache)
            return _pull(engine, image, port, cache) if port else ABSENT
    except ApiError as error:
        raise Unavailable(f"Docker: {error}", "the engine's own log says more") from None


def _load(engine: Engine, image: Image, archive: str, cache: Cache) -> str:
    try:
        dockerimage.load(engine, archive)
        found = dockerimage.find(engine, image)
    except ApiError as error:
        raise Unavailable(f"the engine did not take {image.name}: {error}", _hint(str(error))) from None
    finally:
        cache.drop(image.files["archive"])  # the engine has it, or will not have it
    if not found:
        dockerimage.remove(engine, [image.reference])
        raise Unavailable(f"the engine made another image of {image.name}", "please report it, with its version")
    return LOADED


def _pull(engine: Engine, image: Image, port: int, cache: Cache) -> str:
    relay = Relay(port, cache, engine.abort)
    keep = False
    try:
        dockerimage.pull(engine, image, relay.port)
        return PULLED
    except ApiError as error:
        keep = isinstance(relay.trouble, Broken)
        if not relay.was_asked:
            return UNREACHABLE
        reason = str(relay.trouble or error)
        raise Unavailable(f"{image.name}: {reason}", _hint(reason)) from None
    finally:
        relay.close(keep=keep)


def _hint(reason: str) -> str:
    if "no space left" in reason.lower():
        return "make room where the engine keeps its images, or run coldstart clean --images"
    return "the engine's own log says more"
