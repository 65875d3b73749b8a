"""Images in an engine: identity is the id, ours are told apart from theirs, and what a pull says is understood."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldstart.agent import dockerimage
from coldstart.agent.cache import Cache
from coldstart.agent.dockerapi import ApiError
from coldstart.agent.dockerinstall import install
from coldstart.agent.dockersupply import DockerSupply, Stock, common
from coldstart.agent.records import Image
from coldstart.agent.runtimes import StartFailed

APP = Image("app", reference="coldstart.local/app:111", id="sha256:111", digest="sha256:aaa")
OLD = Image("old", reference="coldstart.local/old:000", id="sha256:000", digest="sha256:bbb")


class Engine:
    """An engine's images, as the calls that are made here see them. theirs: names beside ours, by id; pulls: what the
    registry has, layers by digest; said: how it ends its pull."""

    def __init__(
        self,
        images: dict[str, tuple[list[str], list[str]]] | None = None,
        *,
        error: str = "",
        folder: Path = Path("/nowhere"),
    ) -> None:
        self.folder = folder
        self.images = images or {}  # id -> (names, layers)
        self.pulls = {"sha256:aaa": ("sha256:111", ["base", "app"]), "sha256:bbb": ("sha256:000", ["base", "old"])}
        self.error = error
        self.pulled: list[str] = []
        self.podman = False
        self.used: set[str] = set()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None: ...

    def text(self, path: str, method: str, **query: str) -> bytes:
        assert (path, method) == ("/libpod/images/pull" if self.podman else "/images/create", "POST")
        if self.podman:
            query["fromImage"], _, query["tag"] = query["reference"].partition("@")
        if self.error:
            return json.dumps({"errorDetail": {"message": self.error}, "error": self.error}).encode() + b"\n"
        id, layers = self.pulls[query["tag"]]
        known = {layer for _, own in self.images.values() for layer in own}
        self.images.setdefault(id, ([], layers))[0].append(f"{query['fromImage']}@{query['tag']}")
        self.pulled.append(query["fromImage"])
        states = ["Already exists" if layer in known else "Pull complete" for layer in layers]
        return b"".join(json.dumps({"status": state}).encode() + b"\r\n" for state in states)

    def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        if path == "/images/json":
            return [self._described(id) for id in self.images]
        name = path.removeprefix("/images/").removesuffix("/tag")
        id = self._found(name.removesuffix("/json"))
        if method == "POST" and path.endswith("/tag"):
            if (named := f"{query['repo']}:{query['tag']}") not in self.images[id][0]:
                self.images[id][0].append(named)
        elif method == "DELETE" and name in self.used:
            raise ApiError(409, f"conflict: a container uses {name}")
        elif method == "DELETE":
            self.images[id][0].remove(name)
            if not self.images[id][0]:
                del self.images[id]
        return self._described(id) if method == "GET" else None

    def _found(self, name: str) -> str:
        for id, (names, _) in self.images.items():
            if name == id or name in names:
                return id
        raise ApiError(404, f"No such image: {name}")

    def _described(self, id: str) -> dict[str, Any]:
        names, layers = self.images[id]
        tags = [name for name in names if "@" not in name]
        digests = [name for name in names if "@" in name]
        driver = {"Data": {"UpperDir": str(self.folder)}}
        return {
            "Id": id,
            "RepoTags": tags,
            "RepoDigests": digests,
            "RootFS": {"Layers": layers},
            "GraphDriver": driver,
        }


def test_a_name_that_moved_is_not_the_image() -> None:
    """What has its name, and another id, is something else."""
    assert dockerimage.find(Engine({"sha256:999": ([APP.reference], [])}), APP) == {}
    assert dockerimage.find(Engine({"sha256:111": (["theirs:1"], [])}), APP)["Id"] == "sha256:111"


@pytest.mark.parametrize("id", ["111", "sha256:111", "sha256:aaa"])
def test_ids_of_other_engines(id: str) -> None:
    """podman leaves the algorithm out; containerd's store calls an image by its manifest."""
    assert dockerimage.find(Engine({id: ([APP.reference], [])}), APP)["Id"] == id


def test_without_an_id_the_name_is_all_there_is() -> None:
    """An image that only the node's engine knows."""
    engine = Engine({"sha256:5": (["nginx:1"], [])})
    assert dockerimage.find(engine, Image("nginx:1", reference="nginx:1"))["Id"] == "sha256:5"
    assert dockerimage.find(engine, Image("nginx:2", reference="nginx:2")) == {}


