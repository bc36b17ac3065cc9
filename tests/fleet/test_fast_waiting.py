"""Fast mode walks a long line of waiting jobs in short transactions, goes on after a kill, and can be ended at any moment."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection

from controlplane.kernel import sql
from controlplane.kernel.errors import Conflict
from fleet import emergencies, emergency_calls, fast_waiting, queue
from fleet.models import EmergencyAction, Job
from tests import factories
from tests.fleet.emergency_world import World

HOUR = timedelta(hours=1)
LINE = 40


@pytest.fixture
def world(db: Any, now: datetime, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(fast_waiting, "BATCH", 10)
    made = World(now)
    made.fill(LINE)
    return made


def nothing() -> None:
    return None


def take(world: World, monkeypatch: pytest.MonkeyPatch, *, batches: int) -> EmergencyAction:
    """Fast mode whose first call is killed after so many batches."""
    with monkeypatch.context() as patch:
        _kill_after(patch, batches)
        with pytest.raises(Killed):
            emergencies.fast_mode(
                world.workflow, version=1, overflow_s=60.0, include_waiting=True, expires_at=world.now + HOUR, actor="s", once="one", now=world.now
            )
    return EmergencyAction.objects.select_related("pool", "workflow", "version").get()


class Killed(BaseException):
    """As kill -9 does: nothing after it runs, the open transaction is rolled back."""


def _kill_after(patch: pytest.MonkeyPatch, batches: int) -> None:
    real, left = fast_waiting._write, [batches]

    def write(job: Job, *args: Any, **kwargs: Any) -> None:
        real(job, *args, **kwargs)
        row = EmergencyAction.objects.get(kind="fast")
        if row.terms["walk"]["seen"] >= 10 * left[0]:
            raise Killed

    patch.setattr(fast_waiting, "_write", write)


def as_asked() -> dict[Any, Any]:
    return {j.id: (j.version_id, j.inputs, j.fair_tag, j.quote_microusd, j.result_key, j.fast) for j in Job.objects.filter(status="queued")}


def test_what_a_kill_left_is_changed_by_the_loop_and_nothing_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = take(world, monkeypatch, batches=2)
    shown = emergency_calls.shown(measure, now=world.now)
    assert shown["progress"] == {"doing": "change", "seen": 20, "of": LINE, "changed": 13, "restored": 0}
    assert "walk" not in shown["terms"]
    assert emergency_calls.progress(measure) == "20 of 40 waiting jobs looked at, 13 changed so far."
    revisions = dict(Job.objects.filter(version=world.cheap).values_list("id", "revision"))
    assert len(revisions) == 13, "a batch is whole or not at all"
    assert "20 changed while they waited" in emergencies.settle(fence=nothing, now=world.now)
    assert dict(Job.objects.filter(id__in=revisions).values_list("id", "revision")) == revisions
    rows = list(Job.objects.filter(status="queued").order_by("fair_tag"))
    assert [j.version_id for j in rows] == [world.live.id] * 7 + [world.cheap.id] * 33
    measure.refresh_from_db()
    assert emergency_calls.progress(measure) == "Of the jobs that waited, 33 changed."
    assert emergencies.settle(fence=nothing, now=world.now) == "none over"


def test_the_sentence_of_a_job_tells_the_wait_it_had_whichever_batch_came_to_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    take(world, monkeypatch, batches=1)
    emergencies.settle(fence=nothing, now=world.now)
    last = Job.objects.filter(status="queued").latest("fair_tag")
    assert last.fast is not None
    assert "waited about 6 min" in last.fast["reason"], "39 jobs of 10 s stood before it"


def test_ending_it_while_it_is_applied_puts_back_what_was_changed_and_changes_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = as_asked()
    measure = take(world, monkeypatch, batches=3)
    assert as_asked() != before
    ended = emergencies.end(measure, actor="s", now=world.now)
    assert as_asked() == before
    assert (ended.terms["changed"], ended.terms["restored"], "walk" in ended.terms) == (23, 23, False)
    assert emergencies.settle(fence=nothing, now=world.now) == "none over"
    assert as_asked() == before


def test_putting_back_goes_on_after_a_kill_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = as_asked()
    measure = emergencies.fast_mode(world.workflow, version=1, overflow_s=60.0, include_waiting=True, expires_at=world.now + HOUR, actor="s", now=world.now)
    with monkeypatch.context() as patch:
        _kill_after(patch, 2)
        with pytest.raises(Killed):
            emergencies.end(measure, actor="s", now=world.now)
    measure.refresh_from_db()
    assert emergency_calls.progress(measure) == "20 of 40 waiting jobs looked at, 13 put back so far."
    assert measure.ended_at is not None
    assert "20 put back" in emergencies.settle(fence=nothing, now=world.now)
    assert as_asked() == before


def test_a_second_measure_waits_until_the_first_ones_jobs_are_put_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    terms: dict[str, Any] = {"version": 1, "overflow_s": 60.0, "include_waiting": True, "expires_at": world.now + HOUR, "actor": "s", "now": world.now}
    first = emergencies.fast_mode(world.workflow, **terms)
    with monkeypatch.context() as patch:
        _kill_after(patch, 1)
        with pytest.raises(Killed):
            emergencies.end(first, actor="s", now=world.now)
    second = emergencies.fast_mode(world.workflow, **terms)
    assert second.terms["changed"] == 0
    for _ in range(2):
        emergencies.settle(fence=nothing, now=world.now)
    rows = list(Job.objects.filter(status="queued").order_by("fair_tag"))
    assert [j.version_id for j in rows] == [world.live.id] * 7 + [world.cheap.id] * 33
    assert {(j.fast or {}).get("action") for j in rows} == {None, str(second.id)}


def test_what_comes_back_from_a_lost_worker_after_the_end_is_put_back_too(world: World) -> None:
    before = as_asked()
    measure = emergencies.fast_mode(world.workflow, version=1, overflow_s=60.0, include_waiting=True, expires_at=world.now + HOUR, actor="s", now=world.now)
    worker = factories.make_worker(world.pool, now=world.now)
    taken = queue.claim(worker, limit=15, now=world.now)
    assert Job.objects.filter(id__in=[a.job_id for a in taken], version=world.cheap).count() == 8
    ended = emergencies.end(measure, actor="s", now=world.now)
    assert "walk" in ended.terms, "eight of its jobs still run"
    queue.requeue_worker(worker, now=world.now)
    assert "8 put back" in emergencies.settle(fence=nothing, now=world.now)
    after = as_asked()
    assert {id_: row[:2] + row[3:] for id_, row in after.items()} == {id_: row[:2] + row[3:] for id_, row in before.items()}
    assert emergencies.settle(fence=nothing, now=world.now) == "none over"


def test_one_that_expires_while_it_is_applied_changes_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    take(world, monkeypatch, batches=2)
    emergencies.settle(fence=nothing, now=world.now + HOUR)
    assert Job.objects.filter(version=world.cheap).count() == 13
    assert emergencies.settle(fence=nothing, now=world.now + HOUR) == "none over"


def test_jobs_that_came_after_it_are_left_to_admission(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    take(world, monkeypatch, batches=1)
    late = Job.objects.filter(status="queued").latest("fair_tag")
    Job.objects.filter(id=late.id).update(queued_at=world.now + timedelta(seconds=1))
    emergencies.settle(fence=nothing, now=world.now + timedelta(seconds=2))
    late.refresh_from_db()
    assert late.fast is None


def test_a_controller_that_lost_its_lead_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = take(world, monkeypatch, batches=2)

    def lost() -> None:
        raise Conflict("lead_lost", "Another controller leads.")

    with pytest.raises(Conflict):
        fast_waiting.go_on(measure, fence=lost, now=world.now)
    assert Job.objects.filter(version=world.cheap).count() == 13


def test_a_batch_reads_its_part_of_the_line_by_an_index(world: World) -> None:
    asked = sql.adapted([world.pool.id, 1, 3, UUID(int=0), 10])
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"EXPLAIN QUERY PLAN {fast_waiting._LINE}", asked)
        else:
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("SET LOCAL enable_bitmapscan = off")
            cursor.execute("SET LOCAL enable_sort = off")
            cursor.execute(f"EXPLAIN {fast_waiting._LINE}", asked)
        plan = "\n".join(str(row[-1]) for row in cursor.fetchall())
    assert "job_claim_order" in plan, plan
    assert "TEMP B-TREE" not in plan and "Sort" not in plan, plan
