"""Pools as Deployments: made, sized, changed and stopped, on the stub or on a real API server."""

from __future__ import annotations

from typing import Any

import factories
import pytest
from django.utils import timezone

from fleet.models import Pool, PoolOffer, Worker
from fleet.providers.base import NoCapacity, Refused
from fleet.providers.kubernetes import objects, ranking
from fleet.providers.kubernetes.settings import Spec

pytestmark = pytest.mark.django_db


def sized(cluster: Any, provider: Any, pool: Pool, wanted: int, victims: list[Worker] | None = None) -> list[str]:
    """The active pods after a resize."""
    provider.resize(pool, wanted=wanted, victims=victims or [])
    cluster.settle()
    return cluster.active()


def worker_of(pool: Pool, name: str, state: str = "idle", **fields: Any) -> Worker:
    worker = factories.make_worker(pool, now=timezone.now(), state=state, **({"idle_since": None} if state != "idle" else {}), **fields)
    Worker.objects.filter(id=worker.id).update(instance=name)
    worker.instance = name
    return worker


def test_a_pool_of_nothing_has_nothing_in_the_cluster(cluster: Any, provider: Any) -> None:
    pool = cluster.pool()
    seen = provider.observe(pool)
    assert (seen.wanted, seen.instances) == (0, {}) and cluster.deployments() == {}


