"""The pages behind a pool: its chart with a forecast, a decision, a worker, the policy editor, and what people may do to a pool."""

import json
import re
from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.console import heat, pool_chart, ranges
from controlplane.kernel.models import AuditEntry
from fleet import decisions, pools, queries_capacity
from fleet.models import CapacityMinute, DemandMinute, EmergencyAction, Forecast, PlannedDemand, PolicyRevision, Pool, SavingsDay, ScalingDecision, Worker
from fleet.sizing import bounding
from fleet.sizing.seen import ColdStart, JobTime, Seen
from fleet.sizing.wait_target import WaitTarget
from tests import factories
from tests.controlplane import shell_rows as rows
from tests.staff import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def now():
    return timezone.now()


@pytest.fixture
def pool(now):
    return factories.make_pool(now=now - timedelta(days=3), slug="l40s", base=2, max=10, price_per_hour_microusd=860_000)


def seen(now, **fields):
    values = {"now_s": now.timestamp(), "queue": 84, "ready": 4, "busy": 4, "queue_work_s": 840.0, "oldest_wait_s": 41.0, "base": 2, "maximum": 10}
    values |= {"rate_1m": 0.5, "rate_5m": 0.3, "job": JobTime(10.0, 0.4, 300), "cold": ColdStart(60.0, 95.0, 12), "price_per_hour_microusd": 860_000}
    return Seen(**(values | fields))


def decide(pool, now, **fields):
    """A decision as the scaler writes it, from figures it could have seen."""
    from fleet.observing import Observed

    found = Observed(seen=seen(now, **fields), limits=bounding.Limits())
    made = bounding.decide(found.seen, WaitTarget(), {}, found.limits)
    shadows = {"threshold": {"wanted": 5, "reason": "84 jobs for 4 workers."}, "request-count": {"error": "broken"}}
    return ScalingDecision.objects.get(id=decisions.record(pool, found, made, shadows=shadows, epoch=1, now=now))


def minutes(pool, now, count=120, *, ready=4, work_s=180.0):
    start = now.replace(second=0, microsecond=0) - timedelta(minutes=count)
    workflow = factories.make_workflow(now=now, pool=pool)
    CapacityMinute.objects.bulk_create([CapacityMinute(pool=pool, minute=start + timedelta(minutes=i), ready=ready, coming=1) for i in range(count)])
    DemandMinute.objects.bulk_create(
        [DemandMinute(pool=pool, workflow=workflow, minute=start + timedelta(minutes=i), arrivals=18, work_s=work_s) for i in range(count)]
    )


def forecast(pool, now, *, p50=6.0, hours=24 * 7, usable=True, **fields):
    values = {"method": "seasonal-naive-week", "history_days": 21.0, "backtest": {"wape": 0.081, "coverage": 0.79}, "usable": usable, "why": ""}
    points, floors = [[p50, p50 - 2, p50 + 2, p50 + 1.4]] * hours, [8] * hours
    given = {"plan": {"floors": floors, "job_s": 10.0, "cold_start_s": 60.0, "growth": None}} | values | fields
    starts = now.replace(minute=0, second=0, microsecond=0)
    return Forecast.objects.create(pool=pool, made_at=now, starts_at=starts, step_s=3600, points=points, arrivals=[[p50 * 360, 1, 2]] * hours, **given)


def charts(html):
    return [json.loads(text) for text in re.findall(r'<figure[^>]*><script type="application/json">(.*?)</script>', html)]


def line(chart, label):
    return next(s["data"] for s in chart["series"] if s["label"] == label)


# -- the pool's chart ------------------------------------------------------------------------------


