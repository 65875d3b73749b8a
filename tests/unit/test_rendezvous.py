"""Nodes wait for each other, and for nobody who is gone."""

from __future__ import annotations

import asyncio
import time

import pytest

from coldstart.rendezvous import Barrier, Gathering


def largest(brought: dict[str, int]) -> int:
    return max(brought.values())


async def settled() -> None:
    """Every task has gone as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


def run(story) -> None:
    asyncio.run(story())


def test_it_opens_when_all_are_there():
    """And tells all the same."""

    async def story():
        barrier = Barrier("abc", largest)
        first = [asyncio.create_task(barrier.arrive(name, number)) for number, name in enumerate("ab")]
        await settled()
        assert not any(task.done() for task in first)
        assert await barrier.arrive("c", 7) == 7
        assert await asyncio.gather(*first) == [7, 7]

    run(story)


def test_who_leaves_is_not_waited_for():
    """The last of the others opens it."""

    async def story():
        barrier = Barrier("abc", largest)
        waiting = [asyncio.create_task(barrier.arrive(name, 1)) for name in "ab"]
        await settled()
        barrier.leave("c")
        assert await asyncio.gather(*waiting) == [1, 1]

    run(story)


def test_who_comes_back_is_waited_for_again():
    """From its next arrival on."""

    async def story():
        barrier = Barrier("ab", largest)
        barrier.leave("b")
        assert await barrier.arrive("a", 1) == 1
        back = asyncio.create_task(barrier.arrive("b", 2))
        await settled()
        assert not back.done()
        assert await barrier.arrive("a", 3) == 3
        assert await back == 3

    run(story)


def test_a_cancelled_arrival_did_not_arrive():
    """Its node broke down while it waited: it counts again only when it arrives or leaves."""

    async def story():
        barrier = Barrier("ab", largest)
        gone = asyncio.create_task(barrier.arrive("a", 9))
        await settled()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        waiting = asyncio.create_task(barrier.arrive("b", 1))
        await settled()
        assert not waiting.done()
        barrier.leave("a")
        assert await waiting == 1

    run(story)


def test_everybody_gone_is_no_error():
    """Nothing is decided for nobody."""

    async def story():
        barrier = Barrier("ab", largest)
        barrier.leave("a")
        barrier.leave("b")

    run(story)


def test_one_that_came_back_is_waited_for_at_both_meetings():
    """However slow its clock is compared: or the two would wait for each other, one at each meeting."""

    async def story():
        gathering = Gathering(["a", "b"])
        gathering.leave("b")
        back = asyncio.create_task(gathering.staged("b"))
        await settled()
        await asyncio.gather(gathering.staged("a"), back)
        quick = asyncio.create_task(gathering.compared("a", 1, 0))
        await settled()
        assert not quick.done()
        assert await gathering.compared("b", 1, 0) == await quick

    run(story)


def test_waves_are_numbered_and_lie_ahead():
    """Far enough for the slowest."""

    async def story():
        gathering = Gathering(["a", "b"], first_wave=5)
        for number in (5, 6):
            releases = await asyncio.gather(*(gathering.compared(name, 300_000_000, 0) for name in "ab"))
            assert releases[0] == releases[1]
            assert releases[0].wave == number
            assert releases[0].at_ns > time.monotonic_ns() + 800_000_000

    run(story)


def test_the_longest_gap_is_kept():
    """The idle time before a boot is part of the protocol at a shared instant, too."""

    async def story():
        gathering = Gathering(["a", "b"])
        releases = await asyncio.gather(gathering.compared("a", 1, 0), gathering.compared("b", 1, 2_000_000_000))
        assert releases[0].at_ns > time.monotonic_ns() + 1_500_000_000

    run(story)
