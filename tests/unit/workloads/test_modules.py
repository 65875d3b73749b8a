"""Which modules are loaded, and in which order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldstart.workloads import modules


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """What each module needs; never in a circle, as modpost sees to."""
    names = [f"m{number}" for number in range(draw(st.integers(1, 8)))]
    needs = {
        name: draw(st.lists(st.sampled_from(names[:at]), unique=True)) if at else [] for at, name in enumerate(names)
    }
    return {name: needs[name] for name in draw(st.permutations(names))}


@given(graphs(), st.data())
def test_nothing_before_what_it_needs(needs: dict[str, list[str]], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.sampled_from(sorted(needs))))
    order = modules.order(wanted, needs.__getitem__)
    assert len(order) == len(set(order))
    assert set(wanted) <= set(order)
    for at, name in enumerate(order):
        assert set(needs[name]) <= set(order[:at])


@given(graphs(), st.data())
def test_nothing_that_nobody_needs(needs: dict[str, list[str]], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.sampled_from(sorted(needs))))
    for name in modules.order(wanted, needs.__getitem__):
        assert name in wanted or any(name in needs[other] for other in modules.order(wanted, needs.__getitem__))


def test_the_order_in_which_they_are_asked_for() -> None:
    needs = {"net": ["bus"], "pci": ["bus"], "bus": []}
    assert modules.order(["pci", "net"], needs.__getitem__) == ["bus", "pci", "net"]


def test_a_circle_ends() -> None:
    assert set(modules.order(["a"], {"a": ["b"], "b": ["a"]}.__getitem__)) == {"a", "b"}


@pytest.mark.parametrize(
    ("info", "needed"),
    [
        (b"license=GPL\0depends=virtio,virtio-ring\0retpoline=Y\0", ["virtio", "virtio_ring"]),
        (b"license=GPL\0depends=\0", []),
        (b"license=GPL\0parm=x:depends=no\0", []),
        (b"", []),
    ],
)
def test_what_a_module_needs(info: bytes, needed: list[str]) -> None:
    assert modules.depends(b"\x7fELF" + info + b"\0tail") == needed


def test_built_in() -> None:
    text = "kernel/drivers/net/virtio_net.ko\nkernel/drivers/char/hw_random/virtio-rng.ko\n"
    assert modules.built_in(text) == {"virtio_net", "virtio_rng"}


def test_which_files_are_modules() -> None:
    paths = [
        "lib/modules/6.1/kernel/a/virtio_net.ko",
        "usr/lib/modules/6.1/extra/virtio-rng.ko.xz",
        "lib/modules/6.1/b.ko.zst",
        "lib/modules/6.2/other.ko",
        "lib/modules/6.1/modules.dep",
        "boot/x.ko",
    ]
    assert modules.index(paths, "6.1") == {"virtio_net": paths[0], "virtio_rng": paths[1], "b": paths[2]}
