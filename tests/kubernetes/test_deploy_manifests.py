"""What deploy/ holds: taken by Kubernetes' schemas, hardened throughout, with the rights that are used and no others."""

from __future__ import annotations

import copy
import functools
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUSTOMIZE = ROOT / "deploy" / "kustomize"
BUILT = ("base", "pools", "overlays/example", "overlays/external")
NO_SCHEMA = {("keda.sh/v1alpha1", "ScaledObject")}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
KUBECTL = shutil.which("kubectl")


def _schemas() -> Any:
    name = "kube_schemas"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def manifests() -> list[tuple[str, dict[str, Any]]]:
    return copy.deepcopy(_manifests())


@functools.cache
def _manifests() -> list[tuple[str, dict[str, Any]]]:
    paths = [path for path in sorted(KUSTOMIZE.rglob("*.yaml")) if path.name != "kustomization.yaml"]
    return [(str(path.relative_to(KUSTOMIZE)), item) for path in paths for item in yaml.load_all(path.read_text(), LOADER)]


def podspecs() -> Iterator[tuple[str, dict[str, Any]]]:
    for where, item in manifests():
        if item["kind"] in ("Deployment", "Job"):
            yield f"{where} {item['metadata']['name']}", item["spec"]["template"]["spec"]


def found(kind: str, name: str) -> dict[str, Any]:
    (only,) = [item for _, item in manifests() if item["kind"] == kind and item["metadata"]["name"] == name]
    return only


@pytest.mark.parametrize("version", ["1.25", "1.31", "1.37"])
def test_every_manifest_is_taken_by_the_published_schema(version: str) -> None:
    wrong = {
        f"{where}: {item['kind']} {item['metadata']['name']}": said
        for where, item in manifests()
        if (item["apiVersion"], item["kind"]) not in NO_SCHEMA and (said := _schemas().refusals(item, version=version))
    }
    assert wrong == {}


def test_the_schemas_refuse_what_is_wrong() -> None:
    item = found("Deployment", "comfyplane-web")
    assert _schemas().refusals(item) == []
    item["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    assert "livenesProbe" in _schemas().refusals(item)[0]


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not here")
@pytest.mark.parametrize("what", BUILT)
def test_kubectl_builds_it_and_what_it_builds_is_valid(what: str) -> None:
    assert KUBECTL is not None
    made = subprocess.run([KUBECTL, "kustomize", str(KUSTOMIZE / what)], capture_output=True, text=True, check=True)
    items = [item for item in yaml.load_all(made.stdout, LOADER) if item]
    wrong = [f"{i['kind']} {i['metadata']['name']}: {w}" for i in items if (i["apiVersion"], i["kind"]) not in NO_SCHEMA for w in _schemas().refusals(i)]
    assert items and wrong == []
    homeless = [
        i["metadata"]["name"] for i in items if i["kind"] not in ("Namespace", "ClusterRole", "ClusterRoleBinding") and "namespace" not in i["metadata"]
    ]
    assert homeless == []


def test_every_file_is_part_of_a_kustomization() -> None:
    named = set()
    for path in KUSTOMIZE.rglob("kustomization.yaml"):
        held = yaml.safe_load(path.read_text())
        named |= {(path.parent / name).resolve() for name in held.get("resources", ())}
    loose = [p.name for p in KUSTOMIZE.rglob("*.yaml") if p.name != "kustomization.yaml" and p.resolve() not in named]
    assert loose == ["hpa.yaml"]  # in place of keda.yaml


def test_every_pod_is_hardened() -> None:
    for name, spec in podspecs():
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] and pod["runAsUser"] > 0 and pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is (name == "base/controller.yaml comfyplane-controller"), name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"] and context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"], name
            assert not any(secret in str(container.get("env")) for secret in ("change-me", "SECRET_KEY")), name


def test_every_process_with_a_port_is_probed_where_it_answers() -> None:
    probed = {}
    for name, spec in podspecs():
        for container in spec["containers"]:
            if container.get("ports"):
                probed[name] = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert probed == {
        "base/web.yaml comfyplane-web": {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz?without=loops"},
        "base/stream.yaml comfyplane-stream": {"startup": "/stream/healthz", "liveness": "/stream/healthz", "readiness": "/stream/healthz"},
    }


def test_every_budget_and_service_selects_the_pods_of_a_deployment() -> None:
    labels = [item["spec"]["template"]["metadata"]["labels"] for _, item in manifests() if item["kind"] in ("Deployment", "Job")]
    for where, item in manifests():
        if item["kind"] in ("PodDisruptionBudget", "Service"):
            selector = item["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            assert sum(1 for have in labels if selector.items() <= have.items()) == 1, f"{where} {item['metadata']['name']}"


def test_two_controllers_run_and_web_is_never_less_than_it_was() -> None:
    assert found("Deployment", "comfyplane-controller")["spec"]["replicas"] == 2
    assert found("Deployment", "comfyplane-web")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_pods_of_external_pools_are_those_the_controller_would_make() -> None:
    from fleet.providers.kubernetes import objects
    from fleet.providers.kubernetes.settings import Spec

    by_hand = found("Deployment", "pool-sdxl")["spec"]["template"]["spec"]
    url = by_hand["containers"][0]["env"][0]["value"]
    made = objects.template(objects.Kind("x", "sdxl", 0, "L4", "on_demand", by_hand["containers"][0]["image"], url, Spec()))["spec"]
    theirs, ours = by_hand["containers"][0], made["containers"][0]
    for field in ("securityContext", "volumeMounts", "readinessProbe", "livenessProbe", "resources"):
        assert theirs[field] == ours[field]
    assert [e["name"] for e in theirs["env"]] == [e["name"] for e in ours["env"]]
    assert by_hand["securityContext"] == made["securityContext"] and by_hand["volumes"] == made["volumes"]
    assert "replicas" not in found("Deployment", "pool-sdxl")["spec"]


def test_what_sets_external_pools_reads_the_metric_and_never_falls_to_none_without_it() -> None:
    (trigger,) = found("ScaledObject", "pool-sdxl")["spec"]["triggers"]
    assert 'comfyplane_pool_wanted_workers{pool="sdxl"}' in trigger["metadata"]["query"]
    assert trigger["metadata"]["ignoreNullValues"] == "false" and trigger["metadata"]["threshold"] == "1"
    (metric,) = found("HorizontalPodAutoscaler", "pool-sdxl")["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == "comfyplane_pool_wanted_workers" and metric["external"]["target"]["averageValue"] == "1"


def test_the_image_of_the_control_plane_runs_as_nobody_special_and_holds_no_secret() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    lines = text.splitlines()
    assert "USER 10001:10001" in lines and "# syntax" not in text and "--require-hashes" in text
    copied = [part for line in lines if line.startswith("COPY ") and "--from" not in line for part in line.split()[1:-1]]
    assert all((ROOT / part).exists() for part in copied)
    assert {"controlplane", "builds", "billing", "fleet", "manage.py"} <= set(copied)
    assert not any(word in text for word in ("SECRET_KEY", "DATABASE_URL"))