def test_a_pool_becomes_a_deployment_with_its_budget_and_its_token(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a")
    pool = cluster.pool()
    names = sized(cluster, provider, pool, 2)
    assert len(names) == 2
    deployment = cluster.deployment()
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert deployment["spec"]["replicas"] == 2
    assert container["image"] == pool.image and container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    assert container["securityContext"]["readOnlyRootFilesystem"] and container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["terminationGracePeriodSeconds"] == 900
    env = {e["name"]: e for e in container["env"]}
    assert env["COMFYPLANE_INSTANCE"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    secret = env["COMFYPLANE_POOL_TOKEN"]["valueFrom"]["secretKeyRef"]
    held = cluster.nodes.admin.call("GET", f"/api/v1/namespaces/{cluster.namespace}/secrets/{secret['name']}")
    assert set(held["data"]) == {"token"}
    for version in ("v1", "v1beta1"):
        path = f"/apis/policy/{version}/namespaces/{cluster.namespace}/poddisruptionbudgets/{deployment['metadata']['name']}"
        if (budget := cluster.nodes.admin.call("GET", path, missing=True)) is not None:
            assert budget["spec"]["selector"] == deployment["spec"]["selector"]
            break
    else:
        pytest.fail("no disruption budget")


def test_running_pods_are_seen_by_name_with_what_is_known_of_them(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a")
    pool = cluster.pool(settings={"zone": "", "node_selector": {}})
    (name,) = sized(cluster, provider, pool, 1)
    seen = provider.observe(pool).instances[name]
    assert (seen.phase, seen.failed, seen.why) == ("running", False, "")
    assert (seen.gpu, seen.market, seen.image) == ("L4", "on_demand", pool.image)
    assert seen.ref["pod"] == name and seen.ref["namespace"] == cluster.namespace


def test_saying_the_same_count_again_changes_nothing(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a")
    pool = cluster.pool()
    before = sized(cluster, provider, pool, 3)
    version = cluster.deployment()["metadata"]["generation"]
    assert sized(cluster, provider, pool, 3) == before
    assert provider.tend(pool) == []
    assert cluster.deployment()["metadata"]["generation"] == version


def test_another_controller_finds_what_the_first_one_made(cluster: Any, provider: Any) -> None:
    from fleet.providers.kubernetes import Kubernetes

    cluster.nodes.add("node-a")
    pool = cluster.pool()
    names = sized(cluster, provider, pool, 2)
    other = Kubernetes(watched=False)
    assert sorted(other.observe(pool).instances) == names
    other.resize(pool, wanted=3)
    cluster.settle()
    assert len(cluster.active()) == 3 and set(names) < set(cluster.active())


def test_the_victims_go_and_nobody_else(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a")
    pool = cluster.pool()
    names = sized(cluster, provider, pool, 4)
    workers = {name: worker_of(pool, name) for name in names}
    victims = [workers[names[1]], workers[names[2]]]
    assert sized(cluster, provider, pool, 2, victims) == [names[0], names[3]]


def test_a_victim_goes_though_a_loading_pod_would_be_taken_first(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a")
    pool = cluster.pool()
    names = sized(cluster, provider, pool, 3)
    loading = names[0]
    cluster.nodes.ready = lambda pod: pod["metadata"]["name"] != loading
    cluster.settle()
    victim = worker_of(pool, names[2])
    worker_of(pool, names[1], "busy")
    worker_of(pool, loading, "loading", ready_at=None)
    left = sized(cluster, provider, pool, 2, [victim])
    assert left == sorted([loading, names[1]])


def test_a_busy_pod_that_is_not_ready_is_never_taken_for_a_victim(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a")
    pool = cluster.pool()
    names = sized(cluster, provider, pool, 3)
    busy = names[0]
    cluster.nodes.ready = lambda pod: pod["metadata"]["name"] != busy
    cluster.settle()
    worker_of(pool, busy, "busy")
    victim = worker_of(pool, names[1])
    worker_of(pool, names[2])
    with pytest.raises(Exception, match="busy pod"):
        provider.resize(pool, wanted=2, victims=[victim])
    cluster.settle()
    assert busy in cluster.active() and provider.observe(pool).wanted == 3


def test_without_victims_only_pods_that_never_served_go(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a", gpus=2)
    pool = cluster.pool()
    names = sized(cluster, provider, pool, 4)
    placed = [p["metadata"]["name"] for p in cluster.pods() if p["spec"].get("nodeName")]
    assert len(names) == 4 and len(placed) == 2
    for name in placed:
        worker_of(pool, name)
    assert sized(cluster, provider, pool, 0) == sorted(placed)
    assert provider.observe(pool).wanted == 2


def test_busy_pods_are_made_dear_and_idle_ones_less(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a")
    pool = cluster.pool()
    names = sized(cluster, provider, pool, 3)
    worker_of(pool, names[0], "busy")
    worker_of(pool, names[1], idle_since=timezone.now() - timezone.timedelta(seconds=300))
    worker_of(pool, names[2], "starting", ready_at=None)
    provider.tend(pool)
    costs = {p["metadata"]["name"]: ranking.cost(p) for p in cluster.pods()}
    assert [costs[n] for n in names] == [ranking.BUSY, ranking.IDLE, 0]


def test_stopping_a_pod_lowers_the_count_by_it(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a")
    pool = cluster.pool()
    names = sized(cluster, provider, pool, 3)
    for name in names:
        worker_of(pool, name)
    ref = provider.observe(pool).instances[names[1]].ref
    provider.stop(ref, force=True)
    provider.stop(ref, force=True)
    cluster.settle()
    assert cluster.active() == [names[0], names[2]] and provider.observe(pool).wanted == 2


def test_stopping_what_is_gone_does_nothing(cluster: Any, provider: Any) -> None:
    pool = cluster.pool()
    provider.stop({"pod": "nobody", "uid": "x", "namespace": cluster.namespace, "context": "test"}, force=True)
    provider.stop({}, force=True)
    provider.forget("nobody", {"pod": "nobody", "namespace": cluster.namespace, "context": "test"})
    assert provider.observe(pool).wanted == 0


def test_a_new_image_comes_in_while_the_count_stays(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a")
    pool = cluster.pool()
    old = sized(cluster, provider, pool, 2)
    pool.image = "registry.example/comfyplane-worker@sha256:" + "b" * 64
    pool.save()
    assert provider.tend(pool)
    for _ in range(6):
        cluster.settle()
    names = cluster.active()
    assert len(names) == 2 and not set(names) & set(old)
    assert {i.image for i in provider.observe(pool).instances.values()} == {pool.image}
    assert provider.tend(pool) == []


def test_what_somebody_edits_by_hand_is_put_right(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a")
    pool = cluster.pool()
    sized(cluster, provider, pool, 1)
    held = cluster.deployment()
    held["spec"]["template"]["spec"]["containers"][0]["image"] = "somebody/else:latest"
    held |= {"apiVersion": "apps/v1", "kind": "Deployment"}
    cluster.nodes.admin.call("PUT", f"/apis/apps/v1/namespaces/{cluster.namespace}/deployments/{held['metadata']['name']}", held)
    assert provider.tend(pool)
    assert cluster.deployment()["spec"]["template"]["spec"]["containers"][0]["image"] == pool.image


def test_kinds_of_machine_are_deployments_of_their_own_tried_in_order(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a", labels={"gpu": "l4"})
    cluster.nodes.add("node-b", labels={"gpu": "a10"})
    pool = cluster.pool()
    first = PoolOffer.objects.create(pool=pool, rank=1, gpu="L4", price_per_hour_microusd=700_000, most=2, placement={"node_selector": {"gpu": "l4"}})
    second = PoolOffer.objects.create(pool=pool, rank=2, gpu="A10", price_per_hour_microusd=900_000, placement={"node_selector": {"gpu": "a10"}})
    sized(cluster, provider, pool, 3)
    counts = {d["metadata"]["labels"][objects.OFFER]: d["spec"]["replicas"] for d in cluster.deployments().values()}
    assert counts == {str(first.id): 2, str(second.id): 1}
    seen = provider.observe(pool)
    assert seen.wanted == 3
    assert sorted(i.gpu for i in seen.instances.values()) == ["A10", "L4", "L4"]
    assert {i.ref["offer"] for i in seen.instances.values()} == {first.id, second.id}


def test_a_kind_that_cannot_be_had_is_left_for_the_next(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-b", labels={"gpu": "a10"})
    pool = cluster.pool()
    full = timezone.now() + timezone.timedelta(minutes=5)
    PoolOffer.objects.create(pool=pool, rank=1, gpu="L4", price_per_hour_microusd=1, unavailable_until=full)
    second = PoolOffer.objects.create(pool=pool, rank=2, gpu="A10", price_per_hour_microusd=2, most=1, placement={"node_selector": {"gpu": "a10"}})
    with pytest.raises(NoCapacity, match="1 of the 2"):
        provider.resize(pool, wanted=2)
    cluster.settle()
    (only,) = provider.observe(pool).instances.values()
    assert only.ref["offer"] == second.id


def test_a_pod_nobody_can_place_says_why_and_is_short_after_a_while(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a", gpus=0)
    pool = cluster.pool(settings={"patience_s": 10})
    PoolOffer.objects.create(pool=pool, rank=1, gpu="L4", price_per_hour_microusd=1)
    (name,) = sized(cluster, provider, pool, 1)
    seen = provider.observe(pool).instances[name]
    assert seen.phase == "pending" and not seen.failed and not seen.short and "nvidia.com/gpu" in seen.why
    provider.clock = lambda: timezone.now() + timezone.timedelta(seconds=30)
    assert provider.observe(pool).instances[name].short


def test_taints_are_stood_where_the_pool_says_so(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a", taints=[{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}])
    pool = cluster.pool(settings={"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]})
    (name,) = sized(cluster, provider, pool, 1)
    assert provider.observe(pool).instances[name].phase == "running"


@pytest.mark.parametrize(
    ("how", "phase", "failed", "says"),
    [
        ("crash", "pending", True, "The engine crashed 3 times in a row"),
        ("oom", "running", False, "OOMKilled"),
        ("left", "ended", False, "left"),
        ("evicted", "ended", True, "low on resource: memory"),
    ],
)
def test_what_goes_wrong_in_a_pod_is_said(cluster: Any, provider: Any, how: str, phase: str, failed: bool, says: str) -> None:
    cluster.nodes.add("node-a")
    pool = cluster.pool()
    provider.resize(pool, wanted=1)
    cluster.settle()
    (name,) = cluster.active()
    cluster.nodes.how[name] = how
    cluster.nodes.step()
    seen = provider.observe(pool).instances[name]
    assert (seen.phase, seen.failed) == (phase, failed) and says in seen.why


def test_an_image_that_cannot_be_had_fails_after_a_minute(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a")
    cluster.nodes.how["comfyplane-worker"] = "image"
    pool = cluster.pool()
    (name,) = sized(cluster, provider, pool, 1)
    assert not provider.observe(pool).instances[name].failed
    provider.clock = lambda: timezone.now() + timezone.timedelta(seconds=90)
    seen = provider.observe(pool).instances[name]
    assert seen.failed and "ImagePullBackOff" in seen.why and pool.image in seen.why


def test_a_pod_that_was_told_to_go_is_stopping_until_its_job_is_done(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a")
    pool = cluster.pool()
    (name,) = sized(cluster, provider, pool, 1)
    cluster.nodes.holding.add(name)
    provider.resize(pool, wanted=0, victims=[worker_of(pool, name)])
    cluster.settle()
    assert provider.observe(pool).instances[name].phase == "stopping" and provider.observe(pool).wanted == 0
    cluster.nodes.holding.clear()
    cluster.settle()
    assert provider.observe(pool).instances == {}


def test_a_kind_of_machine_that_is_no_more_leaves_no_deployment_behind(cluster: Any, provider: Any) -> None:
    pool = cluster.pool()
    offer = PoolOffer.objects.create(pool=pool, rank=1, gpu="L4", price_per_hour_microusd=1)
    sized(cluster, provider, pool, 1)
    sized(cluster, provider, pool, 0)
    offer.delete()
    assert "deleted" in provider.tend(pool)[0]
    assert cluster.deployments() == {}


def test_two_pools_do_not_see_each_other(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a")
    one, two = cluster.pool(), cluster.pool()
    provider.resize(one, wanted=1)
    provider.resize(two, wanted=2)
    cluster.settle()
    assert (len(provider.observe(one).instances), len(provider.observe(two).instances)) == (1, 2)


def test_a_deployment_of_somebody_else_is_left_alone(cluster: Any, provider: Any) -> None:
    pool = cluster.pool()
    kind = objects.Kind("another", pool.slug, 0, "L4", "on_demand", pool.image, "http://x", Spec())
    cluster.nodes.admin.call("POST", f"/apis/apps/v1/namespaces/{cluster.namespace}/deployments", objects.deployment(kind))
    with pytest.raises(Refused, match="somebody else"):
        provider.resize(pool, wanted=2)
    assert cluster.deployment()["spec"]["replicas"] == 0


def test_a_pool_without_an_image_is_refused_in_words(cluster: Any, provider: Any) -> None:
    with pytest.raises(Refused, match="has no image"):
        provider.resize(cluster.pool(image=""), wanted=1)


def test_settings_that_make_no_sense_are_refused_in_words(cluster: Any, provider: Any) -> None:
    with pytest.raises(Refused, match="memory"):
        provider.resize(cluster.pool(settings={"memory": "lots"}), wanted=1)
