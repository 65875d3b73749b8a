"""What the fan-out makes of its measurements, without a server."""

from __future__ import annotations

import pytest

from benchmarks import fanout, loopback
from benchmarks.loopback import Cost, Site

COST = Cost(cpu_s=0.1, wall_s=2.0, rss_bytes=40_000_000)


def test_everybody_begins():
    clients = ("a", "b", "c")
    assert [fanout.rotated(clients, turn)[0] for turn in range(4)] == ["a", "b", "c", "a"]
    assert all(sorted(fanout.rotated(clients, turn)) == sorted(clients) for turn in range(4))


def test_the_marginal_cost_is_of_one_turn():
    """The i-th of the few goes with the i-th of the many."""
    few = [COST, Cost(0.2, 2.0, 40_000_000)]
    many = [Cost(0.1 + 190 * 0.003, 2.0, 40_000_000), Cost(0.2 + 190 * 0.004, 2.0, 40_000_000)]
    assert fanout.per_node(few, many, lambda cost: cost.cpu_s) == pytest.approx([0.003, 0.004])


def test_a_goal_is_of_the_medians():
    assert fanout.within([1.0, 1.0, 9.0], [2.0, 2.0, 2.0], 0.5) is True
    assert fanout.within([1.1, 1.1, 1.0], [2.0, 2.0, 2.0], 0.5) is False
    assert fanout.within([1.0], [2.0], None) is None


def test_memory_is_told_of_one_process_only():
    assert fanout.text([COST], in_process=True) == "100.0 ms CPU (2.00 s, 40 MB)"
    assert fanout.text([COST], in_process=False) == "100.0 ms CPU (2.00 s)"


def test_every_client_is_there_and_has_a_name():
    assert {client for job in fanout.JOBS for client in job.clients} == set(loopback.CLIENTS)
    peers = set(loopback.CLIENTS) - {"ours", "agents"}
    assert all(fanout.named(peer) for peer in peers)
    assert set(fanout.GOALS) <= peers


def test_a_node_of_each_address_is_known():
    found = loopback.known_hosts("ssh-ed25519 AAAA somebody", 2222).splitlines()
    assert found[0] == "[127.0.1.1]:2222 ssh-ed25519 AAAA"
    assert len(set(found)) == loopback.MOST == len(set(loopback.addresses(loopback.MOST)))
    with pytest.raises(ValueError, match="1 to 250"):
        loopback.addresses(loopback.MOST + 1)


def test_host_keys_are_verified_by_the_ssh_client():
    options = Site("/folder", 2222, "somebody").ssh_options()
    assert "-oStrictHostKeyChecking=yes" in options
    assert "-oUserKnownHostsFile=/folder/known_hosts" in options
