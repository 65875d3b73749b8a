"""One image of the user's, named on the command line, becomes a playbook like any other."""

from __future__ import annotations

import pytest

from coldstart import ownimage, playbook, yamlfile
from coldstart.errors import UsageError
from coldstart.ownimage import OwnImage

QUICK = playbook.load(playbook.find("quick"))


def test_one_target_in_place_of_the_playbook_s() -> None:
    """Start kinds, load and order stay; ready is a 200 there."""
    made = ownimage.playbook(OwnImage("./My App.tar.gz", 3000, "/health"), QUICK)
    (target,) = made.targets
    assert (target.name, target.runtime, target.images) == ("my-app", "docker", {"": "./My App.tar.gz"})
    assert (target.ready.port, target.ready.path, target.ready.status, target.ready.nonce) == (
        3000,
        "/health",
        200,
        False,
    )
    assert (made.starts, made.load, made.order, made.sync) == (QUICK.starts, QUICK.load, QUICK.order, QUICK.sync)


def test_what_a_run_keeps_can_be_read_again() -> None:
    """Its text is a playbook."""
    made = ownimage.playbook(OwnImage("nginx:1.27", 80), QUICK)
    again = playbook.parse(yamlfile.parse(made.text, "again"))
    assert (again.name, again.load, again.starts) == (made.name, made.load, made.starts)
    assert again.targets[0].images == made.targets[0].images


def test_the_reference_workload_bears_the_nonce() -> None:
    """A built-in name is no stranger."""
    assert ownimage.playbook(OwnImage("hello", 8080), QUICK).targets[0].ready.nonce


@pytest.mark.parametrize(
    ("own", "what"),
    [
        (OwnImage("a.tar", None), "where does it answer"),
        (OwnImage("a.tar", 80, "health"), "not a path of a URL"),
        (OwnImage("a.tar", 80, "/a b"), "not a path of a URL"),
        (OwnImage("a.tar", 80, runtime="doker"), "no such runtime"),
        (OwnImage("", 80), "names no image"),
    ],
)
def test_refused(own: OwnImage, what: str) -> None:
    """With the option's name."""
    with pytest.raises(UsageError, match=what) as error:
        ownimage.playbook(own, QUICK)
    assert error.value.message.startswith("--")
