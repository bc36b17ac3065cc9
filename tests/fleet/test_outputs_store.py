"""Storing outputs: only while the attempt holds the job, also when the lease runs out while the bytes come in."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from typing import Any

import pytest
from factories import make_customer, make_pool, make_runnable, make_worker, submit

from controlplane.kernel.errors import Conflict, Invalid, TooLarge
from fleet import outputs, queue
from fleet.models import Output

pytestmark = pytest.mark.django_db


@pytest.fixture
def held(now: datetime) -> tuple[Any, Any]:
    pool = make_pool(now=now)
    worker = make_worker(pool, now=now)
    job = submit(make_customer(now=now), make_runnable(now=now, pool=pool), now=now)
    queue.claim(worker, now=now)
    return worker, job


def put(held: tuple[Any, Any], now: datetime, stream: Any = None, **fields: Any) -> Output:
    given = {"index": 0, "name": "a.png", "kind": "image", "node": "2", "media_type": "image/png", "sha256": "", "attempt": 1} | fields
    return outputs.store(held[0], job_id=held[1].id, stream=stream or io.BytesIO(b"bytes"), now=now, **given)


def test_the_same_index_again_replaces(held: tuple[Any, Any], now: datetime) -> None:
    first = put(held, now)
    second = put(held, now, io.BytesIO(b"other"), name="../b.png")
    assert (first.id, second.name, second.size_bytes, Output.objects.count()) == (second.id, "b.png", 5, 1)
    assert second.blob_id != first.blob_id and not second.published


def test_a_lease_that_ran_out_while_the_bytes_came_leaves_no_row(held: tuple[Any, Any], now: datetime) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int = -1, /) -> bytes:
            queue.expire_leases(now=now + timedelta(minutes=5))
            return super().read(size)

    with pytest.raises(Conflict) as refused:
        put(held, now, Slow(b"late"))
    assert refused.value.code == "attempt_stale"
    assert not Output.objects.exists()


def test_a_stale_attempt_is_refused_before_a_byte_is_read(held: tuple[Any, Any], now: datetime) -> None:
    class Unread(io.BytesIO):
        def read(self, size: int = -1, /) -> bytes:
            raise AssertionError("read")

    for wrong in ({"attempt": 2}, {"attempt": 0}, {"kind": "exe"}, {"index": -1}, {"index": 1000}):
        with pytest.raises((Conflict, Invalid)):
            put(held, now, Unread(), **wrong)


def test_what_is_too_large_is_refused(held: tuple[Any, Any], now: datetime, settings: Any) -> None:
    settings.MAX_OUTPUT_BYTES = 4
    with pytest.raises(TooLarge):
        put(held, now)
    assert not Output.objects.exists()
