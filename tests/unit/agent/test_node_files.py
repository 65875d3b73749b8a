"""What the agent does on a node's disk and in its process table: page cache, image cache, lock, spawn, bundle."""

from __future__ import annotations

import ast
import hashlib
import importlib.resources
import io
import os
import select
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

from coldstart import bundle
from coldstart.agent import lock, pagecache, resources, spawn
from coldstart.agent.cache import BadContent, Cache, folder
from coldstart.agent.wire import Decoder, Encoder

AGENT = Path(str(importlib.resources.files("coldstart"))) / "agent"
OLDEST = (3, 9)


# -- page cache


@pytest.fixture
def big_file(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(os.urandom(1 << 20) + b"end")
    pagecache.flush([str(path)])
    return str(path)


def test_page_cold_of_what_was_just_written(tmp_path):
    """An image that came in the boot before is dirty, and a dirty page cannot be evicted: it is written out first."""
    path = tmp_path / "image"
    path.write_bytes(os.urandom(1 << 20))
    assert pagecache.make("page-cold", [str(path)])["start"] == 0


def test_warm_and_page_cold(big_file):
    """Filled means all of it is there, evicted nothing, and each says what it found."""
    size = (1 << 20) + 3
    pagecache.make("warm", (big_file,))
    assert pagecache.make("page-cold", (big_file,)) == {"files": size, "before": size, "start": 0}
    assert pagecache.make("warm", (big_file,)) == {"files": size, "before": 0, "start": size}


def test_what_is_mapped_cannot_be_evicted(big_file):
    """And it is said: the boot will be `not-cold`."""
    import mmap

    with open(big_file, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[0] == mapped[0]
        assert pagecache.make("page-cold", (big_file,))["start"] > 0


def test_an_empty_file_has_nothing_to_evict(tmp_path):
    """mmap refuses it; we do not."""
    (tmp_path / "empty").touch()
    assert pagecache.make("page-cold", (str(tmp_path / "empty"),)) == {"files": 0, "before": 0, "start": 0}


# -- image cache


def test_a_push_that_was_cut_goes_on(tmp_path):
    """Complete only when the digest is right; executable then."""
    data = b"x" * 1000
    digest, cache = hashlib.sha256(data).hexdigest(), Cache(str(tmp_path))
    assert not cache.add(digest, data[:400], 1000)
    assert (cache.file(digest), cache.begun(digest, 1000)) == ("", 400)
    assert Cache(str(tmp_path)).add(digest, data[400:], 1000)
    assert os.access(cache.file(digest), os.X_OK)
    assert cache.empty() == [f"image {digest[:12]}"]


@pytest.mark.parametrize("data", [b"y" * 1000, b"x" * 1001])
def test_other_content_is_not_kept(tmp_path, data):
    """Neither under its name nor as a part that the next push would go on with."""
    digest, cache = hashlib.sha256(b"x" * 1000).hexdigest(), Cache(str(tmp_path))
    with pytest.raises(BadContent):
        cache.add(digest, data, 1000)
    assert (cache.file(digest), cache.begun(digest, 1000)) == ("", 0)


def test_emptying_leaves_what_is_not_ours(tmp_path):
    """Only names that are digests."""
    (tmp_path / "dockerd.log").touch()
    assert Cache(str(tmp_path)).empty() == []


def test_the_cache_is_private(tmp_path):
    """What lies there is run."""
    assert os.stat(folder({"XDG_CACHE_HOME": str(tmp_path)})).st_mode & 0o777 == 0o700


# -- lock


def test_one_run_at_a_time(tmp_path, monkeypatch):
    """The second hears whose it is; it is free when the holder is gone."""
    monkeypatch.setenv("COLDSTART_LOCK", str(tmp_path / "lock"))
    held = lock.take("first")
    with pytest.raises(lock.Busy, match="node busy: run first"):
        lock.take("second")
    os.close(held)
    os.close(lock.take("second"))


# -- processes


@pytest.fixture
def output():
    fd = os.memfd_create("output")
    yield fd
    os.close(fd)


def test_spawned_processes_bear_the_mark_and_nothing_else(output, node):
    """Own session, no descriptor but 0, 1 and 2, default signals; found by its mark, and gone after kill."""
    env = {spawn.MARK: "spawn-test", "PATH": os.environ["PATH"]}
    spawn.seal()
    script = "grep SigIgn /proc/$$/status; echo up; exec sleep 60"
    pid = spawn.spawn([shutil.which("sh"), "-c", script], env, output)
    while b"up" not in (text := os.pread(output, 4096, 0)):
        select.select([], [], [], 0.01)
    assert int(text.decode().split()[1], 16) & 0x7FFFFFFF == 0  # 32 and 33 are the C library's own
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    assert os.getsid(pid) == pid
    assert os.sched_getscheduler(pid) == os.SCHED_OTHER
    assert spawn.marked(spawn.MARK, "spawn-test", but="") == [pid]
    assert spawn.marked(spawn.MARK, "another", but="") == []
    assert pid not in spawn.marked(spawn.MARK, "", but="spawn-test")
    held = resources.footprint([pid], [])
    spawn.kill(pid, 9)
    assert resources.remains(held) == []


def test_what_cannot_be_run_says_why(output, tmp_path):
    """As OSError, before anything is measured."""
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o700)
    with pytest.raises(OSError, match="Exec format error"):
        spawn.spawn([str(tmp_path / "text")], {}, output)


def test_killing_who_is_gone_is_no_error():
    """Somebody else was faster."""
    spawn.kill(2**22 - 1, 9)


# -- what travels


def sources() -> list[Path]:
    return sorted(AGENT.rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(AGENT)))
