"""Docker containers over the Engine API.

Every run has a bridge network of its own, every boot an address and a MAC address that were never used before, with a
permanent neighbour entry: an early probe is then answered in microseconds and not by the next ARP retry (1 s). Probes
go to the container's own address, never through docker-proxy, which accepts before anything listens. Where the bridge
is not in this network namespace (rootless engines, Docker Desktop) a published port must do: `net=proxied`, and only an
answer with this boot's nonce counts. Without CAP_NET_ADMIN the first probe waits for the start call: `probe=after-api`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from coldstart.agent import dockernet, dockerspec, dockerway, engine, ports
from coldstart.agent.cache import Cache
from coldstart.agent.dockerapi import ApiError, Engine, is_podman, negotiated, negotiating, socket_path
from coldstart.agent.dockerimage import find, layer_files, remove_ours
from coldstart.agent.dockerinstall import install
from coldstart.agent.dockerinstance import Container
from coldstart.agent.dockersupply import DockerSupply, Stock
from coldstart.agent.dockerway import Way
from coldstart.agent.records import Image, Ready
from coldstart.agent.runtimes import Context, Place, Prepared, Stamp, StartFailed, StopFailed, Unavailable
from coldstart.agent.subnets import mac_of

LABEL = "coldstart.run"
START_LIMIT_S = 60.0
PULL_LIMIT_S = 900.0  # some GB, onto an SD card; the engine says nothing meanwhile
CLEAN_LIMIT_S = 15.0  # of one call: whatever the engine does, a node is given up by then
HELPERS = ("runc", "containerd-shim-runc-v2")


@dataclass(frozen=True)
class Options:
    """env, args: for the container, args in place of the image's command; `{nonce}` is filled in at every boot.

    net: `own` (the container's own address), `proxied` (a published port), `auto` (own where it can be reached).
    probe: `early` (from `command` on; needs CAP_NET_ADMIN), `after-api`, or `auto`. memory: the container's limit, 0:
    none. evict: what a page-cold start forgets: the `image`'s layers, or runc and the shim as well.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    net: str = field(default="auto", metadata={"choices": ("auto", "own", "proxied")})
    probe: str = field(default="auto", metadata={"choices": ("auto", "early", "after-api")})
    memory_bytes: int = 0
    evict: str = field(default="image", metadata={"choices": ("image", "image+runtime")})


class Runtime:
    packaging = "docker-archive"
    ready_kinds = ("http", "tcp", "output", "exit")
    starts = ("warm", "page-cold", "image-absent")
    typical_boot_ns = 600_000_000
    examples = ({"runtime": "docker", "image": "hello"},)

    def __init__(self, options: Options, context: Context) -> None:
        self._options = options
        self._run = context.run
        self._shared = context.shared
        self._log = os.path.join(context.cache, "dockerd.log")
        self._socket = socket_path(context.settings.get("coldstart_docker_host", ""), os.environ)
        self._version, self._podman = "", False
        self._engine = Engine(self._socket)
        self._image, self._image_id, self._port = Image(""), "", 0
        self._network: dockernet.Network | None = None
        self._way = Way(proxied=False, early=True)

    def check(self) -> dict[str, str]:
        if not engine.answers(self._socket):
            engine.explain_or_borrow(self._run, self._socket, self._log)
        try:
            with Engine(self._socket) as asked:
                self._version = negotiated(version := asked.call("GET", "/version"))
        except (ApiError, ValueError) as error:
            raise Unavailable(f"Docker at {self._socket}: {error}", "update the engine or coldstart") from None
        self._podman = is_podman(version)
        self._engine.close()
        self._engine = Engine(self._socket, self._version, START_LIMIT_S)
        return {"docker": version["Version"], "docker_api": self._version}

    def prepare(self, image: Image, ready: Ready, files: Mapping[str, str]) -> Prepared:
        self._image, self._port = image, ready.port
        try:
            details = find(self._engine, image)
            if not details:
                raise Unavailable(f"no such image: {image.name}", "give it as a file, or have it on this machine")
            self._image_id = details["Id"]
            # One for all targets: an address that one of them had is not fresh for another.
            if "docker network" not in self._shared:
                self._shared["docker network"] = dockernet.create(self._engine, self._run, LABEL)
            self._network = self._shared["docker network"]
        except ApiError as error:
            raise Unavailable(f"Docker: {error}", "is the image there, and readable?") from None
        self._way = dockerway.choose(self._network, self._options.net, self._options.probe, ready)
        layers, cold_unavailable = layer_files(details)
        if self._options.evict == "image+runtime":
            layers += tuple(path for path in map(shutil.which, HELPERS) if path)
        return Prepared(self._labels(), layers, details.get("Size", 0), self._way.warnings, cold_unavailable)

    def install(self, image: Image, port: int, cache: Cache) -> str:
        return install(self._asked, image, port, cache)

    def supply(self, image: Image, previous: Image | None, port: int) -> DockerSupply:
        return DockerSupply(self._asked, image, previous, port, self._shared.setdefault("docker stock", Stock()))

    def _asked(self) -> Engine:
        return Engine(self._socket, self._version, PULL_LIMIT_S, podman=self._podman)

    def place(self, nonce: str) -> Place:
        assert self._network is not None
        name = f"coldstart-{self._run}-{nonce}"
        try:
            # The start must not pay for a connection that went stale.
            engine.await_answer(lambda: self._engine.text("/_ping"))
            if self._way.proxied:
                return Place(name, "127.0.0.1", ports.free("127.0.0.1"), nonce, self._way.early)
            address = self._network.next_address(known=self._way.early)
            return Place(name, address, self._port, nonce, self._way.early, self._network.ports())
        except (ApiError, OSError) as error:
            raise StartFailed(f"Docker: {error}") from None

    def start(self, place: Place, stamp: Stamp) -> Container:
        try:
            created = self._engine.call("POST", "/containers/create", self._body(place), name=place.name)
            stamp("created")
            self._engine.call("POST", f"/containers/{created['Id']}/start")
            stamp("api_return")
            mac = "" if self._way.proxied else mac_of(place.address)
            bridge = self._network.bridge if self._network else ""
            return Container(self._engine, created["Id"], bridge, mac)
        except ApiError as error:
            with contextlib.suppress(ApiError):  # never created, or the engine is gone: `clean` finds it by its label
                self._engine.call("DELETE", f"/containers/{place.name}", force="true", v="true")
            raise StartFailed(f"Docker: {error}") from None

    def stop(self, handle: Container) -> None:
        try:
            handle.end()
        except ApiError as error:
            raise StopFailed(f"Docker: {error}") from None

    def clean(self, run: str) -> list[str]:
        removed = []
        try:
            if engine.answers(self._socket):
                removed = self._with_engine(lambda asked: dockernet.remove_marked(asked, LABEL, run, but=self._run))
        finally:
            removed += engine.give_back(run, but=self._run)
        return removed

    def clean_images(self) -> list[str]:
        """Remove the images that were pushed under a tag of ours."""
        try:
            self.check()  # an engine that does not run has them all the same
        except Unavailable:
            return []
        return self._with_engine(remove_ours)

    def close(self) -> None:
        self._engine.close()

    def _labels(self) -> dict[str, str]:
        labels = {
            "net": "proxied" if self._way.proxied else "own",
            "probe": "early" if self._way.early else "after-api",
        }
        return {**labels, "evict": self._options.evict} if self._options.evict != "image" else labels

    def _body(self, place: Place) -> dict[str, Any]:
        assert self._network is not None
        address = "" if self._way.proxied else place.address
        published = {self._port: place.port} if self._way.proxied else {}
        return dockerspec.container(
            dockerspec.Wanted(
                image=self._image_id,
                env={**self._image.env, **self._options.env, "COLDSTART_NONCE": "{nonce}"},
                args=self._options.args or tuple(self._image.args),
                labels={LABEL: self._run},
                memory_bytes=self._options.memory_bytes,
                network=self._network.name,
                address=address,
                published=published,
            ),
            nonce=place.nonce,
            version=self._version,
        )

    def _with_engine(self, do: Callable[[Engine], list[str]]) -> list[str]:
        try:
            with negotiating(self._socket, CLEAN_LIMIT_S) as asked:
                return do(asked)
        except (ApiError, ValueError) as error:
            raise StopFailed(f"Docker: {error}") from None
