"""What the push benchmark makes of its measurements, and of the links' counters, without nodes."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from benchmarks import depot, push, pushrows, traffic
from benchmarks.booting import Failed
from benchmarks.depot import LAYER_BYTES, Leg
from benchmarks.pushrows import CUT_BYTES, Cut, Tally
from benchmarks.traffic import Count, Links

MS = 1_000_000
DEV = """Inter-|   Receive                                 |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0
  eth0: 8452101 3001 0 0 0 0 0 0 61234 900 0 0 0 0 0 0
"""


def ours(seconds: float, sent_bytes: int, rate: float = 1e8) -> Leg:
    """Of coldstart."""
    return Leg(seconds, Count(sent_bytes, 0), rate, ({"node": "n1", "how": "pulled", "seconds": seconds / 2},))


def theirs(seconds: float, sent_bytes: int, rate: float = 1e8) -> Leg:
    return Leg(seconds, Count(sent_bytes, 0), rate)


# -- counters


def test_counters_are_of_one_interface():
    assert traffic.parse(DEV) == Count(received=8_452_101, sent=61_234, frames=3901)
    assert traffic.parse(DEV, "lo").both == 200
    with pytest.raises(LookupError, match="no interface eth9"):
        traffic.parse(DEV, "eth9")


def test_counters_of_nodes_are_added(tmp_path: Path):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_text(DEV)
    with Links(paths) as links:
        before = links.count()
        paths[0].write_text(DEV.replace("8452101", "8452201"))
        assert links.count() - before == Count(100, 0)
        assert links.count().both == 2 * (8_452_101 + 61_234) + 100


def test_a_rate_is_of_the_transfer_alone():
    """Talk before it, and silence before and behind it, do not count."""
    talk = [(0, 1_000), (300 * MS, 50_000)]
    transfer = [((1000 + at) * MS, 50_000 + at * 100_000) for at in range(101)]
    over = [(2000 * MS, 10_050_000)]
    assert traffic.rate([*talk, *transfer, *over]) == pytest.approx(100_000 * 1000, rel=0.02)


def test_there_is_no_rate_of_nothing():
    assert traffic.rate([]) == 0
    assert traffic.rate([(0, 5), (MS, 5)]) == 0
    assert traffic.rate([(0, 0), (MS, 5_000)]) == 0


# -- what is delivered


def test_nobody_has_what_is_delivered(tmp_path: Path):
    """Two changes differ in one layer, and in their tags."""
    below = [os.urandom(100) for _ in range(4)]
    one, two = (depot.container(tmp_path / name, [*below, os.urandom(100)]) for name in ("one.tar", "two.tar"))
    first, second = ([blob.digest for blob in depot.sources.read(each.path, depot.ARCH).layers] for each in (one, two))
    assert [mine == other for mine, other in zip(first, second, strict=True)] == [True] * 4 + [False]
    assert one.tag != two.tag


def test_a_partial_archive_names_all_layers_and_has_one(tmp_path: Path):
    whole = depot.container(tmp_path / "whole.tar", [b"below", b"top"])
    with tarfile.open(whole.partial(tmp_path / "partial.tar")) as found:
        (entry,) = json.load(found.extractfile("manifest.json") or io.BytesIO())
        assert len(entry["Layers"]) == 2
        assert entry["RepoTags"] == [whole.tag]
        assert sorted(found.getnames()) == sorted(["manifest.json", entry["Config"], entry["Layers"][-1]])


def test_a_program_has_the_size_that_was_wanted(tmp_path: Path):
    assert depot.program(tmp_path / "program", 1 << 20).stat().st_size == 1 << 20


# -- what is made of it


def test_what_came_otherwise_is_no_figure():
    assert push.came(ours(1, 1), "pulled", ["n1"]).seconds == 1
    with pytest.raises(Failed, match="expected to be loaded by n1"):
        push.came(ours(1, 1), "loaded", ["n1"])
    with pytest.raises(Failed, match="n1, n2"):
        push.came(ours(1, 1), "pulled", ["n1", "n2"])


def layers(seconds: float, sent_bytes: int, count: int) -> Tally:
    fast, slow = ours(seconds, sent_bytes * count), theirs(1.0, 5 * LAYER_BYTES * count)
    return Tally(
        {"engine": [fast], "save": [slow], "file": [fast], "load": [slow], "repeat": [ours(1, 99_000 * count)]}
    )


def test_goals_of_a_layer_are_of_a_node():
    found = pushrows.layer_rows(layers(0.4, int(1.01 * LAYER_BYTES), 3), 3)
    assert [row.met for row in found] == [True] * 5
    assert "3 nodes" in found[0].what
    assert "(0.20 s of it pushing)" in found[1].ours
    assert "pushing" not in found[1].peers
    assert found[0].figure.startswith("1.010x")


def test_on_a_slow_link_bytes_have_no_goal():
    """Frames are smaller there, and their heads count; the seconds are what it is for."""
    found = pushrows.layer_rows(layers(0.4, int(1.05 * LAYER_BYTES), 1), 1, " over 40 Mbit/s")
    assert [row.met for row in found] == [None, True] * 2 + [True]
    assert "1 node over 40 Mbit/s" in found[0].what


def test_a_missed_goal_is_said():
    found = pushrows.layer_rows(layers(0.41, int(1.03 * LAYER_BYTES), 3), 3)
    assert [row.met for row in found] == [False] * 4 + [True]


def test_a_peer_that_cannot_is_left_out():
    tally = layers(0.4, LAYER_BYTES, 3)
    tally.broken["save"] = "no such command"
    found = pushrows.layer_rows(tally, 3)
    assert found[0].figure == "not run: no such command"
    assert [row.met for row in found] == [None, True, True, True]


def test_a_rate_is_held_against_each_kind_of_scp():
    sides = {"file": ours(1, 1, 80e6), "engine": ours(1, 1, 79e6)}
    peers = {f"{peer} {side}": theirs(1, 1, 100e6) for peer in ("scp", "scp -O") for side in sides}
    found = pushrows.cold_rows(Tally({side: [leg] for side, leg in (sides | peers).items()}), 1)
    assert [row.met for row in found] == [True, True, False, False]
    assert "sftp" in found[0].peer
    assert found[0].ours.startswith("80 MB/s")


def test_what_is_sent_after_a_cut_is_a_share_of_the_blob():
    cuts = [
        Cut(held_bytes=CUT_BYTES * 6 // 10, after_bytes=CUT_BYTES * share // 100, pushed_bytes=1)
        for share in (41, 46, 44)
    ]
    row = pushrows.cut_row("push of a program, cut", cuts)
    assert row.figure.startswith("0.440x")
    assert "at most 0.460x" in row.figure
    assert row.met is True
