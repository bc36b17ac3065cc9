"""What /metrics says of the workers' model stores: numbers only, few labels, a shared store once."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.test import Client
from factories import make_pool, make_worker

from controlplane.api import model_stores
from fleet.models import Worker

pytestmark = pytest.mark.django_db


def samples(now: datetime) -> dict[tuple[str, ...], float]:
    return {(s.name, *s.labels.values()): s.value for family in model_stores.families(now=now) for s in family.samples}


def store(**fields: object) -> dict[str, object]:
    return {"store": {"id": "s1", "used_bytes": 100, "cap_bytes": 1000, "pinned_bytes": 10, "partial_bytes": 0, "hits": 3, "misses": 1, "waiting": 1} | fields}


def test_a_store_that_two_workers_share_counts_once_and_what_they_did_is_added(now: datetime) -> None:
    one, other = make_pool(now=now, slug="a"), make_pool(now=now, slug="b")
    for usage in (store(), store(), store(id="s2", used_bytes=5)):
        make_worker(one, now=now, usage=usage)
    make_worker(other, now=now, usage={"cpu_percent": 1.0})
    found = samples(now)
    assert found["comfyplane_model_store_bytes", "a", "used"] == 105 and found["comfyplane_model_store_bytes", "a", "cap"] == 2000
    assert found["comfyplane_model_store_events", "a", "hit"] == 9 and found["comfyplane_model_store_waiting", "a"] == 3
    assert not [key for key in found if "b" in key]


def test_workers_that_left_or_fell_silent_are_not_counted(now: datetime) -> None:
    pool = make_pool(now=now)
    make_worker(pool, now=now, usage=store(), state=Worker.State.STOPPED, stopped_at=now)
    make_worker(pool, now=now, usage=store(), seen_at=now - timedelta(hours=1))
    assert samples(now) == {}


@pytest.mark.parametrize("value", ["text", None, True, [], {}, -1, 10**400, 1e400, "9" * 50])
def test_what_is_no_number_counts_as_none(now: datetime, value: object) -> None:
    pool = make_pool(now=now, slug="a")
    fields = dict.fromkeys(("used_bytes", "hits", "waiting", "id"), value)
    if isinstance(value, float):
        fields = dict.fromkeys(fields, 2.0**70)  # no database keeps an infinity
    make_worker(pool, now=now, usage=store(**fields))
    make_worker(pool, now=now, usage={"store": value if not isinstance(value, float) else 2.0**70})
    found = samples(now)
    assert found["comfyplane_model_store_events", "a", "hit"] == 0 and found["comfyplane_model_store_bytes", "a", "used"] == 0


def test_the_scrape_has_them(now: datetime) -> None:
    from django.utils import timezone

    make_worker(make_pool(now=now, slug="a"), now=timezone.now(), usage=store())
    text = Client().get("/metrics").content.decode()
    assert 'comfyplane_model_store_bytes{kind="cap",pool="a"} 1000.0' in text
