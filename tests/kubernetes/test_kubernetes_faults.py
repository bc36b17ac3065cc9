"""What an API server does to its clients: conflicts, expiry, throttling, being slow, being gone. On the stub, which does it on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import factories
import pytest
from django.utils import timezone

from fleet import scaling, workers
from fleet.models import ScalingDecision, Worker
from fleet.providers.base import NoCapacity, ProviderError, Refused, Unavailable
from fleet.providers.kubernetes import Kubernetes, api, ranking, shrinking
from fleet.providers.kubernetes.mirror import Mirror

pytestmark = pytest.mark.django_db


def started(stub: Any, provider: Any, count: int, **fields: Any) -> Any:
    """A pool with so many running pods."""
    stub.nodes.add("node-a")
    pool = stub.pool(**fields)
    if count:
        provider.resize(pool, wanted=count)
        stub.settle()
    return pool


def test_a_conflict_is_read_again_and_tried_again(stub: Any, provider: Any) -> None:
    pool = started(stub, provider, 1)
    stub.server.fail(409, times=2, path="/scale", method="PUT")
    provider.resize(pool, wanted=3)
    assert stub.deployment()["spec"]["replicas"] == 3


def test_a_conflict_that_never_ends_is_told_and_not_tried_for_ever(stub: Any, provider: Any) -> None:
    pool = started(stub, provider, 1)
    stub.server.fail(409, times=1000, path="/scale", method="PUT")
    with pytest.raises(Unavailable, match="changed by somebody else"):
        provider.resize(pool, wanted=3)
    assert sum(1 for verb, path in stub.server.paths if verb == "PUT" and "/scale" in path) == 5


def test_a_change_between_reading_and_writing_is_noticed(stub: Any, provider: Any) -> None:
    pool = started(stub, provider, 1)
    name = stub.deployment()["metadata"]["name"]
    stub.server.changed = lambda: None
    seen = stub.server.allowed

    def meddle(verb: str, group: str, resource: str, namespace: str) -> bool:
        if (verb, resource) == ("update", "deployments/scale") and not stub.meddled:
            stub.meddled = True
            held = stub.server.bucket("apps", "deployments", namespace)[name]
            stub.server.put("apps", "deployments", namespace, held)
        return bool(seen(verb, group, resource, namespace))

    stub.meddled = False
    stub.server.allowed = meddle
    provider.resize(pool, wanted=4)
    assert stub.meddled and stub.deployment()["spec"]["replicas"] == 4


@pytest.mark.parametrize(("code", "headers"), [(429, {"Retry-After": "7"}), (503, {"Retry-After": "7"}), (500, {})])
def test_a_throttled_or_failing_server_is_unavailable_and_its_wish_is_passed_on(stub: Any, provider: Any, code: int, headers: dict[str, str]) -> None:
    pool = started(stub, provider, 0)
    stub.server.fail(code, headers=headers)
    with pytest.raises(Unavailable) as told:
        provider.observe(pool)
    assert told.value.retry_after_s == (7.0 if headers else None)
    assert provider.observe(pool).wanted == 0


def test_a_server_that_is_down_is_unavailable_and_found_again(stub: Any, provider: Any) -> None:
    pool = started(stub, provider, 2)
    stub.server.down()
    for act in (lambda: provider.observe(pool), lambda: provider.resize(pool, wanted=3), lambda: provider.tend(pool)):
        with pytest.raises(Unavailable, match="cannot be reached"):
            act()
    assert provider.boot_log({"pod": "x", "namespace": stub.namespace, "context": "test"}) == []
    stub.server.up()
    assert provider.observe(pool).wanted == 2


def test_a_server_that_does_not_answer_in_time_is_unavailable(stub: Any, provider: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = started(stub, provider, 0)
    provider.observe(pool)
    monkeypatch.setattr(api, "TIMEOUT_S", (0.5, 0.05))
    stub.server.slow_s = 0.3
    with pytest.raises(Unavailable):
        provider.observe(pool)
    stub.server.slow_s = 0.0


def test_credentials_that_are_refused_are_read_anew(stub: Any, provider: Any) -> None:
    pool = started(stub, provider, 1)
    stub.server.fail(401)
    with pytest.raises(Refused, match="credentials"):
        provider.observe(pool)
    assert provider.observe(pool).wanted == 1


def test_what_the_role_does_not_allow_is_said(stub: Any, provider: Any) -> None:
    pool = started(stub, provider, 0)
    stub.server.allowed = lambda verb, group, resource, namespace: resource != "deployments" or verb != "create"
    with pytest.raises(Refused, match=r"does not allow it.*create"):
        provider.resize(pool, wanted=1)


def test_without_a_cluster_it_says_what_to_set(stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere/kubeconfig")
    with pytest.raises(Unavailable, match="Set KUBECONFIG"):
        Kubernetes(watched=False).observe(stub.pool())


def test_a_quota_that_leaves_no_room_is_said_in_its_words(stub: Any, provider: Any) -> None:
    pool = started(stub, provider, 0)
    stub.controllers.quota = 2
    provider.resize(pool, wanted=4)
    stub.settle()
    with pytest.raises(NoCapacity, match="exceeded quota"):
        provider.resize(pool, wanted=4)
    assert (provider.observe(pool).wanted, len(stub.active())) == (4, 2)


def test_a_long_list_is_read_page_by_page(stub: Any, provider: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.providers.kubernetes.mirror.PAGE", 2)
    pool = started(stub, provider, 5)
    assert len(provider.observe(pool).instances) == 5
    stub.server.fail(410, path="continue=")
    assert len(provider.observe(pool).instances) == 5


@pytest.mark.parametrize("eager", [True, False], ids=["between two writes", "long after"])
def test_whenever_controllers_act_the_same_pod_goes(stub: Any, provider: Any, eager: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrinking, "NOTICE_S", 0.2)
    pool = started(stub, provider, 4)
    names = stub.active()
    stub.nodes.ready = lambda pod: pod["metadata"]["name"] != names[0]
    stub.settle()
    for name, state in zip(names, ("loading", "idle", "busy", "busy"), strict=True):
        worker = factories.make_worker(pool, now=timezone.now(), state=state)
        Worker.objects.filter(id=worker.id).update(instance=name)
    stub.eager = eager
    victim = Worker.objects.get(instance=names[1])
    provider.resize(pool, wanted=3, victims=[victim])
    stub.settle()
    assert stub.active() == [names[0], names[2], names[3]]


def test_an_old_server_takes_the_named_pod_or_none(stub: Any, provider: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrinking, "NOTICE_S", 0.2)
    stub.server.minor = 20
    pool = started(stub, provider, 3)
    names = stub.active()
    for name, state in zip(names, ("busy", "idle", "busy"), strict=True):
        worker = factories.make_worker(pool, now=timezone.now(), state=state)
        Worker.objects.filter(id=worker.id).update(instance=name)
    stub.eager = False  # nobody says that the deletion was heard: the count stays
    victim = Worker.objects.get(instance=names[1])
    with pytest.raises(ProviderError, match="1 stay"):
        provider.resize(pool, wanted=2, victims=[victim])
    stub.settle()
    assert {names[0], names[2]} < set(stub.active()) and names[1] not in stub.active()
    stub.eager = True
    provider.resize(pool, wanted=2)
    stub.settle()
    assert stub.active() == [names[0], names[2]]


def test_a_controller_killed_after_the_costs_leaves_nothing_that_hurts(stub: Any, provider: Any) -> None:
    pool = started(stub, provider, 3)
    names = stub.active()
    for name in names:
        worker = factories.make_worker(pool, now=timezone.now(), state="idle")
        Worker.objects.filter(id=worker.id).update(instance=name)
    stub.server.fail(500, path="/scale", method="PUT")
    victim = Worker.objects.get(instance=names[2])
    with pytest.raises(Unavailable):
        provider.resize(pool, wanted=2, victims=[victim])
    assert stub.active() == names
    Kubernetes(watched=False).resize(pool, wanted=2, victims=[victim])
    stub.settle()
    assert stub.active() == names[:2]


def test_an_api_server_that_is_down_costs_no_worker_and_makes_no_decision(stub: Any, provider: Any) -> None:
    pool = started(stub, provider, 2, base=0, max=4, policy="threshold")
    now = timezone.now()
    workers.look_after(pool, provider=provider, fence=lambda: None, now=now)
    Worker.objects.update(state="idle", registered_at=now, ready_at=now, seen_at=now, idle_since=now - timedelta(hours=1))
    stub.server.down()
    said = workers.look_after(pool, provider=provider, fence=lambda: None, now=now + timedelta(seconds=5))
    assert said and "provider unavailable" in said[0]
    decision = scaling.step(pool, provider=provider, fence=lambda: None, epoch=1, now=now + timedelta(seconds=5))
    assert (decision.action, decision.applied) == ("hold", 0)
    assert Worker.objects.filter(state="idle").count() == 2
    assert ScalingDecision.objects.latest("id").action == "hold"
    stub.server.up()
    assert workers.look_after(pool, provider=provider, fence=lambda: None, now=now + timedelta(seconds=10)) == []


def test_costs_are_written_a_few_at_a_time(stub: Any, provider: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.providers.kubernetes.provider.COSTS_A_ROUND", 2)
    pool = started(stub, provider, 3)
    for name in stub.active():
        worker = factories.make_worker(pool, now=timezone.now(), state="busy", idle_since=None)
        Worker.objects.filter(id=worker.id).update(instance=name)
    provider.tend(pool)
    assert sorted(ranking.cost(p) for p in stub.pods()) == [0, ranking.BUSY, ranking.BUSY]
    provider.tend(pool)
    assert [ranking.cost(p) for p in stub.pods()] == [ranking.BUSY] * 3


# Watches


@pytest.fixture
def mirror(stub: Any) -> Iterator[Mirror]:
    made = Mirror(api.Api("test"), f"/api/v1/namespaces/{stub.namespace}/pods", relist_s=3600.0)
    yield made
    made.close()
    stub.server.bookmark()


def make(stub: Any, name: str) -> None:
    meta = {"name": name, "labels": {}, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    stub.server.put("", "pods", stub.namespace, {"kind": "Pod", "metadata": meta, "spec": {}, "status": {}}, kind="ADDED")


def comes(true: Callable[[], Any]) -> None:
    """Wait for a thread, 10 s at most."""
    pause = threading.Event()
    for _ in range(1000):
        if true():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come")


def test_who_looks_regularly_is_told_by_a_watch_and_lists_no_more(stub: Any, mirror: Mirror) -> None:
    make(stub, "one")
    assert set(mirror.objects()) == {"one"} and mirror.connections == 0
    mirror.objects()
    comes(lambda: mirror.connections == 1)
    make(stub, "two")
    comes(lambda: set(mirror.objects()) == {"one", "two"})
    stub.server.remove("", "pods", stub.namespace, "one")
    comes(lambda: set(mirror.objects()) == {"two"})
    assert mirror.lists == 2


def test_a_watch_that_breaks_goes_on_from_where_it_was(stub: Any, mirror: Mirror) -> None:
    mirror.objects()
    mirror.objects()
    comes(lambda: mirror.connections == 1)
    make(stub, "one")
    comes(lambda: "one" in mirror._objects)
    lists = mirror.lists
    stub.server._http.drop()
    make(stub, "two")
    comes(lambda: mirror.connections >= 2 and "two" in mirror._objects)
    assert mirror.lists == lists


def test_a_watch_whose_place_is_forgotten_lists_again(stub: Any, mirror: Mirror) -> None:
    mirror.objects()
    mirror.objects()
    comes(lambda: mirror.connections == 1)
    make(stub, "one")
    stub.server.expire()
    comes(lambda: mirror.lists >= 3)
    comes(lambda: set(mirror.objects()) == {"one"})
    make(stub, "two")
    comes(lambda: set(mirror.objects()) == {"one", "two"})


def test_after_a_write_the_next_look_asks_the_server(stub: Any, mirror: Mirror) -> None:
    mirror.objects()
    mirror.objects()
    comes(lambda: mirror.connections == 1)
    lists = mirror.lists
    mirror.forget()
    mirror.objects()
    assert mirror.lists == lists + 1


def test_what_is_at_hand_is_never_older_than_it_may_be(stub: Any) -> None:
    at = [0.0]
    mirror = Mirror(api.Api("test"), f"/api/v1/namespaces/{stub.namespace}/pods", relist_s=30.0, clock=lambda: at[0])
    mirror.objects()
    mirror.objects()
    comes(lambda: mirror.connections == 1)
    lists = mirror.lists
    mirror.objects()
    assert mirror.lists == lists
    at[0] = 31.0
    mirror.objects()
    assert mirror.lists == lists + 1 and mirror.age_s == 0.0
    mirror.close()


def test_a_server_that_is_gone_is_told_and_what_was_known_is_not_given_out(stub: Any, mirror: Mirror) -> None:
    make(stub, "one")
    mirror.objects()
    mirror.objects()
    comes(lambda: mirror.connections == 1)
    stub.server.down()
    comes(lambda: not mirror._in_step)
    with pytest.raises(Unavailable):
        mirror.objects()
    stub.server.up()
    comes(lambda: set(mirror.objects()) == {"one"})


def test_a_watched_provider_sees_what_it_did_at_once(stub: Any) -> None:
    watched = Kubernetes(clock=lambda: timezone.now() + timedelta(seconds=10))
    pool = started(stub, watched, 2)
    for _ in range(3):
        assert len(watched.observe(pool).instances) == 2
    watched.resize(pool, wanted=3)
    assert watched.observe(pool).wanted == 3
    stub.settle()
    comes(lambda: len(watched.observe(pool).instances) == 3)
    watched.close()
    stub.server.bookmark()