def test_a_pool_with_a_forecast_shows_what_is_ahead_of_now_with_its_band_and_error(now, pool):
    minutes(pool, now)
    forecast(pool, now)
    html = rows.look(signed_in("account"), "/ops/fleet/pools/l40s/?from=-2h&to=now&ahead=6h")
    capacity, waits = charts(html)
    assert capacity["x"] == waits["x"], "one axis for both"
    assert capacity["now"] and capacity["x"][-1] - capacity["now"] == pytest.approx(6 * 3600, abs=120)
    assert max(v for v in line(capacity, "Forecast") if v is not None) == 6.0
    planned = line(capacity, "Planned")
    assert planned[0] is None and planned[-1] == 8.0, "the floor of the day plan"
    hi, lo, *_ = capacity["bands"][0]
    assert capacity["series"][hi - 1]["data"][-1] == 8.0 and capacity["series"][lo - 1]["data"][-1] == 4.0
    assert max(v for v in line(capacity, "Ready") if v is not None) == 4.0
    needed = [v for v in line(capacity, "Needed") if v is not None]
    assert needed[3:-2] == [3.0] * len(needed[3:-2]), "180 seconds of work a minute are three workers"
    assert "80% range" in html and "error 8.1% of demand" in html
    assert "+ 6h ahead" in html


@pytest.mark.parametrize(("units", "ready", "needed"), [("workers", 4.0, 3.0), ("jobs", 24.0, 18.0), ("usd", 3.44, 2.58)])
def test_the_units_are_workers_jobs_a_minute_or_dollars_an_hour(now, pool, units, ready, needed):
    minutes(pool, now)
    html = rows.look(signed_in("account"), f"/ops/fleet/pools/l40s/?from=-2h&to=now&units={units}")
    capacity = charts(html)[0]
    assert line(capacity, "Ready")[10] == pytest.approx(ready)
    assert line(capacity, "Needed")[10] == pytest.approx(needed)
    assert re.search(rf'units={units}[^"]*"\s+aria-current="true"', html)


def test_money_is_no_unit_for_those_who_do_not_see_it(now, pool):
    minutes(pool, now)
    html = rows.look(signed_in("viewer"), "/ops/fleet/pools/l40s/?from=-2h&to=now&units=usd")
    assert "$/hour" not in html and "$" not in html.split("<main")[1]
    assert line(charts(html)[0], "Ready")[10] == 4.0


def test_a_young_forecast_says_how_many_days_it_has_and_a_poor_one_why_it_is_not_used(now, pool):
    client = signed_in("viewer")
    forecast(pool, now - timedelta(minutes=2), history_days=0.05, usable=False, why="It has 0.1 days of data of the 7 it needs: what is seen now decides.")
    assert "The forecast has 1 hour of data of the 7 days it needs" in rows.look(client, "/ops/fleet/pools/l40s/")
    forecast(pool, now - timedelta(minutes=1), history_days=3.0, usable=False, why="It has 3.0 days of data of the 7 it needs: what is seen now decides.")
    html = rows.look(client, "/ops/fleet/pools/l40s/")
    assert "The forecast has 3 days of data of the 7 it needs; the band is wide." in html and "what is seen now decides" not in html
    forecast(pool, now - timedelta(seconds=40), history_days=4.0, usable=False, why="On 2 past days its floor would have let jobs wait. The base stands.")
    assert "band is wide. Not used for the floor: On 2 past days its floor would have let jobs wait. The base stands." in rows.look(
        client, "/ops/fleet/pools/l40s/"
    )
    forecast(pool, now - timedelta(seconds=30), history_days=3.0, why="On 1 past day its floor would have cost less.")
    assert "the band is wide. On 1 past day its floor would have cost less." in rows.look(client, "/ops/fleet/pools/l40s/")
    forecast(pool, now, usable=False, why="its error was 61%")
    assert "Not used for the floor: its error was 61%." in rows.look(client, "/ops/fleet/pools/l40s/")


