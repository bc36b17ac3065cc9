"""What heartbeats say of warm-ups and of machines about to be taken away, over HTTP."""

from __future__ import annotations

import json

import pytest
from django.test import Client
from django.utils import timezone

from fleet import membership
from fleet.models import Worker, WorkerChange
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def agent() -> tuple[Worker, str]:
    now = timezone.now()
    pool = factories.make_pool(now=now)
    return membership.register(pool, protocol=1, instance="i-1", name="w", fingerprint={}, now=now)


def beat(agent: tuple[Worker, str], **body: object) -> dict[str, object]:
    reply = Client().post(
        "/worker/v1/heartbeat", data=json.dumps(body), content_type="application/json", headers={"Authorization": f"Bearer {agent[1]}"}
    )  # fmt: skip
    assert reply.status_code == 200, reply.content
    answer: dict[str, object] = reply.json()
    return answer


def test_a_worker_is_shown_as_loading_while_its_warm_up_runs(agent: tuple[Worker, str]) -> None:
    seen = []
    for said in ("none", "running", "running", "failed", "running", "passed"):
        beat(agent, state="starting" if said != "passed" else "idle", jobs=[], warmup={"state": said, "done": 0, "of": 1})
        seen.append(Worker.objects.get(id=agent[0].id).state)
    assert seen == ["starting", "loading", "loading", "starting", "loading", "idle"]
    assert not WorkerChange.objects.exists()  # its first start is in its row


@pytest.mark.parametrize("nonsense", [None, "soon", True, [], {"in": 5}, "1"])
def test_a_notice_that_is_no_number_is_none(agent: tuple[Worker, str], nonsense: object) -> None:
    beat(agent, state="idle", jobs=[], preempt_in_s=nonsense)
    assert Worker.objects.get(id=agent[0].id).preempt_at is None


def test_a_notice_is_taken_once_and_asks_the_worker_to_go_when_it_is_idle(agent: tuple[Worker, str]) -> None:
    before = timezone.now()
    for left in (60, 58.5, 1e9, -3):
        beat(agent, state="idle", jobs=[], preempt_in_s=left)
    worker = Worker.objects.get(id=agent[0].id)
    assert worker.preempt_at is not None and 55 < (worker.preempt_at - before).total_seconds() < 70
    assert WorkerChange.objects.filter(kind="notice").count() == 1
