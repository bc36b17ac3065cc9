"""Pods in words, whom a ReplicaSet takes first, and how a count is spread."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.providers.kubernetes import ranking, reading, spreading
from fleet.providers.kubernetes.api import refusal, retry_after
from fleet.providers.kubernetes.settings import ZONE
from fleet.sizing.offers import Offer

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def pod(*, age_s: float = 600, node: str = "n", status: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
    made = (NOW - timedelta(seconds=age_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {"name": "p", "uid": "u", "namespace": "ns", "creationTimestamp": made, "labels": {}, **meta},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 900, "containers": [{"name": "agent", "image": "i"}]},
        "status": {"phase": "Running", **(status or {})},
    }


def waiting(reason: str, **more: Any) -> dict[str, Any]:
    return {"phase": "Pending", "containerStatuses": [{"name": "agent", "image": "i", "state": {"waiting": {"reason": reason, "message": "because"}}, **more}]}


@pytest.mark.parametrize(
    ("status", "age_s", "phase", "failed", "says"),
    [
        (waiting("ContainerCreating"), 600, "pending", False, "because"),
        (waiting("ErrImagePull"), 5, "pending", False, "cannot be had"),
        (waiting("ImagePullBackOff"), 100, "pending", True, "ImagePullBackOff"),
        (waiting("InvalidImageName"), 1, "pending", True, "InvalidImageName"),
        (waiting("ErrImageNeverPull"), 1, "pending", True, "cannot be had"),
        (waiting("CreateContainerConfigError"), 1, "pending", True, "cannot be made"),
        (waiting("CrashLoopBackOff", restartCount=4), 600, "pending", True, "4 times"),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk"}, 600, "ended", True, "Evicted"),
        ({"phase": "Succeeded"}, 600, "ended", False, ""),
        ({"phase": "Pending"}, 600, "pending", False, ""),
    ],
)
def test_what_a_status_means(status: dict[str, Any], age_s: float, phase: str, failed: bool, says: str) -> None:
    seen = reading.instance(pod(age_s=age_s, status=status), now=NOW)
    assert seen is not None and (seen.phase, seen.failed) == (phase, failed) and says in seen.why


def test_words_of_a_pod_are_bounded() -> None:
    seen = reading.instance(pod(status={"phase": "Failed", "reason": "Evicted", "message": "x" * 10_000}), now=NOW)
    assert seen is not None and len(seen.why) == reading.MOST_WORDS


def test_a_pod_that_is_nowhere_and_just_made_or_going_is_not_shown() -> None:
    assert reading.instance(pod(age_s=1, node=""), now=NOW) is None
    assert reading.instance(pod(age_s=60, node="", deletionTimestamp="2026-03-02T12:00:00Z"), now=NOW) is None
    assert reading.instance(pod(age_s=60, node=""), now=NOW) is not None


def test_a_pod_of_a_node_about_to_go_has_notice() -> None:
    node = {
        "metadata": {"labels": {ZONE: "eu-1a", "karpenter.sh/capacity-type": "spot"}},
        "spec": {"taints": [{"key": "aws-node-termination-handler/spot-itn"}]},
    }
    seen = reading.instance(pod(), node=node, now=NOW)
    assert seen is not None and (seen.preempt_in_s, seen.market, seen.zone) == (120.0, "spot", "eu-1a")
    assert "about to be taken away" in seen.why


def test_a_pod_being_evicted_has_as_long_as_its_grace() -> None:
    target = {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}]}
    seen = reading.instance(pod(status=target, deletionTimestamp="2026-03-02T12:02:00Z"), now=NOW)
    assert seen is not None and seen.preempt_in_s == 120.0 and "EvictionByEvictionAPI" in seen.why
    own = reading.instance(pod(deletionTimestamp="2026-03-02T12:02:00Z"), now=NOW)
    assert own is not None and own.preempt_in_s is None


@pytest.mark.parametrize(
    ("labels", "market"),
    [
        ({"eks.amazonaws.com/capacityType": "SPOT"}, "spot"),
        ({"eks.amazonaws.com/capacityType": "ON_DEMAND"}, "on_demand"),
        ({"cloud.google.com/gke-spot": "true"}, "spot"),
        ({"kubernetes.azure.com/scalesetpriority": "spot"}, "spot"),
        ({}, "as said"),
    ],
)
def test_the_market_is_the_nodes_where_it_says_so(labels: dict[str, str], market: str) -> None:
    held = pod(labels={"comfyplane.io/market": "as said"})
    seen = reading.instance(held, node={"metadata": {"labels": labels}}, now=NOW)
    assert seen is not None and seen.market == market


# Whom a ReplicaSet takes


@st.composite
def pods(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for index in range(draw(st.integers(1, 7))):
        node = draw(st.sampled_from(["", "a", "b"]))
        phase = draw(st.sampled_from(["Pending", "Running"])) if node else "Pending"
        made = pod(age_s=draw(st.integers(0, 3)), node=node, name=f"p{index}", annotations={ranking.COST: str(draw(st.sampled_from([-1000, 0, 500, 1000])))})
        ready = "True" if phase == "Running" and draw(st.booleans()) else "False"
        restarts = draw(st.integers(0, 2))
        made["status"] = {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [{"name": "agent", "restartCount": restarts}],
        }
        found.append(made)
    return found


def weight(one: dict[str, Any]) -> tuple[Any, ...]:
    """What both rank by before it comes to nodes."""
    return (ranking.placed(one), one["status"]["phase"] == "Running", ranking.ready(one), ranking.cost(one))


@given(pods(), st.integers(0, 7))
def test_the_order_is_that_of_the_real_replica_set(found: list[dict[str, Any]], count: int) -> None:
    taken = sys.modules["kube_controllers"]._to_delete(found, min(count, len(found)))
    by_name = {p["metadata"]["name"]: p for p in found}
    ours = [by_name[name] for name in ranking.order(found)][: len(taken)]
    assert sorted(map(weight, ours)) == sorted(map(weight, taken))


@given(pods(), st.sets(st.integers(0, 6)))
def test_a_prefix_holds_only_what_may_go(found: list[dict[str, Any]], chosen: set[int]) -> None:
    ranked = ranking.order(found)
    may_go = {f"p{index}" for index in chosen}
    first = ranking.prefix(ranked, may_go)
    assert set(ranked[:first]) <= may_go and (first == len(ranked) or ranked[first] not in may_go)


# How a count is spread


def choice(id_: int, **more: Any) -> spreading.Choice:
    return spreading.Choice(f"d{id_}", Offer(**({"id": id_, "rank": id_, "market": "on_demand", "price_per_hour_microusd": id_} | more)))


def test_missing_ones_are_had_in_order_and_what_cannot_be_had_is_told() -> None:
    plan = spreading.plan([], [choice(1, most=2), choice(2, available=False), choice(3, most=1)], wanted=5, base=0, on_demand_share=1.0)
    assert (plan.more, plan.missing) == ({"d1": 2, "d3": 1}, 2)


def test_victims_go_where_they_are_and_what_nobody_misses_goes_from_the_last_kind() -> None:
    held = [spreading.Held("d1", 4, victims=1, loose=1), spreading.Held("d2", 3, loose=1), spreading.Held("old", 1, loose=1)]
    plan = spreading.plan(held, [choice(1), choice(2)], wanted=5, base=0, on_demand_share=1.0)
    assert plan.fewer == {"d1": 1, "old": 1, "d2": 1} and not plan.more


def test_a_pod_that_serves_and_was_not_named_stays() -> None:
    plan = spreading.plan([spreading.Held("d1", 4)], [choice(1)], wanted=1, base=0, on_demand_share=1.0)
    assert plan == spreading.Plan()


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4), st.integers(0, 4)), max_size=3),
    st.integers(0, 20),
    st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 6)), st.booleans()), min_size=1, max_size=3),
)
def test_a_plan_never_takes_more_than_may_go_and_adds_up(counts: list[tuple[int, int, int]], wanted: int, kinds: list[tuple[int | None, bool]]) -> None:
    held = [spreading.Held(f"d{i}", n, victims=min(v, n), loose=min(free, n - min(v, n))) for i, (n, v, free) in enumerate(counts, start=1)]
    choices = [choice(i, most=most, available=available) for i, (most, available) in enumerate(kinds, start=1)]
    plan = spreading.plan(held, choices, wanted=wanted, base=0, on_demand_share=1.0)
    for one in held:
        assert plan.fewer.get(one.name, 0) <= one.victims + one.loose
    after = sum(h.replicas for h in held) - sum(plan.fewer.values()) + sum(plan.more.values())
    assert after + plan.missing >= wanted
    if plan.more:
        assert after + plan.missing == wanted


# What the API server says


@pytest.mark.parametrize(
    ("value", "wait"), [("7", 7.0), ("0", 0.0), ("-5", 0.0), ("1e9", 600.0), (None, None), ("soon", None), ("Mon, 02 Mar 2020 12:00:00 GMT", 0.0)]
)
def test_retry_after_in_either_form(value: str | None, wait: float | None) -> None:
    assert retry_after(value) == wait


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'"x"', b"\xff\xfe", b'{"message": ["x"]}', b"x" * 100_000])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422, 429, 500, 503])
def test_whatever_it_says_becomes_a_bounded_sentence(status: int, data: bytes) -> None:
    assert 0 < len(str(refusal(status, data, {}))) < 500