def test_the_page_says_by_how_much_the_forecasts_that_were_made_really_missed(now, pool):
    minutes(pool, now)
    client = signed_in("account")
    tested = {"wape": 0.081, "coverage": 0.79}
    published = {"half_hour": 0.1, "two_hours": 0.2, "day": None, "covered": None, "hours": 40, "days": 7}
    forecast(pool, now - timedelta(minutes=1), backtest=tested | {"published": published})
    html = rows.look(client, "/ops/fleet/pools/l40s/")
    assert "in the last 7 d it really missed demand by 10% at 30 min, 20% at 2 h; tested on the past: error 8.1% of demand" in html
    for odd in (None, "soon", {"half_hour": None, "two_hours": "much", "day": None}):
        forecast(pool, now, backtest=tested | {"published": odd})
        html = rows.look(client, "/ops/fleet/pools/l40s/")
        assert "really missed" not in html and ": error 8.1% of demand" in html, odd


def test_without_a_forecast_the_page_says_so_and_looks_not_ahead(now, pool):
    html = rows.look(signed_in("viewer"), "/ops/fleet/pools/l40s/")
    assert "No forecast yet" in html
    assert "now" not in charts(html)[0] and "ahead</span>" not in html


def test_an_announced_batch_is_marked_and_named(now, pool):
    minutes(pool, now)
    who = factories.make_customer(now=now, slug="harbor")
    starts = now + timedelta(hours=1)
    PlannedDemand.objects.create(
        kind="batch", pool=pool, customer=who, starts_at=starts, ends_at=starts + timedelta(hours=1), jobs=2400, created_by="lena", created_at=now
    )
    html = rows.look(signed_in("viewer"), "/ops/fleet/pools/l40s/?from=-2h&to=now&ahead=6h")
    assert "Harbor: batch of 2,400 jobs" in html
    assert [e["kind"] for e in charts(html)[0]["events"]] == ["note"]


def test_a_month_is_read_hour_by_hour(now, pool, django_assert_max_num_queries):
    minutes(pool, now, count=300)
    with django_assert_max_num_queries(2):
        found = queries_capacity.minutes(start=now - timedelta(days=28), end=now, step_s=14_400, pool_id=pool.id)
    assert sum(s.arrivals for s in found.steps.values()) == 300 * 18
    assert max(v for v in found.line("ready") if v is not None) == 4.0


def test_all_pools_together_are_added_up(now, pool):
    minutes(pool, now, count=30)
    minutes(factories.make_pool(now=now, slug="other"), now, count=30, ready=3)
    for step_s, span in ((60, timedelta(minutes=20)), (3600, timedelta(hours=1))):
        found = queries_capacity.minutes(start=now - span, end=now, step_s=step_s)
        assert max(v for v in found.line("ready") if v is not None) == pytest.approx(7.0), step_s


def test_what_was_saved_is_the_time_not_run(now, pool):
    minutes(pool, now, count=60)
    found = queries_capacity.minutes(start=now - timedelta(hours=1), end=now, step_s=60, pool_id=pool.id)
    assert found.spared_s(10) == pytest.approx(5 * 3600, rel=0.03), "four ready and one coming of ten"


def test_a_maximum_far_above_everything_does_not_press_the_lines_flat(now, pool):
    pool.max = 900
    had = queries_capacity.Minutes(now - timedelta(hours=1), now, 60)
    spec = pool_chart.capacity(
        had, pool=pool, ahead=None, plans=[], until=now, shown=pool_chart.unit("", pool, job_s=None), maximum=900, events=[]
    )  # fmt: skip
    assert spec["ymax"] > 900, "nothing is known: the bound is all there is to show"
    had.steps[had.times()[5]] = queries_capacity.Step(ready=2.0)
    spec = pool_chart.capacity(
        had, pool=pool, ahead=None, plans=[], until=now, shown=pool_chart.unit("", pool, job_s=None), maximum=900, events=[]
    )  # fmt: skip
    assert spec["ymax"] < 5 and "target" not in spec


