"""The savings ledger: a day in the simulator three times over, beside what it really cost."""

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone
from django_q.models import Schedule

from fleet import rollups, savings, tasks
from fleet.models import PolicyRevision, Pool, SavingsDay, Worker
from fleet.planning.playing import play
from tests import factories
from tests.fleet import planning_rows as rows

pytestmark = pytest.mark.django_db
DAY = date(2026, 3, 1)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
def pool(now):
    """A pool with 96 jobs on the first of March, one each quarter of an hour."""
    made, *_ = rows.pool_with_past(now=MIDNIGHT, jobs=96, every_s=900, took_s=60, base=1, max=4, policy="wait-target")
    Pool.objects.filter(id=made.id).update(created_at=MIDNIGHT - timedelta(days=1))
    made.refresh_from_db()
    return made


def test_a_day_is_worked_out_for_three_ways_and_what_was_spent(pool, now):
    row = savings.of_day(pool, DAY, now=now)
    assert row.jobs == 96
    assert row.static_microusd == pytest.approx(4 * 24 * 3_600_000, rel=0.01), "four workers all day at $3.60"
    assert row.replayed_microusd < row.static_microusd and row.seed_microusd < row.static_microusd
    assert row.actual_microusd == 24 * 3_600_000, "one worker all day"
    assert 0 <= row.seed_within <= 1 and row.static_within == 1


def test_what_was_spent_is_the_lives_of_the_workers_within_the_day(pool, now):
    Worker.objects.update(price_per_hour_microusd=3_600_000)
    factories.make_worker(pool, now=MIDNIGHT - timedelta(hours=2), price_per_hour_microusd=7_200_000, state="stopped", stopped_at=MIDNIGHT + timedelta(hours=3))
    assert savings.spent(pool, start=MIDNIGHT - timedelta(days=1), end=MIDNIGHT) == 24 * 3_600_000 + 2 * 7_200_000
    assert savings.spent(pool, start=MIDNIGHT, end=MIDNIGHT + timedelta(hours=1)) == 3_600_000 + 7_200_000


def test_the_seed_side_is_the_seeds_rule_with_its_own_numbers(pool, now):
    from fleet import history
    from fleet.planning.playing import Terms

    row = savings.of_day(pool, DAY, now=now)
    came = history.of_pool(pool, start=MIDNIGHT - timedelta(days=1), end=MIDNIGHT, now=now)
    alone = play(Terms("threshold", 1, 4, {"queue_per_worker": 0.8, "idle_s": 300.0}, price_per_hour_microusd=3_600_000), came)
    assert row.seed_microusd == alone.cost_microusd and row.seed_within == alone.within


def test_the_same_day_again_is_the_same_row(pool, now):
    first = savings.of_day(pool, DAY, now=now)
    again = savings.of_day(pool, DAY, now=now + timedelta(hours=1))
    assert first.pk == again.pk and SavingsDay.objects.count() == 1
    assert [getattr(first, c) for c in ("jobs", "replayed_microusd", "seed_microusd", "static_microusd")] == [
        getattr(again, c) for c in ("jobs", "replayed_microusd", "seed_microusd", "static_microusd")
    ]


def test_the_terms_are_those_of_that_day(pool, now):
    then = {"policy": "threshold", "knobs": {}, "base": 2, "max": 3, "target_s": 60.0, "target_share": 0.99, "price_per_hour_microusd": 1_000_000}
    PolicyRevision.objects.create(pool=pool, number=1, terms=then, author="x", created_at=MIDNIGHT - timedelta(hours=20))
    PolicyRevision.objects.create(pool=pool, number=2, terms=then | {"max": 90, "base": 50}, author="x", created_at=MIDNIGHT + timedelta(hours=1))
    row = savings.of_day(pool, DAY, now=now)
    assert row.static_microusd == pytest.approx(3 * 24 * 1_000_000, rel=0.01)


def test_catching_up_makes_each_finished_day_once_and_none_that_is_not_over(pool, now):
    assert savings.catch_up(now=MIDNIGHT + timedelta(minutes=5)) == 0, "the last day has not settled, and before it there was no pool"
    assert savings.catch_up(now=now) == 1
    assert savings.catch_up(now=now) == 0
    assert savings.catch_up(now=now + timedelta(days=2)) == 2
    assert [row.day for row in savings.days(pool=pool)] == [DAY + timedelta(days=2), DAY + timedelta(days=1), DAY]
    assert len(savings.days(until=DAY)) == 1
    assert savings.days(since=DAY + timedelta(days=3)) == []


def test_a_day_of_a_pool_made_at_noon_counts_from_noon(pool, now):
    Pool.objects.filter(id=pool.id).update(created_at=MIDNIGHT - timedelta(hours=12))
    pool.refresh_from_db()
    assert savings.of_day(pool, DAY, now=now).static_microusd == pytest.approx(4 * 12 * 3_600_000, rel=0.01)


def test_the_line_names_replays_as_replays_and_the_actual_beside_them(pool, now):
    savings.of_day(pool, DAY, now=now)
    whole = savings.total(savings.days())
    assert whole.saved_static_microusd == whole.static_microusd - whole.replayed_microusd > 0
    assert whole.said().startswith("Simulated on the same arrivals of 1 day: this sizing $")
    assert "What was really spent: $86.40" in whole.said()
    assert "No day has been worked out yet" in savings.total([]).said()


def test_real_waits_come_from_the_minutes(pool, now):
    rollups.recompute(now=MIDNIGHT, since=MIDNIGHT - timedelta(hours=23))
    assert savings.of_day(pool, DAY, now=now).actual_within == 1.0


@pytest.fixture
def at_noon(monkeypatch, now):
    """What reads the clock reads that of the tests: up to today there are more days to work out with each day that passes."""
    monkeypatch.setattr(timezone, "now", lambda: now)


def test_the_schedule_is_made_and_its_task_runs(pool, now, at_noon):
    tasks.ensure_schedules(now=now)
    assert Schedule.objects.get(name="savings").func == "fleet.tasks.work_out_savings"
    assert tasks.work_out_savings() == 1


def test_the_command_prints_json_and_csv_and_refuses_what_is_no_day(pool, now, at_noon, capsys):
    savings.of_day(pool, DAY, now=now)
    call_command("savings", "--from", "2026-03-01", "--to", "2026-03-01", "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["days"][0]["pool"] == pool.slug and said["total"]["jobs"] == 96
    call_command("savings", "--pool", pool.slug, "--to", "2026-03-01", "--csv")
    (line,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert line["jobs"] == "96" and line["static_usd"] == said["days"][0]["static_usd"]
    for wrong in (["--from", "soon"], ["--pool", "nope"]):
        with pytest.raises(SystemExit) as refused:
            call_command("savings", *wrong)
        assert refused.value.code == 2
