"""Hours are caught up after any gap, folded into days when they are old, and a job counts as work however long it took."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from factories import make_customer, make_pool, make_runnable, make_worker, submit

from fleet import tasks, worker_days, worker_hours
from fleet.models import Attempt, Pool, PoolDay, Worker, WorkerHour

pytestmark = pytest.mark.django_db
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def lived(pool: Pool, since: datetime, until: datetime | None, **more: Any) -> Worker:
    state = {"state": "stopped" if until else "idle", "stopped_at": until}
    return make_worker(pool, now=since, **(state | {"price_per_hour_microusd": 999_983} | more))


def worked(worker: Worker, since: datetime, until: datetime | None, **timings: float) -> Attempt:
    job = submit(make_customer(now=since), make_runnable(now=since, pool=worker.pool), now=since)
    ended = {"state": "succeeded", "ended_at": until, "timings": timings} if until else {"state": "running"}
    return Attempt.objects.create(job=job, number=1, worker=worker, claimed_at=since, **ended)


# -- long jobs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [7, 30, 24 * 9])
@pytest.mark.parametrize("over", [True, False])
def test_a_job_counts_as_work_from_its_beginning_however_long_it_takes(now: datetime, hours: int, over: bool) -> None:
    worker = lived(make_pool(now=now), now - (hours + 1) * HOUR, None)
    worked(worker, now - hours * HOUR, now if over else None)
    found = worker_hours.live(None, start=now - HOUR, end=now, now=now)
    assert (found.ms["busy"], found.ms["idle"]) == (3_600_000, 0)
    worker_hours.recompute(now=now)
    assert sum(WorkerHour.objects.values_list("busy_ms", flat=True)) == hours * 3_600_000


def test_a_job_of_days_tells_its_loading_when_it_ends_and_only_its_workers_hours_are_written_again(now: datetime) -> None:
    pool = make_pool(now=now)
    mine, other = lived(pool, now, None), lived(pool, now, None)
    attempt = worked(mine, now + HOUR / 2, None)
    for hour in range(1, 60, 6):
        worker_hours.recompute(now=now + hour * HOUR)
    assert not sum(WorkerHour.objects.values_list("loading_ms", flat=True))
    end = now + 60 * HOUR
    Attempt.objects.filter(id=attempt.id).update(state="succeeded", ended_at=end, timings={"load_s": 3600.0})
    WorkerHour.objects.filter(worker=other, hour=now).update(idle_ms=1, total_ms=1, busy_ms=0)
    worker_hours.recompute(now=end + timedelta(seconds=30))
    rows = list(WorkerHour.objects.filter(worker=mine).order_by("hour").values_list("loading_ms", "busy_ms"))
    assert rows[:3] == [(1_800_000, 0), (1_800_000, 1_800_000), (0, 3_600_000)]
    assert sum(loading for loading, _ in rows) == 3_600_000
    assert WorkerHour.objects.get(worker=other, hour=now).total_ms == 1, "left alone"


def test_attempts_of_an_hour_are_found_by_their_end(now: datetime) -> None:
    workers = [lived(make_pool(now=now), now - HOUR, None) for _ in range(21)]
    with CaptureQueriesContext(connection) as asked:
        worker_hours.lives(list(Worker.objects.select_related("pool")), start=now - HOUR)
    assert len(workers) == 21
    (ended, running) = [q["sql"] for q in asked.captured_queries if 'FROM "fleet_attempt"' in q["sql"]]
    assert "attempt_by_end" in plan(ended)
    assert "one_running_attempt_per_job" in plan(running) or connection.vendor == "postgresql"


def plan(statement: str) -> str:
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}")
        else:
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute(f"EXPLAIN {statement}")
        return "\n".join(str(row[-1]) for row in cursor.fetchall())


# -- gaps -----------------------------------------------------------------------------------------


def test_a_gap_of_any_length_is_caught_up_in_bounded_steps(now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_hours, "MOST_ROWS", 100)
    begin = now - 30 * DAY
    lived(make_pool(now=now), begin, None)
    worker_hours.recompute(now=begin + HOUR)
    rounds = []
    while len(rounds) < 20 and (not rounds or rounds[-1] >= 100):
        rounds.append(worker_hours.recompute(now=now))
    assert max(rounds) <= 125 and len(rounds) >= 6
    assert WorkerHour.objects.filter(total_ms=3_600_000).count() == 30 * 24
    found = worker_hours.totals(None, start=begin, end=now, now=now)
    assert found.ms == worker_hours.live(None, start=begin, end=now, now=now).ms


def test_a_gap_without_any_worker_is_passed_over_at_once(now: datetime) -> None:
    pool = make_pool(now=now)
    lived(pool, now - 900 * DAY, now - 899 * DAY)
    lived(pool, now - 2 * HOUR, None)
    with CaptureQueriesContext(connection) as asked:
        worker_hours.recompute(now=now)
    assert WorkerHour.objects.count() == 24 + 2
    assert len(asked) < 60


def test_the_last_hour_written_is_found_by_an_index(now: datetime) -> None:
    with CaptureQueriesContext(connection) as asked:
        worker_hours.recompute(now=now)
    (last,) = [q["sql"] for q in asked.captured_queries if 'FROM "fleet_workerhour"' in q["sql"] and q["sql"].endswith("LIMIT 1")]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_sort = off")
    said = plan(last)
    assert "worker_hour_by_hour" in said and "TEMP B-TREE" not in said and "Sort" not in said, said


# -- folding --------------------------------------------------------------------------------------


def test_folding_keeps_every_total_to_the_micro_dollar(now: datetime) -> None:
    now = now.replace(hour=12)
    pools = [make_pool(now=now) for _ in range(2)]
    for n in range(6):
        worker = lived(pools[n % 2], now - (10 - n) * DAY - timedelta(minutes=17 * n), now - n * HOUR - timedelta(minutes=7))
        worked(worker, now - 5 * DAY, now - 4 * DAY, load_s=700)
    worker_hours.recompute(now=now)
    cuts = [(now - 11 * DAY, now), (now - 8 * DAY, now - 2 * DAY), (now - 5 * DAY - HOUR / 3, now - 4 * DAY + HOUR / 7), (now - 3 * DAY, now)]
    whose = [None, *pools]
    before = [worker_hours.totals(pool, start=a, end=b, now=now) for pool in whose for a, b in cuts]
    kept = WorkerHour.objects.count()
    gone = worker_days.fold(before=now - 3 * DAY)
    assert gone > 100 and WorkerHour.objects.count() == kept - gone
    assert not WorkerHour.objects.filter(hour__lt=worker_days.midnight(now - 3 * DAY)).exists()
    after = [worker_hours.totals(pool, start=a, end=b, now=now) for pool in whose for a, b in cuts]
    assert [found.ms for found in after] == [found.ms for found in before]
    assert [found.total_microusd for found in after] == [found.total_microusd for found in before]
    assert PoolDay.objects.filter(workers=3).exists()


def test_folded_hours_do_not_come_back_and_are_not_counted_twice(now: datetime) -> None:
    lived(make_pool(now=now), now - 6 * DAY, None)
    worker_hours.recompute(now=now)
    worker_days.fold(before=now - 2 * DAY)
    whole = worker_hours.totals(None, start=now - 6 * DAY, end=now, now=now)
    worker_hours.recompute(now=now, since=now - 10 * DAY)
    WorkerHour.objects.all().delete()
    worker_hours.recompute(now=now)  # as after a loss of the rows: from the first worker on, but not before what is folded
    assert worker_days.fold(before=now - 2 * DAY) == 0
    assert worker_hours.totals(None, start=now - 6 * DAY, end=now, now=now) == whole
    assert whole.total_ms == 6 * 24 * 3_600_000


def test_a_fold_that_is_killed_loses_nothing_and_goes_on(now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    lived(make_pool(now=now), now - 6 * DAY, None)
    worker_hours.recompute(now=now)
    whole = worker_hours.totals(None, start=now - 6 * DAY, end=now, now=now)
    assert worker_days.fold(before=now - DAY, most=2) > 0
    assert PoolDay.objects.count() == 2
    assert worker_hours.totals(None, start=now - 6 * DAY, end=now, now=now) == whole
    worker_days.fold(before=now - DAY)
    assert worker_hours.totals(None, start=now - 6 * DAY, end=now, now=now) == whole


def test_the_daily_clearing_folds_what_is_older_than_its_keep(now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "KEEP_HOURS", 3 * DAY)
    lived(make_pool(now=now), now - 5 * DAY, None)
    worker_hours.recompute(now=now)
    assert tasks.sweep(now=now)["worker_hours"] >= 24
    assert tasks.sweep(now=now)["worker_hours"] == 0