@pytest.mark.parametrize(("given", "ahead_s"), [("6h", 21600), ("", 3600), ("0", 0), ("soon", 0), ("-3h", 10800), ("99999d", 7 * 86400), ("'><b>", 0)])
def test_how_far_ahead_is_read_from_the_address_and_nonsense_shows_nothing(now, given, ahead_s):
    span = ranges.with_ahead(ranges.parse({}, now=now), {"ahead": given}, default="1h")
    assert span.ahead_s == ahead_s
    past = ranges.parse({"from": "2026-01-01", "to": "2026-01-02"}, now=now)
    assert ranges.with_ahead(past, {"ahead": given}, default="1h").ahead_s == 0, "nothing lies ahead of a range that is over"


# -- the fleet -------------------------------------------------------------------------------------


def test_the_fleet_shows_a_week_of_hours_and_marks_those_beyond_the_maximum(now, pool):
    minutes(pool, now)
    forecast(pool, now, p50=12.0, hours=48)
    html = rows.look(signed_in("account"), "/ops/fleet/")
    assert "more than the maximum of l40s" in html
    assert html.count('class="l4"') >= 24
    assert "Capacity of all pools" in html


def test_the_strip_is_seven_days_of_24_hours_whatever_the_forecast_covers(now, pool):
    row = forecast(pool, now, p50=4.0, hours=5)
    days = heat.strip([(pool, queries_capacity.Ahead(row))], now=now)
    assert [len(d.cells) for d in days] == [24] * 7
    known = [c for d in days for c in d.cells if c.level is not None]
    assert 4 <= len(known) <= 6 and all(c.level == 1 for c in known), "4 of 10 are more than a quarter and less than half"
    assert heat.strip([], now=now) == []


@pytest.mark.parametrize("points", [[], None, [[]], [None], [["x"]], "text", {"a": 1}])
def test_a_forecast_of_another_shape_is_not_drawn_and_breaks_nothing(now, pool, points):
    minutes(pool, now, count=5)
    Forecast.objects.create(
        pool=pool, made_at=now, starts_at=now, step_s=900, method="m", history_days=9, points=points if points is not None else [], backtest={}, usable=True
    )
    client = signed_in("viewer")
    html = rows.look(client, "/ops/fleet/pools/l40s/?ahead=6h")
    assert "Scaling decisions" in html and "did not load" not in html
    assert "did not load" not in rows.look(client, "/ops/fleet/")


# -- a decision ------------------------------------------------------------------------------------


def test_a_decision_says_what_it_saw_what_won_what_else_there_was_and_what_happened(now, pool):
    d = decide(pool, now - timedelta(minutes=5))
    assert d.action == "up"
    made = factories.make_worker(pool, now=now, ready_at=d.at + timedelta(seconds=104))
    Worker.objects.filter(id=made.id).update(ordered_at=d.at)
    html = rows.look(signed_in("account"), f"/ops/fleet/decisions/{d.id}/")
    for text in (
        "84 jobs, 14m 00s of one worker&#x27;s time; the oldest for 41 s", "4, 4 of them busy", "10 s, quite evenly; from 300 runs",
        "60 s, one in ten over 95 s",
        "One fewer", "As decided", "about ", "One more", "84 jobs for 4 workers.", "failed", "Ready in 1m 44s", "2 to 10 workers",
        "Work left when a new worker is ready", "A start counted with",
    ):  # fmt: skip
        assert text in html, text
    assert f"+{d.applied} to {4 + d.applied}" in html


