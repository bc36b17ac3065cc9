"""When a provider was last heard is written down, and stands still while it is silent."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from controlplane.api import fleet_metrics
from fleet.providers.base import Observed
from tests.fleet.life_world import World

pytestmark = pytest.mark.django_db
NAME = "comfyplane_provider_heard_seconds"


def heard(world: World, at: datetime) -> float | None:
    class Families(Collector):
        def collect(self):  # type: ignore[no-untyped-def]
            return fleet_metrics.families(now=at)

    registry = CollectorRegistry()
    registry.register(Families())
    generate_latest(registry)
    return registry.get_sample_value(NAME, {"pool": world.pool.slug})


def test_it_grows_while_the_provider_is_silent_and_falls_when_it_is_back(now: datetime) -> None:
    world = World(now)
    assert heard(world, now) is None, "nobody has looked yet"
    world.run(15)
    assert heard(world, world.now) < 10
    world.machines.down = True
    world.run(40)
    assert heard(world, world.now) >= 40
    world.machines.down = False
    world.tick()
    assert heard(world, world.now) == 0


def test_a_watch_that_has_died_silently_shows_as_its_own_age(now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(now)
    monkeypatch.setattr(world.machines, "observe", lambda pool: Observed({}, heard_s=95.0))
    world.tick()
    assert heard(world, world.now) == pytest.approx(95)
    assert heard(world, world.now + timedelta(seconds=5)) == pytest.approx(100)


def test_the_row_of_the_pool_is_not_written_every_second(now: datetime) -> None:
    world = World(now)
    seen = set()
    for _ in range(30):
        world.tick()
        seen.add(world.fresh_pool.provider_heard_at)
    assert len(seen) == 3
