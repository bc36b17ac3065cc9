"""Tests of real processes run on one test worker, one after the other: they take the whole machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.live_plane import Plane


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "integration":
            item.add_marker(pytest.mark.integration)


@pytest.fixture
def make_plane(tmp_path: Path) -> Iterator[Callable[..., Plane]]:
    """Planes that are gone when the test is over."""
    made: list[Plane] = []

    def make(name: str = "data", **fields: object) -> Plane:
        made.append(Plane(data_dir=tmp_path / name, **fields))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for plane in made:
        plane.end()