def test_a_decision_that_was_taken_back_says_so(now, pool):
    up = rows.decision(pool, now=now - timedelta(minutes=9))
    down = rows.decision(pool, now=now - timedelta(minutes=4), action="down", applied=-1)
    html = rows.look(signed_in("viewer"), f"/ops/fleet/decisions/{up.id}/")
    assert f"/ops/fleet/decisions/{down.id}/" in html and "−1, " in html
    assert "Earlier" not in html and "Later" in html


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"queue": None, "ready": None},
        {"queue": "many", "ready": [], "now_s": "x"},
        {"queue": 1, "ready": 1, "now_s": 1.0, "job": "<script>", "terms": {"<b>": 1}},
        {"coming_s": ["x"], "idle_s": 5},
    ],
)
def test_a_decision_with_strange_inputs_is_still_a_page(now, pool, stored):
    d = rows.decision(pool, now=now, inputs=stored, reason=rows.XSS)
    client = signed_in("account")
    for path in (f"/ops/fleet/decisions/{d.id}/", "/ops/fleet/pools/l40s/"):
        html = rows.look(client, path)
        assert rows.XSS not in html and "&lt;" in html
        assert "did not load" not in html


def test_an_unknown_decision_is_not_found(now):
    assert "There is no decision 4711" in rows.look(signed_in("viewer"), "/ops/fleet/decisions/4711/", status=404)


def test_equal_refusals_in_a_row_are_one_line_and_the_csv_has_each(now, pool):
    for i in range(9):
        rows.decision(pool, now=now - timedelta(minutes=20 - i), action="hold", applied=0, wanted=9 - i, bound="maximum of 10")
    rows.decision(pool, now=now - timedelta(minutes=30))
    client = signed_in("viewer")
    html = rows.look(client, "/ops/fleet/pools/l40s/")
    assert len(re.findall(r'class="main-link"[^>]*>Held back</a>', html)) == 1
    assert "Asked 9 times with other figures." in html
    assert len(rows.read_csv(client.get("/ops/fleet/pools/l40s/decisions.csv"))) == 10


def test_the_csv_of_decisions_has_the_figures_they_rested_on(now, pool):
    d = decide(pool, now - timedelta(minutes=5))
    [row] = rows.read_csv(signed_in("account").get("/ops/fleet/pools/l40s/decisions.csv"))
    assert (row["id"], row["queue"], row["ready"], row["job_mean_s"]) == (str(d.id), "84.0", "4.0", "10.0")
    assert row["shadows"] == "request-count failed; threshold 5"


# -- a worker --------------------------------------------------------------------------------------


def test_a_worker_says_what_it_does_what_it_ran_and_what_it_cost(now):
    pool, worker, _, made = rows.busy_world(now)
    html = rows.look(signed_in("account"), f"/ops/fleet/workers/{worker.id}/")
    for text in (worker.name, "Running jobs", "product-shot v1", "Ready for jobs", "Has nothing to do", "Cost so far", f"/ops/fleet/pools/{pool.slug}/"):
        assert text in html, text


def test_a_worker_that_never_came_up_shows_its_last_words_escaped(now, pool):
    worker = factories.make_worker(
        pool, now=now, state="stopped", stopped_at=now, stop_reason="start_timeout", stop_message="It was not ready.", engine_log=["CUDA error", rows.XSS]
    )
    html = rows.look(signed_in("viewer"), f"/ops/fleet/workers/{worker.id}/")
    assert "Boot log" in html and "CUDA error" in html and "It is gone: It was not ready." in html
    assert rows.XSS not in html
    assert "Drain</button>" not in html


def test_an_unknown_worker_is_not_found(now):
    rows.look(signed_in("viewer"), f"/ops/fleet/workers/{factories.some_id()}/", status=404)


def test_a_worker_is_cordoned_and_put_back_by_those_who_may(now, pool):
    worker = factories.make_worker(pool, now=now)
    address = f"/ops/fleet/workers/{worker.id}"
    assert signed_in("viewer").post(f"{address}/cordon/").status_code == 403
    keeper = signed_in("operator")
    said = keeper.post(f"{address}/cordon/", {"back": "worker"}, follow=True).content.decode()
    assert "gets no new jobs." in said and "Cordoned" in said
    assert Worker.objects.get().cordoned_at is not None
    keeper.post(f"{address}/uncordon/")
    assert Worker.objects.get().cordoned_at is None
    assert {"worker.cordon", "worker.uncordon"} <= set(AuditEntry.objects.values_list("action", flat=True))
    assert keeper.post(f"{address}/explode/").status_code == 404
    assert keeper.get(f"{address}/cordon/").status_code == 405


