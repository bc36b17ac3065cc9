"""What a new worker is given to rehearse, and how what it says of it is kept."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from builds import smoke_keeping
from fleet import queue, tokens, warmups
from fleet.models import MinuteRollup, SmokeRun, Worker
from tests import factories

pytestmark = pytest.mark.django_db
PHOTO = {"name": "photo", "node": "1", "input": "image", "type": "string", "kind": "image", "required": True}
LOADS = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "o"}},
}


@pytest.fixture
def pool(now):
    return factories.make_pool(now=now)


def served(pool, slug, *, now, run_s=1.0, state="passed", **fields):
    """A workflow in production whose last smoke run took that long."""
    workflow = factories.make_workflow(now=now, pool=pool, slug=slug)
    version = factories.make_version(workflow, now=now, **fields)
    smoke_keeping.of_version(version, now=now)
    tried(version, now=now, run_s=run_s, state=state)
    return version


def tried(version, *, now, run_s=1.0, state="passed"):
    error = None if state == "passed" else {"code": "x", "message": "m", "suggestion": "s"}
    SmokeRun.objects.create(
        version=version, trigger="import", state=state, requested_at=now, requested_by="smoke", finished_at=now, error=error, report={"run_s": run_s}
    )  # fmt: skip


def used(version, times, *, now):
    pool = factories.make_pool(now=now)
    MinuteRollup.objects.create(
        minute=now, version=version, customer=factories.make_customer(now=now), pool=pool, succeeded=times, wait={}, run={}, total={}
    )  # fmt: skip


def names(pool, *, now, engine="comfyui"):
    return [p["workflow"] for p in warmups.of_pool(pool, engine=engine, now=now)["prompts"]]


def test_the_most_used_that_pass_come_first_bounded_in_number_and_seconds(pool, now):
    for slug, jobs, run_s in (("rare", 1, 1.0), ("usual", 50, 2.0), ("busy", 900, 3.0), ("slow", 9999, 600.0), ("second", 20, 1.0)):
        used(served(pool, slug, now=now, run_s=run_s), jobs, now=now)
    assert names(pool, now=now) == ["busy", "usual", "second"]
    assert names(factories.make_pool(now=now), now=now) == []


def test_a_graph_that_never_passed_or_failed_last_says_nothing_of_a_worker(pool, now):
    served(pool, "failing", now=now, state="failed")
    broke = served(pool, "broke", now=now)
    tried(broke, now=now + timedelta(hours=1), state="failed")
    mended = served(pool, "mended", now=now, state="failed")
    tried(mended, now=now + timedelta(hours=1))
    factories.make_version(factories.make_workflow(now=now, pool=pool), now=now)
    assert names(pool, now=now) == ["mended"]


def test_what_is_not_in_production_is_not_rehearsed(pool, now):
    served(pool, "lab", now=now, live=False)
    version = served(pool, "gone", now=now)
    version.workflow.archived_at = now
    version.workflow.save()
    assert names(pool, now=now) == []


def test_each_set_of_models_is_loaded_once(pool, now):
    for slug in ("one", "two"):
        served(pool, slug, now=now, warm_key="same")
    served(pool, "other", now=now, warm_key="else")
    assert len(names(pool, now=now)) == 2


def test_the_embedded_engine_gets_one_that_takes_a_moment(pool, now):
    used(served(pool, "heavy", now=now, run_s=1.5), 100, now=now)
    for slug in ("light", "lighter"):
        served(pool, slug, now=now, run_s=0.2)
    assert len(names(pool, now=now, engine="embedded")) == 1
    assert "heavy" not in names(pool, now=now, engine="embedded")


def test_files_travel_with_the_prompt_and_the_graph_names_them(pool, now):
    served(pool, "mend", now=now, graph=LOADS, inputs=[PHOTO])
    (prompt,) = warmups.of_pool(pool, engine="comfyui", now=now)["prompts"]
    (file,) = prompt["files"]
    assert prompt["graph"]["1"]["inputs"]["image"] == file["name"]
    assert (file["media_type"], file["node"], file["input"]) == ("image/png", "1", "image")
    assert base64.b64decode(file["data"]).startswith(b"\x89PNG")


def test_it_can_be_turned_off_and_never_keeps_a_worker_out(pool, now, monkeypatch):
    served(pool, "paint", now=now)
    monkeypatch.setitem(settings.WORKER, "WARMUP_PROMPTS", 0)
    assert names(pool, now=now) == []
    monkeypatch.setitem(settings.WORKER, "WARMUP_PROMPTS", 3)
    monkeypatch.setattr(warmups, "placed", lambda *a, **k: (_ for _ in ()).throw(OSError("disk")))
    assert warmups.of_pool(pool, engine="comfyui", now=now)["prompts"] == []


def test_registration_answers_with_it(pool, client):
    served(pool, "paint", now=timezone.now())
    answer = client.post(
        "/worker/v1/register",
        {"protocol": 1, "instance": "i-1", "name": "w", "fingerprint": {"engine": "comfyui"}},
        content_type="application/json",
        headers={"Authorization": f"Bearer {tokens.pool_token(pool)}"},
    )
    assert answer.status_code == 201, answer.content
    assert [p["workflow"] for p in answer.json()["warmup"]["prompts"]] == ["paint"]


def test_what_a_worker_says_is_kept_bounded_and_it_is_not_ready_meanwhile(pool, now, client):
    worker = factories.make_worker(pool, now=now, state="starting", ready_at=None, idle_since=None)
    token, worker.token_digest = tokens.new_worker_token(worker.id)
    worker.save()

    def beat(said, state="starting"):
        body = {"state": state, "jobs": [], "warmup": said}
        answer = client.post("/worker/v1/heartbeat", body, content_type="application/json", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.content
        return Worker.objects.get(id=worker.id)

    assert beat({"state": "running", "done": 0, "of": 2, "seconds": 0.5}).warmup == {"state": "running", "done": 0, "of": 2, "seconds": 0.5}
    failed = beat({"state": "failed", "done": 1, "of": 2, "message": "paint v1: <b>" + "x" * 9000, "log": ["line\x00", 5, "y" * 9000] + ["z"] * 90})
    assert (failed.state, failed.ready_at, failed.warmup["state"]) == ("starting", None, "failed")
    assert len(failed.warmup["message"]) == 500 and len(failed.warmup["log"]) <= 20 and "\x00" not in str(failed.warmup)
    for nonsense in ({"state": "great"}, {"state": 5}, {"state": ["passed"]}, {"done": 1}):
        assert beat(nonsense).warmup == failed.warmup
    assert beat({"state": "passed", "done": -5, "of": 10**9, "seconds": -1}).warmup == {"state": "passed"}
    queue.heartbeat(Worker.objects.get(id=worker.id), state="idle", now=now)
    assert Worker.objects.get(id=worker.id).ready_at == now
