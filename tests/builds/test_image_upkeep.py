"""Builds over weeks and through bad moments: logs are forgotten in time, and a heartbeat outlives a hiccup of the database."""

from __future__ import annotations

import hashlib
import threading
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import factories
import pytest
from django.db import OperationalError

from builds import tasks
from builds.images import building, running
from builds.images.building import Lost
from builds.models import Build, BuildLine, BuildStep, Lock


def make_build(now: datetime, *, name: str, state: str, finished_at: datetime | None) -> Build:
    version = factories.make_version(factories.make_workflow(now=now), now=now)
    lock = Lock.objects.create(sha256=hashlib.sha256(name.encode()).hexdigest(), document={}, created_at=now, created_by="test")
    made = Build.objects.create(
        lock=lock,
        version=version,
        platform="linux/amd64",
        requested_at=now,
        requested_by="ann",
        state=state,
        finished_at=finished_at,
        image_id="sha256:1",
        error={"code": "x"} if state == "failed" else None,
    )
    BuildLine.objects.bulk_create(BuildLine(build=made, seq=seq, at=now, text="x") for seq in range(1, 6))
    BuildStep.objects.create(build=made, position=1, name="step", state="done")
    return made


@pytest.mark.django_db
def test_logs_of_builds_that_ended_long_ago_are_forgotten_and_nothing_else(now: datetime) -> None:
    long_ago = now - building.LOG_KEPT - timedelta(minutes=1)
    old = [make_build(now, name=state, state=state, finished_at=long_ago) for state in ("succeeded", "failed", "canceled")]
    fresh = make_build(now, name="fresh", state="succeeded", finished_at=now - timedelta(days=1))
    open_one = make_build(now, name="open", state="queued", finished_at=None)
    assert building.forget_logs(now=now, most=2) == 10
    assert building.forget_logs(now=now) == 5
    assert building.forget_logs(now=now) == 0
    assert set(BuildLine.objects.values_list("build_id", flat=True)) == {fresh.id, open_one.id}
    assert BuildStep.objects.filter(build__in=old).count() == 3
    assert tasks.forget_logs() >= 0


def test_a_heartbeat_goes_on_after_the_database_was_away(now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    beats, heard = iter([OperationalError("database is locked"), False, True]), threading.Event()

    def renew(held: Any, *, now: datetime) -> bool:
        beat = next(beats, Lost())
        if isinstance(beat, Exception):
            raise beat
        return beat

    monkeypatch.setattr(running, "_BEAT_S", 0.01)
    monkeypatch.setattr(building, "renew", renew)
    monkeypatch.setattr(running, "close_old_connections", lambda: None)
    monkeypatch.setattr(running, "connection", SimpleNamespace(close=lambda: None))
    journal: Any = SimpleNamespace(ask_to_stop=lambda lost=False: heard.set())
    with running._heartbeat(SimpleNamespace(), journal, lambda: now):  # type: ignore[arg-type]
        assert heard.wait(5)