# -- the policy ------------------------------------------------------------------------------------


def test_trying_a_policy_shows_both_sides_and_saves_nothing_and_saving_keeps_what_was_shown(now):
    pool, *_ = rows.busy_world(now)
    minutes(pool, now, count=90, work_s=60.0)
    client = signed_in("admin")
    body = {"base": "1", "maximum": "4", "policy": "request-count", "request-count.per_worker": "3", "forecast_floor_shown": "1", "reason": "Cheaper"}
    tried = client.post("/ops/fleet/pools/l40s-image/edit/", body | {"try": "1"})
    html = tried.content.decode()
    assert tried.status_code == 200, html
    for text in ("In force", "Worker hours", "Maximum workers", "Save as revision", "Would have"):
        assert text in html, text
    assert Pool.objects.get(slug="l40s-image").max == 8, "trying saves nothing"
    shown = re.search(r'name="replay" value="([^"]+)"', html)[1]
    assert client.post("/ops/fleet/pools/l40s-image/edit/", body | {"replay": shown})["Location"] == "/ops/fleet/pools/l40s-image/"
    revision = PolicyRevision.objects.get(pool=pool)
    assert revision.replay["said"].startswith("Would have") and revision.reason == "Cheaper"
    held = Pool.objects.get(slug="l40s-image")
    assert (held.policy, held.knobs, held.max, held.forecast_floor) == ("request-count", {"per_worker": 3.0}, 4, False)


def test_a_replay_of_other_terms_or_of_another_hand_is_not_kept(now):
    pool, *_ = rows.busy_world(now)
    client = signed_in("admin")
    body = {"base": "1", "maximum": "4"}
    html = client.post("/ops/fleet/pools/l40s-image/edit/", body | {"try": "1"}).content.decode()
    shown = re.search(r'name="replay" value="([^"]+)"', html)[1]
    client.post("/ops/fleet/pools/l40s-image/edit/", body | {"maximum": "5", "replay": shown})
    client.post("/ops/fleet/pools/l40s-image/edit/", body | {"maximum": "6", "replay": "eyJmYWtlIjoxfQ:1:x"})
    assert [r.replay for r in PolicyRevision.objects.filter(pool=pool)] == [{}, {}]


def test_revisions_say_what_they_changed_and_an_earlier_one_is_put_in_force_again(now):
    pool = pools.create(slug="p", name="", provider="local", base=1, maximum=3, price_per_hour_microusd=0, actor="lena", now=now)
    pools.change(pool, {"max": 9, "knobs": {}, "target_s": 30.0}, actor="omar", reason="Friday", now=now)
    client = signed_in("fleet")
    html = rows.look(client, "/ops/fleet/pools/p/policy/")
    for text in ("Revision 2", "In force", "<del>3</del> <ins>9</ins>", "<del>60 s</del> <ins>30 s</ins>", "Friday", "omar", "Restore revision 1"):
        assert text in html, text
    assert signed_in("viewer").post("/ops/fleet/pools/p/policy/1/restore/").status_code == 403
    assert "Revision 1 is in force again, as revision 3." in client.post("/ops/fleet/pools/p/policy/1/restore/", follow=True).content.decode()
    assert Pool.objects.get().max == 3
    assert client.post("/ops/fleet/pools/p/policy/77/restore/").status_code == 404


def test_a_script_may_send_a_few_fields_and_the_rest_stays(now, pool):
    Pool.objects.update(shadows=[{"policy": "threshold", "knobs": {}}], on_demand_share=0.5)
    signed_in("fleet").post("/ops/fleet/pools/l40s/edit/", {"maximum": "12"})
    held = Pool.objects.get()
    assert (held.base, held.max, held.on_demand_share, held.forecast_floor) == (2, 12, 0.5, True)
    assert held.shadows == [{"policy": "threshold", "knobs": {}}]