@pytest.mark.parametrize("podman", [False, True])
def test_a_pull_leaves_our_name_and_no_other(podman: bool) -> None:
    """The registry's name, with its port, is gone."""
    engine = Engine()
    engine.podman = podman
    assert dockerimage.pull(engine, APP, 4321) == dockerimage.Pulled(layers=2, had=0)
    assert engine.images == {"sha256:111": ([APP.reference], ["base", "app"])}
    assert engine.pulled == ["127.0.0.1:4321/coldstart.local/app"]


def test_a_pull_that_fails_says_why() -> None:
    """In the engine's words, and nothing has our name."""
    engine = Engine(error="failed to register layer: no space left on device")
    with pytest.raises(ApiError, match="no space left"):
        dockerimage.pull(engine, APP, 1)
    assert engine.images == {}


def test_only_ours_are_removed() -> None:
    """Names of ours, and those that a killed pull left; an image that is theirs as well keeps their name."""
    engine = Engine(
        {
            "1": ([APP.reference], []),
            "2": (["127.0.0.1:4321/coldstart.local/app@sha256:aaa"], []),
            "3": ([OLD.reference, "theirs:1"], []),
            "4": (["127.0.0.1:5000/theirs@sha256:ccc", "coldstart.locale/x:1"], []),
        }
    )
    removed = dockerimage.remove_ours(engine)
    assert len(removed) == 3
    assert engine.images == {
        "3": (["theirs:1"], []),
        "4": (["127.0.0.1:5000/theirs@sha256:ccc", "coldstart.locale/x:1"], []),
    }


def test_what_is_in_use_does_not_keep_the_others() -> None:
    """It is named; all others of ours are gone all the same."""
    engine = Engine({"1": ([APP.reference], []), "2": ([OLD.reference], [])})
    engine.used = {APP.reference}
    with pytest.raises(ApiError, match="a container uses coldstart"):
        dockerimage.remove_ours(engine)
    assert list(engine.images) == ["1"]


def test_a_tag_with_its_digest_is_one_name() -> None:
    """Some engines list both; the second might be resolved to the owner's name of the same image."""
    engine = Engine({"1": ([APP.reference, "coldstart.local/app@sha256:aaa", "theirs:1"], [])})
    assert dockerimage.remove_ours(engine) == [f"engine image {APP.reference}"]


PULLED = "127.0.0.1:9/coldstart.local/app@sha256:aaa"


@pytest.mark.parametrize("names", [[PULLED], [PULLED, APP.reference]])
def test_a_pull_that_was_killed_before_it_ended(names: list[str], tmp_path: Path) -> None:
    """Before our name was given, or before the registry's was taken away: the next push puts it in order."""
    engine = Engine({"sha256:111": (names, ["base", "app"])})
    assert install(lambda: engine, APP, 7, Cache(str(tmp_path))) == "present"
    assert engine.images["sha256:111"][0] == [APP.reference]


def test_a_killed_pull_of_what_is_theirs_now(tmp_path: Path) -> None:
    """They named it since: it loses the registry's name, and gets none of ours."""
    engine = Engine({"sha256:111": ([PULLED, "theirs:1"], ["base", "app"])})
    assert install(lambda: engine, APP, 7, Cache(str(tmp_path))) == "present"
    assert engine.images["sha256:111"][0] == ["theirs:1"]


def test_their_name_by_digest_is_a_name() -> None:
    """An image that they pulled by its digest has no tag of theirs, and is theirs all the same."""
    engine = Engine({"sha256:111": ([APP.reference, "theirs.example/app@sha256:aaa"], ["base", "app"])})
    assert "theirs.example/app@sha256:aaa" in supply(engine).objection()
    assert dockerimage.ours(engine) == []


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_common_layers(one: list[str], other: list[str]) -> None:
    """The longest run from the lowest on: an engine shares nothing above the first difference."""
    shared = common({"RootFS": {"Layers": one}}, {"RootFS": {"Layers": other}})
    assert one[:shared] == other[:shared]
    assert one[shared : shared + 1] != other[shared : shared + 1] or len(one) == shared == len(other)


# -- between boots


