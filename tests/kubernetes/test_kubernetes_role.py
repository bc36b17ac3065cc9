"""The Role in deploy/ is exactly what the provider does: nothing it does is refused, and nothing is allowed that it never does."""

from __future__ import annotations

import threading
from typing import Any

import factories
import pytest
from django.utils import timezone

from fleet.models import PoolOffer, Worker
from fleet.providers.kubernetes import Kubernetes

pytestmark = pytest.mark.django_db


def everything(stub: Any, **settings: Any) -> None:
    """All that a pool's life asks of the API server."""
    stub.nodes.add("node-a")
    pool = stub.pool(settings=settings)
    offer = PoolOffer.objects.create(pool=pool, rank=1, gpu="L4", price_per_hour_microusd=1)
    watched = Kubernetes()
    for _ in range(3):
        watched.observe(pool)
    watched.resize(pool, wanted=3)
    stub.settle()
    names = stub.active()
    for name in names:
        worker = factories.make_worker(pool, now=timezone.now(), state="busy", idle_since=None)
        Worker.objects.filter(id=worker.id).update(instance=name)
    watched.tend(pool)
    pool.settings |= {"max_unavailable": 2}
    pool.image = "registry.example/another"
    pool.save()
    watched.tend(pool)
    stub.settle()
    other = Kubernetes(watched=False)
    other.tend(pool)
    victim = Worker.objects.filter(instance__in=stub.active()).first()
    other.resize(pool, wanted=2, victims=[victim] if victim else [])
    stub.settle()
    ref = {"pod": stub.active()[0], "namespace": stub.namespace, "context": "test"}
    other.boot_log(ref)
    other.stop(ref)
    Worker.objects.update(state="idle")
    for name in stub.active():
        other.stop({"pod": name, "namespace": stub.namespace, "context": "test"}, force=True)
    stub.settle()
    offer.delete()
    assert other.tend(pool)
    pause = threading.Event()
    for _ in range(500):
        if {("watch", "", "pods"), ("watch", "apps", "deployments")} <= {entry[:3] for entry in stub.server.seen}:
            break
        pause.wait(0.01)
    watched.close()
    stub.server.bookmark()


def test_the_role_is_what_is_done_and_no_more(stub: Any, roles: Any) -> None:
    everything(stub)
    used = {(verb, group, resource) for verb, group, resource, namespace in stub.server.seen}
    assert used == roles("comfyplane-pools")
    assert {namespace for *_, namespace in stub.server.seen} == {stub.namespace}


def test_nodes_are_only_listed_and_only_where_the_pool_says_so(stub: Any, roles: Any) -> None:
    stub.cluster_rules = roles("comfyplane-nodes")
    everything(stub, read_nodes=True)
    assert {(v, g, r) for v, g, r, namespace in stub.server.seen if not namespace} == roles("comfyplane-nodes")