def test_the_agent_imports_the_standard_library_alone(path):
    """And, of ours, only what travels with it."""
    tree = ast.parse(path.read_text())
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    foreign = [n for n in names if n.split(".")[0] not in sys.stdlib_module_names and n != "coldstart.agent"]
    assert [name for name in foreign if not name.startswith("coldstart.agent.")] == []


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(AGENT)))
def test_agent_files_are_short(path):
    """200 lines at most: small enough to be read on the way to a node."""
    assert path.read_text().count("\n") <= 200


def test_the_bundle_is_the_same_everywhere():
    """Same sources, same bytes; and nothing but sources is in it."""
    first = bundle.build()
    assert first == bundle.build()
    assert first.sha256 == hashlib.sha256(first.data).hexdigest()
    with zipfile.ZipFile(io.BytesIO(zlib.decompress(first.data))) as archive:
        assert {Path(name).suffix for name in archive.namelist()} == {".py"}
        assert "coldstart/agent/runtimes/process.py" in archive.namelist()


class _Undocumented(ast.NodeTransformer):
    """Docstrings are all the same."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            node.value.value = ""
        return node


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(AGENT)))
def test_what_travels_is_the_same_program(path):
    """But for docstrings and comments, statement by statement on the same lines."""
    source = path.read_bytes()
    mine, bare = (_Undocumented().visit(ast.parse(each)) for each in (source, bundle.bare(source)))
    assert ast.dump(bare) == ast.dump(mine)
    lines = ([node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt)] for tree in (mine, bare))
    assert len({tuple(each) for each in lines}) == 1
    assert b"#" not in b"".join(line for line in bundle.bare(source).splitlines() if line.lstrip().startswith(b"#"))


def pythons() -> list[str]:
    """Every Python from 3.9 on that can be found: on PATH, and where pyenv puts them."""
    names = [f"python3.{minor}" for minor in range(OLDEST[1], 20)]
    known = [shutil.which(name) for name in names]
    known += [str(p) for name in names for p in Path.home().glob(f".pyenv/versions/{name[6:]}*/bin/{name}")]
    working = {
        os.path.realpath(path)
        for path in known
        if path and subprocess.run([path, "-c", ""], check=False).returncode == 0
    }
    return sorted({os.path.realpath(sys.executable), *working})


@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).name)
def test_the_agent_runs_under(python, tmp_path):
    """From memory, with every runtime imported; it answers `hello` with its facts, and ends clean when told."""
    code, encoder = bundle.build(), Encoder()
    told = encoder.encode("hello", run="bundle-test", settings={}) + encoder.encode("bye")
    env = {"COLDSTART_LOCK": str(tmp_path / "lock"), "XDG_CACHE_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    result = subprocess.run(
        bundle.command(python, code), input=code.data + told, capture_output=True, env=env, timeout=30, check=False
    )
    messages = Decoder().feed(result.stdout)
    assert (result.returncode, result.stderr) == (0, b"")
    assert [message["type"] for message in messages] == ["hello", "bye"]
    assert messages[0]["facts"]["python"].startswith("3.")


def test_the_oldest_python_was_among_them():
    """3.9 is what the agent promises; where there is none, this shows as skipped, with the reason."""
    if not any(Path(path).name.endswith("3.9") for path in pythons()):
        pytest.skip("no Python 3.9 on this machine")