def supply(engine: Engine, previous: Image | None = None, image: Image = APP, port: int = 7) -> DockerSupply:
    for each in filter(None, (previous, image)):
        if each.id not in engine.images:
            dockerimage.pull(engine, each, 7)
    return DockerSupply(lambda: engine, image, previous, port, Stock())


def test_absent_then_obtained() -> None:
    """Nothing of it is there, nor of others of ours that share its layers; the pull bears the boot's name."""
    engine = Engine()
    dockerimage.pull(engine, OLD, 7)
    one = supply(engine)
    one.absent()
    assert engine.images == {}
    assert one.obtain("coldstart.local/boot-0-1") == ""
    assert engine.pulled[-1] == "127.0.0.1:7/coldstart.local/boot-0-1"
    assert list(engine.images) == ["sha256:111"]
    one.settle()
    assert engine.images["sha256:111"][0] == [APP.reference]


def test_nothing_but_the_fetching_is_within_the_boot() -> None:
    """Names are given once it is over: they cost the engine some ms."""
    engine = Engine()
    one = supply(engine)
    one.absent()
    one.obtain("coldstart.local/boot-0-1")
    assert engine.images["sha256:111"][0] == ["127.0.0.1:7/coldstart.local/boot-0-1@sha256:aaa"]


def test_an_update_starts_from_the_version_before() -> None:
    """Which is brought back if another target's boots took it out."""
    engine = Engine()
    one = supply(engine, previous=OLD)
    supply(engine).absent()
    one.absent()
    assert list(engine.images) == ["sha256:000"]
    assert one.obtain("x") == ""


def test_present_again_for_other_starts() -> None:
    """What an absent start took out is fetched, untimed, for a start that needs it."""
    engine = Engine()
    one = supply(engine)
    one.absent()
    one.present(("old folder",))
    assert list(engine.images) == ["sha256:111"]


def test_ids_without_their_algorithm() -> None:
    """As podman writes them: another target's boots took the image out, and it is fetched again."""
    engine = Engine()
    engine.pulls = {"sha256:aaa": ("111", ["base", "app"])}
    dockerimage.pull(engine, APP, 7)
    one = DockerSupply(lambda: engine, APP, None, 7, Stock())
    one.absent()
    one.present(())
    assert list(engine.images) == ["111"]


def test_files_beside_the_image_still_count(tmp_path: Path) -> None:
    """What a page-cold start forgets besides the layers is the same after the image came into other folders."""
    engine = Engine(folder=tmp_path / "one")
    one = supply(engine)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "app").touch()
    one.absent()
    one.obtain("x")
    engine.folder = tmp_path / "two"
    files = (str(tmp_path / "one" / "app"), "/usr/bin/runc")
    assert one.present(files) == (str(tmp_path / "two" / "app"), "/usr/bin/runc")


def test_an_engine_that_cannot_pull_keeps_what_it_has() -> None:
    """It was given an archive, because its loopback is another: said before anything is removed."""
    engine = Engine()
    one = supply(engine)
    engine.error = "connection refused"
    assert "connection refused" in one.objection()
    assert list(engine.images) == ["sha256:111"]


def test_layers_of_theirs_make_it_not_absent() -> None:
    """An image of the owner's that shares a layer: less is fetched than a node without it would fetch."""
    engine = Engine()
    one = supply(engine)
    one.absent()
    engine.images["sha256:7"] = (["theirs:1"], ["base", "other"])
    assert "1 layers of it were there already" in one.obtain("x")


def test_theirs_is_never_made_absent() -> None:
    """It was there before, under their name: said before the first boot."""
    engine = Engine({"sha256:111": (["theirs:1"], ["base", "app"])})
    assert "theirs:1" in supply(engine).objection()


def test_other_objections() -> None:
    """Nobody to fetch it from, or no way to ask."""
    engine = Engine({"sha256:5": (["nginx:1"], [])})
    engine.images["sha256:111"] = ([APP.reference], [])
    only_there = DockerSupply(lambda: engine, Image("nginx:1", reference="nginx:1"), None, 7, Stock())
    assert "nobody but the node's engine" in only_there.objection()
    assert "forward" in supply(engine, port=0).objection()
    assert supply(engine).objection() == ""


def test_what_stays_is_said() -> None:
    """Their name came after ours: the image cannot go."""
    engine = Engine()
    one = supply(engine)
    engine.images["sha256:111"][0].append("theirs:2")
    with pytest.raises(StartFailed, match="theirs:2"):
        one.absent()