def test_a_new_pool_on_docker_or_kubernetes_takes_its_settings_and_names_a_wrong_one(now):
    client = signed_in("fleet")
    body = {"slug": "boxes", "provider": "docker", "base": "0", "maximum": "2", "price": "0.5", "gpu": "L4", "image": "registry.test/worker@sha256:0"}
    wrong = client.post("/ops/fleet/new/", body | {"settings": '{"memory_mib": "lots"}'})
    assert wrong.status_code == 422 and "memory_mib" in wrong.content.decode()
    assert client.post("/ops/fleet/new/", body | {"settings": "not json"}).status_code == 422
    assert client.post("/ops/fleet/new/", body | {"settings": '{"memory_mib": 4096}'})["Location"] == "/ops/fleet/pools/boxes/"
    held = Pool.objects.get()
    assert (held.provider, held.settings["memory_mib"], held.image) == ("docker", 4096, "registry.test/worker@sha256:0")
    assert "memory_mib" in rows.look(client, "/ops/fleet/new/")


# -- actions on a pool -----------------------------------------------------------------------------


def test_a_pause_needs_the_name_a_reason_and_an_end_shows_a_banner_and_is_undone(now, pool):
    client = signed_in("fleet")
    body = {"pause_for": "1h", "pause_reason": "Driver update", "confirm": "l40s"}
    for missing in ({"confirm": "l40"}, {"pause_reason": ""}, {"pause_for": "forever"}):
        assert client.post("/ops/fleet/pools/l40s/pause/", body | missing).status_code == 422, missing
    assert Pool.objects.get().paused_until is None
    assert signed_in("operator").post("/ops/fleet/pools/l40s/pause/", body).status_code == 403
    html = client.post("/ops/fleet/pools/l40s/pause/", body, follow=True).content.decode()
    assert "Autoscaling is paused until" in html and "Driver update" in html and "Resume autoscaling" in html
    assert Pool.objects.get().paused_until > now
    assert "acts again" in client.post("/ops/fleet/pools/l40s/unpause/", follow=True).content.decode()
    assert Pool.objects.get().paused_until is None
    assert {"pool.pause", "pool.unpause"} <= set(AuditEntry.objects.values_list("action", flat=True))


def test_draining_a_pool_asks_every_worker_to_leave_and_orders_none(now, pool):
    for state in ("idle", "busy", "starting"):
        factories.make_worker(pool, now=now, state=state)
    client = signed_in("fleet")
    assert "3 workers</b> finish" in rows.look(client, "/ops/fleet/pools/l40s/drain/")
    body = {"drain_for": "1h", "drain_reason": "Move", "confirm": "l40s"}
    assert client.post("/ops/fleet/pools/l40s/drain/", body | {"confirm": "no"}).status_code == 422
    assert not Worker.objects.filter(drain_asked_at__isnull=False).exists()
    assert "3 workers of l40s finish and leave" in client.post("/ops/fleet/pools/l40s/drain/", body, follow=True).content.decode()
    assert set(Worker.objects.values_list("state", flat=True)) == {"draining"}
    assert Pool.objects.get().paused_until is not None


def test_workers_are_added_for_a_while_once(now, pool):
    client = signed_in("fleet")
    for _ in range(2):
        answer = client.post("/ops/fleet/pools/l40s/add/", {"workers": "12", "add_for": "2h", "add_reason": "Launch", "once": "abc"})
        assert answer.status_code == 302, answer.content.decode()[:600]
    row = EmergencyAction.objects.get()
    assert (row.kind, row.base, row.max) == ("raise", 12, 12)
    html = rows.look(client, "/ops/fleet/pools/l40s/")
    assert "2 to 12 workers" in html and "Launch" in html
    for wrong in ({"workers": "0"}, {"workers": "many"}, {"workers": "2"}, {"add_for": "1y"}):
        assert client.post("/ops/fleet/pools/l40s/add/", {"workers": "13", "add_for": "2h"} | wrong).status_code == 422, wrong


