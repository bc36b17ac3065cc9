"""Housekeeping: schedules are made once and set right, and pruning deletes only what its rule names."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django_q.models import Schedule

from controlplane.kernel import outbox
from controlplane.kernel.models import OutboxEntry
from fleet import queue, tasks
from fleet.models import ScalingDecision, Worker
from tests import factories

pytestmark = pytest.mark.django_db


def test_schedules_are_made_once_and_set_right_again(now) -> None:
    tasks.ensure_schedules(now=now)
    Schedule.objects.filter(name="prune").update(func="somewhere.else", next_run=now + timedelta(hours=3))
    tasks.ensure_schedules(now=now + timedelta(days=1))
    assert Schedule.objects.count() == len(tasks.SCHEDULES)
    prune = Schedule.objects.get(name="prune")
    assert (prune.func, prune.next_run, prune.repeats) == ("fleet.tasks.prune", now + timedelta(hours=3), -1)


def test_the_functions_named_by_schedules_exist_and_may_run_twice() -> None:
    for terms in tasks.SCHEDULES.values():
        function = getattr(tasks, terms["func"].rpartition(".")[2])
        assert function() == function()


def test_pruning_keeps_what_is_young_and_what_jobs_need(now) -> None:
    old = now - timedelta(days=31)
    pool = factories.make_pool(now=old)
    workflow = factories.make_runnable(now=old, pool=pool)
    worked = factories.make_worker(pool, now=old)
    factories.submit(factories.make_customer(now=old), workflow, now=old)
    queue.claim(worked, now=old)
    queue.requeue_worker(worked, now=old)
    Worker.objects.filter(id=worked.id).update(state="stopped", stopped_at=old)
    factories.make_worker(pool, now=old, state="stopped", stopped_at=old)
    young = factories.make_worker(pool, now=now, state="stopped", stopped_at=now)
    for days, state in ((31, "done"), (31, "dead"), (29, "done")):
        outbox.put(topic="test", key=f"{days}{state}", payload={}, now=old)
        OutboxEntry.objects.filter(key=f"{days}{state}").update(state=state, ended_at=now - timedelta(days=days))
    shared = {"pool": pool, "policy": "seed-rule", "inputs": {}, "wanted": 0, "applied": 0, "reason": "r", "epoch": 1, "at": old, "last_seen_at": old}
    ScalingDecision.objects.create(action="hold", **shared)
    ScalingDecision.objects.create(action="up", **shared)

    said = tasks.sweep(now=now)
    assert (said["workers"], said["outbox"], said["holds"]) == (1, 1, 1)
    assert set(Worker.objects.values_list("id", flat=True)) == {worked.id, young.id}
    assert ScalingDecision.objects.get().action == "up"
    assert all(count == 0 for count in tasks.sweep(now=now).values())
