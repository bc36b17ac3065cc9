"""The fleet on /metrics: true figures, bounded labels and queries, and alert rules that rest on what is really exported."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from prometheus_client.parser import text_string_to_metric_families

from controlplane.api import fleet_metrics, metrics
from controlplane.kernel.models import LoopLease
from fleet import emergencies, providers, scaling
from fleet.models import Forecast, Pool, PoolOffer, SavingsDay, ScalingDecision, Worker, WorkerHour
from fleet.observing import FAILED_STARTS
from tests import factories
from tests.fleet.emergency_world import World

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
HOUR = timedelta(hours=1)
Seen = dict[tuple[str, ...], float]


def read(now: datetime) -> Seen:
    return {(s.name, *sorted(s.labels.values())): s.value for family in fleet_metrics.families(now=now) for s in family.samples}


def decide(pool: Pool, now: datetime) -> None:
    held = Pool.objects.get(id=pool.id)
    scaling.step(held, provider=providers.of(held), fence=lambda: None, epoch=1, now=now)


@pytest.fixture
def world(db: Any) -> World:
    return World(datetime.now(UTC), slug="gpu")


def everything(world: World) -> datetime:
    """Every family has a sample."""
    now = world.now
    Pool.objects.filter(id=world.pool.id).update(
        budget_per_hour_microusd=10_000_000, budget_per_day_microusd=100_000_000, provider_heard_at=now - timedelta(seconds=7)
    )
    PoolOffer.objects.create(pool=world.pool, rank=1, gpu="l4", market="spot", price_per_hour_microusd=1, interruptions=3)
    world.fill(4)
    emergencies.raise_capacity(world.pool, maximum=8, expires_at=now + HOUR, actor="s", now=now)
    decide(world.pool, now)
    Forecast.objects.create(
        pool=world.pool,
        made_at=now - timedelta(minutes=5),
        starts_at=now - timedelta(minutes=30),
        step_s=900,
        method="m",
        history_days=14,
        points=[[90, 90, 90, 90]] + [[2 + n, 1, 3 + n, 4] for n in range(9)] + [[40, 30, 50, 60]] + [[70, 60, 80, 90]] * 200,
        backtest={"wape": 0.12},
        usable=True,
    )
    money = {f"{bucket}_microusd": 10**6 * n for n, bucket in enumerate(WorkerHour.BUCKETS)}
    WorkerHour.objects.create(
        pool=world.pool,
        worker=world.worker,
        hour=now.replace(minute=0, second=0, microsecond=0),
        total_ms=1000,
        busy_ms=1000,
        total_microusd=15_000_000,
        **money,
    )
    against = {"actual_microusd": 9_000_000, "replayed_microusd": 8_000_000, "seed_microusd": 20_000_000, "static_microusd": 30_000_000}
    SavingsDay.objects.create(pool=world.pool, day=date(2026, 3, 1), made_at=now, **against)
    LoopLease.objects.create(name="autoscale", ticked_at=now)
    return now


def test_sizes_waits_money_and_measures_are_what_the_rows_say(world: World) -> None:
    now = everything(world)
    seen = read(now)
    assert seen["comfyplane_pool_base_workers", "gpu"] == 1
    assert (seen["comfyplane_pool_floor_workers", "gpu"], seen["comfyplane_pool_maximum_workers", "gpu"]) == (1, 8)
    assert (seen["comfyplane_pool_ready_workers", "gpu"], seen["comfyplane_pool_busy_workers", "gpu"]) == (1, 0)
    assert 1 <= seen["comfyplane_pool_wanted_workers", "gpu"] <= 8
    assert seen["comfyplane_pool_queue_clear_seconds", "gpu"] == pytest.approx(40, abs=0.5), "four jobs of ten seconds for one worker"
    assert seen["comfyplane_pool_wait_target_seconds", "gpu"] == 60
    assert sum(v for k, v in seen.items() if k[0] == "comfyplane_scaling_decisions_total") == 1
    assert seen["comfyplane_forecast_workers", "50", "gpu"] == 6
    assert seen["comfyplane_forecast_workers", "90", "gpu"] == 7
    assert seen["comfyplane_forecast_day_peak_workers", "gpu"] == 80
    assert (seen["comfyplane_forecast_usable", "gpu"], seen["comfyplane_forecast_wape_ratio", "gpu"]) == (1, 0.12)
    assert seen["comfyplane_forecast_sure", "gpu"] == 1
    Forecast.objects.update(backtest={"wape": 0.7, "sure": False})  # its record lets it draw a floor; its error lets nobody be called
    seen = read(now)
    assert (seen["comfyplane_forecast_usable", "gpu"], seen["comfyplane_forecast_sure", "gpu"]) == (1, 0)
    assert seen["comfyplane_worker_cost_usd_total", "busy", "gpu"] == WorkerHour.BUCKETS.index("busy")
    assert seen["comfyplane_pool_budget_left_usd", "day", "gpu"] == 85
    assert seen["comfyplane_savings_day_usd", "gpu", "seed_rule"] == 12
    assert seen["comfyplane_savings_day_usd", "gpu", "static_peak"] == 22
    assert seen["comfyplane_emergency_measures", "gpu", "raise"] == 1
    assert seen["comfyplane_emergency_left_seconds", "gpu", "raise"] == pytest.approx(3600, abs=1)
    assert seen["comfyplane_worker_interruptions_total", "gpu", "spot"] == 3
    assert seen["comfyplane_worker_cold_start_seconds", "90", "gpu"] == 0


def test_the_wish_is_the_policys_within_floor_and_maximum(db: None, now: datetime) -> None:
    def row(**inputs: Any) -> ScalingDecision:
        return ScalingDecision(inputs={"ready": 3, "coming_s": [1.0], "base": 2, "maximum": 8} | inputs)

    assert fleet_metrics.wanted(row(asked=5)) == 5
    assert fleet_metrics.wanted(row(asked=500)) == 8
    assert fleet_metrics.wanted(row(asked=0)) == 2
    assert fleet_metrics.wanted(row()) == 4, "nothing known: as it is"


def test_an_external_pool_tells_others_the_size_and_orders_none(db: None, now: datetime) -> None:
    pool = factories.make_pool(now=now, slug="keda", base=3, max=9, provider="external")
    decide(pool, now)
    assert read(now)["comfyplane_pool_wanted_workers", "keda"] == 3
    assert not Worker.objects.filter(pool=pool).exists()


def test_a_wish_that_is_old_is_no_wish(world: World) -> None:
    decide(world.pool, world.now)
    assert ("comfyplane_pool_wanted_workers", "gpu") in read(world.now + timedelta(minutes=4))
    later = read(world.now + timedelta(minutes=6))
    assert ("comfyplane_pool_wanted_workers", "gpu") not in later
    assert later["comfyplane_pool_base_workers", "gpu"] == 1


def test_halted_paused_faulted_and_failed_starts_are_seen(world: World) -> None:
    now = world.now
    Pool.objects.filter(id=world.pool.id).update(halted_at=now, halted_reason="x", paused_until=now + HOUR)
    factories.make_worker(world.pool, now=now, state="faulted")
    factories.make_worker(world.pool, now=now, state="stopped", stopped_at=now, stop_reason="start_timeout", jobs_done=0)
    seen = read(now)
    assert (seen["comfyplane_pool_halted", "gpu"], seen["comfyplane_pool_sizing_paused", "gpu"], seen["comfyplane_pool_faulted_workers", "gpu"]) == (1, 1, 1)
    assert seen["comfyplane_worker_failed_starts_total", "gpu", "start_timeout"] == 1
    assert {label for k in seen if k[0] == "comfyplane_worker_failed_starts_total" for label in k[1:]} == {*FAILED_STARTS, "gpu"}


def test_labels_are_bounded_whatever_stands_in_the_rows(world: World) -> None:
    for n in range(5):
        ScalingDecision.objects.create(
            pool=world.pool, at=world.now, last_seen_at=world.now, policy=f"policy-{n}", inputs={}, action="hold", wanted=0, applied=0, reason="x", epoch=1
        )
    decided = {k: v for k, v in read(world.now).items() if k[0] == "comfyplane_scaling_decisions_total"}
    assert decided == {("comfyplane_scaling_decisions_total", "gpu", "hold", "other"): 5.0}


def test_a_scrape_asks_the_same_queries_whatever_ran_and_however_many_pools(world: World) -> None:
    now = everything(world)
    with CaptureQueriesContext(connection) as before:
        read(now)
    for n in range(4):
        pool = factories.make_pool(now=now, slug=f"more-{n}")
        factories.make_worker(pool, now=now)
        decide(pool, now)
    world.took(1.0, runs=5)
    with CaptureQueriesContext(connection) as after:
        read(now)
    assert len(before) == len(after) <= 20


def test_a_pool_without_anything_is_scraped(db: None, now: datetime) -> None:
    factories.make_pool(now=now, slug="bare")
    assert read(now)["comfyplane_pool_base_workers", "bare"] == 1


# -- rules --------------------------------------------------------------------------------------


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((RULES / "rules.yml").read_text())["groups"] for rule in group["rules"]]


def scraped(world: World) -> str:
    everything(world)
    metrics.forget()
    response = Client().get("/metrics")
    assert response.status_code == 200
    return response.content.decode()


def test_every_metric_a_rule_names_is_really_exported(world: World) -> None:
    exported = {s.name for family in text_string_to_metric_families(scraped(world)) for s in family.samples}
    named = {name for rule in rules() for name in re.findall(r"\b(?:comfyplane|workflow|api|container)_[a-z0-9_]+", rule["expr"])}
    assert len(named) > 12
    assert named <= exported, named - exported


def test_every_alert_says_what_is_so_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) >= 15
    for rule in rules():
        said = rule["annotations"]
        assert rule["labels"]["severity"] in ("page", "ticket", "none"), rule["alert"]
        assert len(said["summary"]) > 10
        assert said["description"].endswith("."), rule["alert"]
        assert len(said["description"].split()) > 10, rule["alert"]


def test_every_alert_is_tried_by_a_rule_test() -> None:
    tests = yaml.safe_load((RULES / "rules_test.yml").read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in rules()}


def test_loops_that_a_rule_waits_for_are_loops_there_are() -> None:
    from fleet.loops import LOOPS

    (expr,) = [rule["expr"] for rule in rules() if rule["alert"] == "ComfyplaneLoopLate"]
    named = set(re.search(r'loop=~"([^"]+)"', expr)[1].split("|"))  # type: ignore[index]
    assert named <= {loop.name for loop in LOOPS}
    assert all(loop.every_s <= 20 for loop in LOOPS if loop.name in named)


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("COMFYPLANE_REQUIRE_PROMTOOL") == "1":
            pytest.fail("promtool is promised here but missing")
        pytest.skip("promtool is not installed; COMFYPLANE_REQUIRE_PROMTOOL=1 makes this an error")
    return found


def test_promtool_takes_the_rules_and_they_fire_when_they_should(promtool: str) -> None:
    for words in (["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]):
        done = subprocess.run([promtool, *words], cwd=RULES, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing_to_say_of_our_own_metrics(promtool: str, world: World) -> None:
    done = subprocess.run([promtool, "check", "metrics"], input=scraped(world), capture_output=True, text=True, timeout=120, check=False)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert not ours, ours
