"""Image archives: what is written is exact, and the same everywhere."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from typing import Any

from image_fixtures import contents

from coldstart import archive
from coldstart.archive import ContainerImage, File

IMAGE = ContainerImage(
    repository="example.test/app",
    architecture="aarch64",
    layers=((File("etc/motd", b"hello\n"), File("app", b"\x7fELF" + bytes(2000), 0o755)),),
    command=("/app", "--now"),
    ports=(8080,),
    user="65534",
    env={"B": "2", "A": "1"},
    labels={"who": "test"},
)


def test_same_image_gives_same_bytes() -> None:
    shuffled = ContainerImage(**{**vars(IMAGE), "layers": (IMAGE.layers[0][::-1],), "env": {"A": "1", "B": "2"}})
    assert archive.pack(IMAGE) == archive.pack(shuffled)


def test_tar_says_nothing_of_the_machine() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive.tar(IMAGE.layers[0]))) as tar:
        members = tar.getmembers()
    assert [(m.name, m.mode, m.size) for m in members] == [("app", 0o755, 2004), ("etc/motd", 0o644, 6)]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


def test_manifest_of_docker() -> None:
    files = contents(archive.pack(IMAGE))
    (entry,) = json.loads(files["manifest.json"])
    config = json.loads(files[entry["Config"]])
    (layer,) = entry["Layers"]
    assert contents(files[layer])["etc/motd"] == b"hello\n"
    assert entry["RepoTags"] == [f"example.test/app:{layer.rpartition('/')[2][:12]}"] == [archive.tag(IMAGE)]
    assert (config["architecture"], config["os"], config["created"]) == ("arm64", "linux", "1970-01-01T00:00:00Z")
    assert config["rootfs"]["diff_ids"] == ["sha256:" + layer.rpartition("/")[2]]
    assert config["config"] == {
        "Cmd": ["/app", "--now"],
        "Env": ["A=1", "B=2"],
        "ExposedPorts": {"8080/tcp": {}},
        "Labels": {"who": "test"},
        "User": "65534",
    }


def test_oci_layout() -> None:
    """Every descriptor, from the index on, finds a blob of its size and digest."""
    files = contents(archive.pack(IMAGE))
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}

    def follow(descriptor: dict[str, Any]) -> bytes:
        data = files["blobs/" + descriptor["digest"].replace(":", "/")]
        assert (len(data), "sha256:" + hashlib.sha256(data).hexdigest()) == (descriptor["size"], descriptor["digest"])
        return data

    (entry,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(follow(entry))
    assert json.loads(follow(manifest["config"]))["architecture"] == entry["platform"]["architecture"] == "arm64"
    assert [contents(follow(layer)).keys() for layer in manifest["layers"]] == [{"app", "etc/motd"}]
    assert entry["annotations"]["io.containerd.image.name"] == archive.tag(IMAGE)


def test_layers_in_their_order() -> None:
    """The lowest first, in the manifest of Docker, in the config and in the manifest."""
    layers = ((File("base", b"1"),), (File("a", b"2"), File("b", b"3")), (File("top", b"4"),))
    files = contents(archive.pack(replace(IMAGE, layers=layers)))
    (entry,) = json.loads(files["manifest.json"])
    assert [sorted(contents(files[name])) for name in entry["Layers"]] == [["base"], ["a", "b"], ["top"]]
    named = [name.replace("blobs/sha256/", "sha256:") for name in entry["Layers"]]
    (described,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(files["blobs/" + described["digest"].replace(":", "/")])
    own = json.loads(files[entry["Config"]])
    assert [layer["digest"] for layer in manifest["layers"]] == named == own["rootfs"]["diff_ids"]
    assert len(own["history"]) == 3
    assert archive.tag(replace(IMAGE, layers=layers[:2])) != archive.tag(replace(IMAGE, layers=layers))
