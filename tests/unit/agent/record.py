"""Record one boot's conversation with the engine of this machine: `python tests/unit/agent/record.py`.

Needs an engine that speaks API 1.41 (Docker 20.10), with the reference image in it: sweep once before.
"""

from __future__ import annotations

import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import fake_engine

from coldstart import images
from coldstart.agent.records import Image, Ready
from coldstart.agent.runtimes import Context, docker

RUN, NONCE = "20260101-000000-beef", "0011223344556677"
FILE = Path(__file__).parent / "recorded" / "boot-20.10.json"
SOURCE = (
    "Recorded by record.py from Docker 20.10.24+dfsg1 on Debian 12; State.Pid set to 0, it means nothing elsewhere."
)


def boot(host: str, reference: str, net: str) -> dict[str, Any]:
    """One boot, from check to clean; what its place was."""
    runtime = docker.Runtime(docker.Options(net=net), Context(RUN, "", {"coldstart_docker_host": host}))
    try:
        runtime.check()
        ready = Ready(port=8080, nonce=True)
        runtime.prepare(Image("hello", reference=reference, env={"COLDSTART_NONCE": "{nonce}"}), ready, {})
        place = runtime.place(NONCE)
        handle = runtime.start(place, lambda mark: None)
        handle.processes()
        runtime.stop(handle)
        runtime.clean(RUN)
    finally:
        runtime.close()
    return {"address": place.address, "port": place.port}


def conversation(reference: str, net: str) -> dict[str, Any]:
    engine = fake_engine.Recording()
    with tempfile.TemporaryDirectory() as folder, fake_engine.listening(engine, Path(folder) / "sock") as host:
        place = boot(host, reference, net)
    for exchange in engine.exchanges:
        if isinstance(exchange.answer, dict) and "State" in exchange.answer:
            exchange.answer["State"]["Pid"] = 0
    return {"reference": reference, "place": place, "exchanges": [exchange._asdict() for exchange in engine.exchanges]}


if __name__ == "__main__":
    image = images.resolve("hello", packaging="docker-archive", arch=platform.machine(), base=Path()).image
    recorded = {net: conversation(image.reference, net) for net in ("proxied", "own")}
    FILE.write_text(json.dumps({"source": SOURCE, **recorded}, indent=1) + "\n")
