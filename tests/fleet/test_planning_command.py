"""`manage.py plan`, a pool as the start of a plan, simulated waits, and `manage.py announce`."""

import json
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from controlplane.kernel.models import AuditEntry
from fleet import announcing, growing
from fleet.models import DemandMinute, PlannedDemand
from fleet.planning import business_days, growth
from fleet.planning.presets import SEED_MONTH_6
from tests import factories
from tests.fleet import planning_rows as rows


def test_more_capacity_waits_less_and_a_full_fleet_waits_long():
    case = SEED_MONTH_6.case
    vertical, horizontal, hybrid = growth.plan(case, SEED_MONTH_6.options, simulate=business_days.waits).results
    assert hybrid.waits.p95_s < horizontal.waits.p95_s < vertical.waits.p95_s
    assert vertical.waits_later.p95_s > 3600, "160% of load on 133% of capacity: the afternoon waits for the night"
    alone = business_days.waits(case, case.workers * case.average, case.workers, case.workers)
    over = business_days.waits(case, case.workers * 1.05, case.workers, case.workers)
    assert alone.within > over.within


@pytest.mark.django_db
def test_the_preset_by_command_in_words_and_as_json(capsys):
    call_command("plan", "--growth", "--preset", "seed-month-6", "--no-waits")
    said = capsys.readouterr().out
    assert "105% at once and 159.7% after 3 months" in said and "stated 160%, holds: 159.7%" in said
    call_command("plan", "--growth", "--preset", "seed-month-6", "--no-waits", "--json", "--set", "months=6", "--option", "Rent:horizontal:100:4")
    made = json.loads(capsys.readouterr().out)
    assert round(made["load_after"], 3) == 2.429
    assert made["results"][0]["option"]["monthly_microusd"] == 100_000_000
    assert made["claims"][1]["holds"] is True


@pytest.mark.django_db
@pytest.mark.parametrize(
    "wrong",
    [
        ["--preset", "nope"], ["--pool", "nope"], ["--preset", "seed-month-6", "--set", "colour=1"],
        ["--preset", "seed-month-6", "--set", "average=x"],
        ["--preset", "seed-month-6", "--set", "average=nan"],
        ["--preset", "seed-month-6", "--option", "x"], ["--preset", "seed-month-6", "--option", "x:y:1:1"],
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_refused_with_2(wrong, capsys):
    with pytest.raises(SystemExit) as refused:
        call_command("plan", "--growth", *wrong)
    assert refused.value.code == 2
    assert json.loads(capsys.readouterr().out)["error"]["message"]


@pytest.mark.django_db
def test_a_pools_own_week_is_the_start_of_a_plan(now):
    pool, workflow, _ = rows.pool_with_past(now=now, jobs=2, took_s=10, max=4)
    pool.created_at = now - timedelta(days=30)
    DemandMinute.objects.all().delete()
    for day in range(1, 8):  # ten busy hours of two workers' worth, one of them of four
        noon = (now - timedelta(days=day)).replace(hour=8)
        for hour in range(10):
            n = 24 if hour == 3 else 12
            rows.minutes(pool, workflow, start=noon + timedelta(hours=hour), counts=[n] * 60, mean_s=10)
    found = growing.of_pool(pool, now=now)
    assert found.case.average == pytest.approx((9 * 2 + 4) / 10 / 4, rel=0.05)
    assert found.case.peak == pytest.approx(1.0, rel=0.01)
    assert found.case.job_s == pytest.approx(10)
    made = growth.plan(found.case, found.options)
    assert made.load_now == found.case.average


@pytest.mark.django_db
def test_a_pool_without_a_past_can_still_be_planned(now):
    pool = factories.make_pool(now=now, base=0, max=0)
    found = growing.of_pool(pool, now=now)
    assert (found.case.average, found.case.monthly_microusd, found.case.workers) == (0, 0, 1)
    assert found.assumed[0].startswith("Load and bill are those of the last hour; ") and "Less than a week" in found.assumed[0]
    assert growth.plan(found.case, found.options, simulate=business_days.waits).results[0].waits.within == 1.0


@pytest.mark.django_db
def test_announcements_are_made_listed_and_canceled_by_command(capsys):
    now = timezone.now()
    pool = factories.make_pool(now=now, slug="gpu")
    at, until = (now + timedelta(hours=2)).isoformat(), (now + timedelta(hours=5)).isoformat()
    call_command("announce", "gpu", "--jobs", "500", "--at", at, "--until", until, "--json")
    (made,) = json.loads(capsys.readouterr().out)
    assert (made["jobs"], made["pool"], made["work_s"]) == (500, "gpu", 5000.0)
    call_command("announce", "gpu", "--event", "Black Friday", "--factor", "2", "--at", at, "--until", until)
    assert "Black Friday: 2 times the usual" in capsys.readouterr().out
    call_command("announce", "--list")
    assert len(capsys.readouterr().out.strip().splitlines()) == 2
    call_command("announce", "--cancel", made["id"])
    assert "(canceled)" in capsys.readouterr().out
    assert [p.kind for p in announcing.open_ones(pool=pool, now=now)] == ["event"]
    assert AuditEntry.objects.filter(object_type="planned_demand").count() == 3


@pytest.mark.django_db
@pytest.mark.parametrize(
    "wrong",
    [
        [], ["nope", "--jobs", "1"], ["gpu"], ["gpu", "--jobs", "0"], ["gpu", "--jobs", "1", "--at", "soon"],
        ["gpu", "--jobs", "1", "--at", "2020-01-01T00:00Z"],
        ["gpu", "--event", "x", "--factor", "2"], ["gpu", "--event", "", "--factor", "2", "--until", "2099-01-01T00:00Z"], ["gpu", "--cancel", "x"],
        ["gpu", "--jobs", "1", "--workflow", "nope"], ["gpu", "--event", "x", "--factor", "nan", "--until", "2099-01-01T00:00Z"],
        ["gpu", "--event", "x", "--until", "2099-01-01T00:00Z"], ["gpu", "--jobs", "1", "--until", "2020-01-01T00:00Z"],
    ],
)  # fmt: skip
def test_announcements_that_cannot_be_are_refused_with_2(wrong, capsys):
    factories.make_pool(now=timezone.now(), slug="gpu")
    with pytest.raises(SystemExit) as refused:
        call_command("announce", *wrong)
    assert refused.value.code == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"]
    assert not PlannedDemand.objects.exists()