def test_a_forecast_beyond_the_maximum_warns_with_its_price_and_one_button(now, pool):
    forecast(pool, now, p50=14.0)
    client = signed_in("fleet")
    html = rows.look(client, "/ops/fleet/pools/l40s/")
    assert "Maximum reached on" in html
    wanted = int(re.search(r'name="maximum" value="(\d+)"', html)[1])
    assert wanted > 14 and f"Raise maximum to {wanted}" in html
    assert "Raise maximum" not in rows.look(signed_in("viewer"), "/ops/fleet/pools/l40s/")
    client.post("/ops/fleet/pools/l40s/maximum/", {"maximum": str(wanted)})
    assert Pool.objects.get().max == wanted


def test_the_maximum_is_raised_by_one_button_and_never_lowered_by_it(now, pool):
    client = signed_in("fleet")
    client.post("/ops/fleet/pools/l40s/maximum/", {"maximum": "14"})
    assert Pool.objects.get().max == 14
    assert "is 14 already" in client.post("/ops/fleet/pools/l40s/maximum/", {"maximum": "9"}, follow=True).content.decode()
    assert Pool.objects.get().max == 14
    assert signed_in("viewer").post("/ops/fleet/pools/l40s/maximum/", {"maximum": "99"}).status_code == 403


def test_a_day_compared_says_what_sizing_saved_against_the_threshold_rule(now, pool):
    SavingsDay.objects.create(
        pool=pool, day=now.date(), actual_microusd=1, replayed_microusd=10_000_000, seed_microusd=28_400_000, static_microusd=99_000_000, made_at=now
    )
    assert "$18.40 saved on" in rows.look(signed_in("account"), "/ops/fleet/pools/l40s/")
    assert "18.40" not in rows.look(signed_in("viewer"), "/ops/fleet/pools/l40s/")


# -- the overview ----------------------------------------------------------------------------------


def test_the_overview_names_a_forecast_that_passes_the_maximum_and_measures_in_force(now):
    pool, *_ = rows.busy_world(now)
    forecast(pool, now, p50=12.0)
    during = {"starts_at": now - timedelta(minutes=5), "expires_at": now + timedelta(minutes=55)}
    EmergencyAction.objects.create(kind="shed", pool=pool, priority=2, overflow_s=60, actor="lena", **during)
    Pool.objects.filter(id=pool.id).update(paused_until=now + timedelta(hours=1), paused_reason="Driver update")
    html = rows.look(signed_in("admin"), "/ops/")
    assert "l40s-image reaches its maximum" in html and "Maximum reached on" in html
    assert "l40s-image: shedding" in html and "Autoscaling of l40s-image is paused" in html


def test_a_forecast_that_is_often_wrong_alarms_nobody(now):
    pool, *_ = rows.busy_world(now)
    forecast(pool, now, p50=12.0, usable=False)
    assert "reaches its maximum" not in rows.look(signed_in("admin"), "/ops/")


def test_the_policy_form_shows_prices_and_budgets_to_who_sees_money(now, pool):
    pool.budget_per_hour_microusd, pool.price_per_hour_microusd = 12_340_000, 870_000
    pool.save()
    seer, other = signed_in("fleet", "account"), signed_in("fleet")
    for text in ('value="12.34"', 'value="0.87"'):
        assert text in rows.look(seer, "/ops/fleet/pools/l40s/edit/")
        assert text not in rows.look(other, "/ops/fleet/pools/l40s/edit/")
    assert other.post("/ops/fleet/pools/l40s/edit/", {"maximum": "9", "policy": pool.policy}).status_code == 302
    pool.refresh_from_db()
    assert (pool.max, pool.budget_per_hour_microusd, pool.price_per_hour_microusd) == (9, 12_340_000, 870_000)
