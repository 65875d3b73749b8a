"""Fixtures for tests: `from lab.fixture import fleet, make_lab` in a conftest.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.fleet import Lab, LabError
from lab.shapes import DEFAULT, Shape

MakeLab = Callable[..., Lab]


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The default fleet, one for all tests: a test leaves it as it was. About a second; skips with the reason."""
    with ExitStack() as stack:
        yield _entered(stack, Lab(tmp_path_factory.mktemp("fleet") / "lab", DEFAULT))


@pytest.fixture
def make_lab(tmp_path: Path) -> Iterator[MakeLab]:
    """`make_lab(Shape("n1"), Shape("n2"))`: a fleet of one's own."""
    with ExitStack() as stack:

        def make(*shapes: Shape) -> Lab:
            return _entered(stack, Lab(tmp_path / f"lab-{shapes[0].name}", shapes))

        yield make


def _entered(stack: ExitStack, lab: Lab) -> Lab:
    try:
        return stack.enter_context(lab)
    except LabError as error:
        pytest.skip(str(error))
