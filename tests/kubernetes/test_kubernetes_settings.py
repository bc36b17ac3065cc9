"""What a pool's settings may say, and what comes of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.kernel.errors import Invalid
from fleet.providers.kubernetes import objects
from fleet.providers.kubernetes.settings import SETTINGS, ZONE, Spec, read


def kind(**settings: Any) -> objects.Kind:
    return objects.Kind("i", "sdxl", 0, "L4", "on_demand", "image", "http://plane", read(settings))


def test_nothing_said_gives_the_defaults() -> None:
    assert read({}) == Spec() and all(setting.help for setting in SETTINGS.values())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"memmory": "1Gi"}, "memmory"),
        ({"memory": "lots"}, "amount"),
        ({"memory": "0"}, "above zero"),
        ({"memory": -1}, "amount"),
        ({"gpus": 1.5}, "whole number"),
        ({"gpus": True}, "whole number"),
        ({"gpus": 65}, "64"),
        ({"namespace": "Not A Name"}, "name"),
        ({"namespace": "../secrets"}, "name"),
        ({"node_selector": {"a b": "c"}}, "a b"),
        ({"node_selector": {"a": "b c"}}, "b c"),
        ({"node_selector": ["a"]}, "object"),
        ({"tolerations": {"key": "x"}}, "list"),
        ({"tolerations": [{"key": "x", "operator": "Sometimes"}]}, "tolerations"),
        ({"tolerations": [{"operator": "Equal", "value": "x"}]}, "tolerations"),
        ({"tolerations": [{"operator": "Exists", "value": "x"}]}, "tolerations"),
        ({"tolerations": [{"key": "x", "unknown": 1}]}, "key, operator"),
        ({"env": {"COMFYPLANE_URL": "http://elsewhere"}}, "set by Comfyplane"),
        ({"labels": {"comfyplane.io/pool": "other"}}, "set by Comfyplane"),
        ({"labels": {"app.kubernetes.io/name": "other"}}, "set by Comfyplane"),
        ({"url": "file:///etc/passwd"}, "address"),
        ({"run_as": 0}, "whole number"),
        ({"read_nodes": "yes"}, "true or false"),
        ({"image_pull_policy": "Sometimes"}, "IfNotPresent"),
        ({"drain_s": 5}, "10"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid) as told:
        read(settings)
    assert says in str(told.value.details) + told.value.message


def test_a_kind_of_machine_adds_to_the_pools_nodes_and_goes_before_its_figures() -> None:
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists"}
    spot = {"key": "spot", "operator": "Exists"}
    found = read(
        {"memory": "8Gi", "node_selector": {"a": "1", "b": "1"}, "tolerations": [gpu], "namespace": "x"},
        {"memory": "16Gi", "node_selector": {"b": "2"}, "tolerations": [gpu, spot], "zone": "eu-1a", "namespace": "y"},
    )
    assert (found.memory, found.namespace, found.nodes) == ("16Gi", "x", {"a": "1", "b": "2", ZONE: "eu-1a"})
    assert found.tolerations == (gpu, spot)


def test_a_processor_pool_asks_for_no_gpu_and_several_are_asked_where_said() -> None:
    def limits(**more: Any) -> dict[str, str]:
        made = objects.Kind("i", "p", 0, more.pop("gpu", "cpu"), "on_demand", "image", "http://plane", read(more))
        found: dict[str, str] = objects.template(made)["spec"]["containers"][0]["resources"]["limits"]
        return found

    assert "nvidia.com/gpu" not in limits()
    assert limits(gpu="L4")["nvidia.com/gpu"] == "1"
    assert limits(gpu="L4", gpus=2, gpu_resource="amd.com/gpu")["amd.com/gpu"] == "2"


def test_models_lie_on_a_claim_or_in_the_pod() -> None:
    def models(**more: Any) -> dict[str, Any]:
        (found,) = [v for v in objects.template(kind(**more))["spec"]["volumes"] if v["name"] == "models"]
        return dict(found)

    assert models()["emptyDir"] == {"sizeLimit": "100Gi"}
    assert models(models_claim="weights")["persistentVolumeClaim"] == {"claimName": "weights"}


@given(st.from_regex(r"[a-z0-9]([-_a-z0-9]{0,58}[a-z0-9])?", fullmatch=True), st.integers(0, 10**6))
def test_every_pool_gets_a_name_that_kubernetes_takes_and_pods_can_carry(slug: str, offer: int) -> None:
    name = objects.name_of(slug, offer)
    assert len(name) <= 46 and name.replace("-", "").isalnum() and name == name.lower() and "_" not in name


def test_pools_with_like_names_do_not_share_a_deployment() -> None:
    names = {objects.name_of(slug) for slug in ("a_b", "a-b", "A-b", "x" * 40, "x" * 41, "x" * 42)}
    assert len(names) == 6


@pytest.mark.parametrize(
    ("wanted", "found", "lacks"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1}, {"a": 2}, True),
        ({"a": {}}, {"b": 1}, False),
        ({"a": {"emptyDir": {}}}, {"a": {"emptyDir": {}}}, False),
        ([1, {"x": 1}], [1, {"x": 1, "y": 2}], False),
        ([1], [1, 2], True),
        ({"a": 1}, None, True),
        ({"a": None}, {}, False),
    ],
)
def test_only_what_is_wanted_counts_as_drift(wanted: Any, found: Any, lacks: bool) -> None:
    assert objects.lacks(wanted, found) is lacks
