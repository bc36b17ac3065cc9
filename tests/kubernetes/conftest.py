"""A cluster to test against: the API server of `kube_server` with played controllers, or a real one when KUBECONFIG_TEST names it.

The same tests run on both. Pods run nowhere in either: hollow nodes say what kubelets would. `COMFYPLANE_REQUIRE_KUBERNETES=1` makes a
missing or broken real API server an error.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import secrets
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import factories
import pytest
import yaml
from django.utils import timezone

from fleet.models import Pool


def _load(name: str) -> Any:
    # importlib mode puts no test directory on the path.
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


_load("kube_schemas")
kube_server, kube_nodes, kube_controllers = _load("kube_server"), _load("kube_nodes"), _load("kube_controllers")

ROOT = Path(__file__).resolve().parents[2]
REAL = os.environ.get("KUBECONFIG_TEST", "")
IMAGE = "registry.example/comfyplane-worker@sha256:" + "a" * 64


@functools.cache
def role(name: str) -> dict[str, Any]:
    """The Role, or ClusterRole, that deploy/ gives the controller."""
    for path in (ROOT / "deploy").rglob("role.yaml"):
        for item in yaml.safe_load_all(path.read_text()):
            if item["metadata"]["name"] == name:
                return dict(item)
    raise AssertionError(f"deploy/ has no role {name}")


class Cluster:
    """What tests ask of either kind of cluster."""

    real = False

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.nodes: Any
        self.kubeconfig = ""

    def settle(self) -> None:
        """Let controllers and hollow nodes do what they would until nothing changes."""
        raise NotImplementedError

    def pods(self) -> list[dict[str, Any]]:
        return sorted(self.nodes.pods(), key=lambda p: p["metadata"]["name"])

    def active(self) -> list[str]:
        return [
            p["metadata"]["name"] for p in self.pods() if "deletionTimestamp" not in p["metadata"] and p["status"].get("phase") not in ("Failed", "Succeeded")
        ]

    def deployments(self) -> dict[str, dict[str, Any]]:
        found = self.nodes.admin.call("GET", f"/apis/apps/v1/namespaces/{self.namespace}/deployments")["items"]
        return {d["metadata"]["name"]: d for d in found}

    def deployment(self) -> dict[str, Any]:
        (only,) = self.deployments().values()
        return only

    def pool(self, **fields: Any) -> Pool:
        wanted = {"provider": "kubernetes", "gpu": "L4", "image": IMAGE, "base": 0, "max": 10} | fields
        wanted["settings"] = {"namespace": self.namespace, "context": "test", "cpu": "1", "memory": "1Gi"} | wanted.get("settings", {})
        return factories.make_pool(now=timezone.now(), **wanted)


class Stub(Cluster):
    def __init__(self, folder: Path) -> None:
        super().__init__("pools")
        self.server = kube_server.Server()
        self.controllers = kube_controllers.Controllers(self.server, self.namespace)
        self.nodes = kube_nodes.Nodes(kube_nodes.Admin(self.server.url, kube_server.ADMIN), self.namespace)
        self.eager = True
        """Whether controllers act on each write at once, or only when things settle."""
        self.server.changed = lambda: self.controllers.settle() if self.eager else None
        rules = kube_server.role_rules(role("comfyplane-pools")["rules"])
        self.cluster_rules: set[tuple[str, str, str]] = set()
        self.server.allowed = lambda verb, group, resource, namespace: (verb, group, resource) in (rules if namespace == self.namespace else self.cluster_rules)
        self.kubeconfig = kubeconfig(folder, self.server.url, kube_server.TOKEN)

    def settle(self) -> None:
        for _ in range(20):
            before = self.server.version
            self.controllers.settle()
            self.nodes.step()
            if self.server.version == before:
                return
        raise AssertionError("nodes and controllers do not settle")


class Real(Cluster):
    real = True
    PATIENCE_S = 30.0

    def __init__(self, folder: Path) -> None:
        super().__init__(f"test-{secrets.token_hex(4)}")
        given = yaml.safe_load(Path(REAL).read_text())
        server, user = given["clusters"][0]["cluster"], given["users"][0]["user"]
        admin = kube_nodes.Admin(server["server"], user["token"], ca=server.get("certificate-authority", ""))
        admin.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        self.nodes = kube_nodes.Nodes(admin, self.namespace)
        token = self._controller(admin)
        self.kubeconfig = kubeconfig(folder, server["server"], token, ca=server.get("certificate-authority", ""))
        self._until(lambda: admin.call("GET", f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default", missing=True))

    def _controller(self, admin: Any) -> str:
        """A service account that may do what deploy/ says, and nothing else."""
        held = role("comfyplane-pools") | {"metadata": {"name": "comfyplane-pools"}}
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}"
        admin.call("POST", f"{rbac}/roles", held)
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "controller"}}
        admin.call("POST", f"/api/v1/namespaces/{self.namespace}/serviceaccounts", account)
        subject = {"kind": "ServiceAccount", "name": "controller", "namespace": self.namespace}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "comfyplane-pools"}
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "controller"},
            "subjects": [subject],
            "roleRef": reference,
        }
        admin.call("POST", f"{rbac}/rolebindings", binding)
        wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {"audiences": []}}
        made = admin.call("POST", f"/api/v1/namespaces/{self.namespace}/serviceaccounts/controller/token", wanted)
        return str(made["status"]["token"])

    def settle(self) -> None:
        def quiet() -> bool:
            if not self._behind():  # a real node takes seconds to get a pod ready, longer than controllers take to act
                self.nodes.step()
            for d in self.deployments().values():
                if d["status"].get("observedGeneration", 0) < d["metadata"]["generation"]:
                    return False
                failing = any(c["type"] == "ReplicaFailure" for c in d["status"].get("conditions", ()))
                wanted, living = d["spec"]["selector"]["matchLabels"], self.active()
                active = [p for p in self.pods() if wanted.items() <= p["metadata"]["labels"].items() and p["metadata"]["name"] in living]
                if not failing and len(active) != d["spec"]["replicas"]:
                    return False
            said = all(p["spec"].get("nodeName") or p["status"].get("conditions") for p in self.pods())
            return said and not any("deletionTimestamp" in p["metadata"] and not self._stays(p) for p in self.pods())

        self._until(quiet)
        self.nodes.step()

    def _behind(self) -> bool:
        """Whether a controller has yet to take pods back: a count went down that it has not heard of."""
        if any(d["status"].get("observedGeneration", 0) < d["metadata"]["generation"] for d in self.deployments().values()):
            return True
        sets = self.nodes.admin.call("GET", f"/apis/apps/v1/namespaces/{self.namespace}/replicasets")["items"]
        active = set(self.active())
        living = [p for p in self.pods() if p["metadata"]["name"] in active]
        owned = Counter(owner["uid"] for p in living for owner in p["metadata"].get("ownerReferences") or ())
        return any(owned[one["metadata"]["uid"]] > one["spec"]["replicas"] for one in sets)

    def _stays(self, pod: dict[str, Any]) -> bool:
        return pod["metadata"]["name"] in self.nodes.holding or pod["spec"].get("nodeName") in self.nodes.lost

    def _until(self, true: Callable[[], Any]) -> None:
        pause = threading.Event()
        for _ in range(int(self.PATIENCE_S / 0.1)):
            if true():
                return
            pause.wait(0.1)
        raise AssertionError("the cluster did not get there")

    def close(self) -> None:
        for pod in self.nodes.pods():
            self.nodes.delete(pod["metadata"]["name"])
        self.nodes.admin.call("DELETE", f"/api/v1/namespaces/{self.namespace}", missing=True)
        for name in self.nodes.names:
            self.nodes.admin.call("DELETE", f"/api/v1/nodes/{name}", missing=True)


def kubeconfig(folder: Path, url: str, token: str, *, ca: str = "") -> str:
    path = folder / "kubeconfig"
    cluster = {"server": url} | ({"certificate-authority": ca} if ca else {})
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": "test", "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
                "current-context": "test",
            }
        )
    )
    return str(path)


@pytest.fixture
def roles() -> Callable[[str], set[tuple[str, str, str]]]:
    """(verb, group, resource) of each rule of a Role in deploy/."""
    return lambda name: kube_server.role_rules(role(name)["rules"])


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """The stub alone, for faults that nobody can ask of a real server."""
    found = Stub(tmp_path)
    monkeypatch.setenv("KUBECONFIG", found.kubeconfig)
    yield found
    found.server.down()
    assert found.server.refused == [] or getattr(found, "refusals_expected", False), found.server.refused


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The stub, or a namespace of the real API server that KUBECONFIG_TEST names."""
    if not REAL:
        if os.environ.get("COMFYPLANE_REQUIRE_KUBERNETES") == "1":
            pytest.fail("KUBECONFIG_TEST names no API server")
        yield request.getfixturevalue("stub")
        return
    found = Real(tmp_path)
    monkeypatch.setenv("KUBECONFIG", found.kubeconfig)
    yield found
    found.close()


@pytest.fixture
def provider() -> Iterator[Any]:
    """Without watches: every look asks the server. Pods as young as they come are shown."""
    from fleet.providers.kubernetes import Kubernetes, reading

    held, reading.YOUNG_S = reading.YOUNG_S, -1.0
    made = Kubernetes(watched=False)
    yield made
    made.close()
    reading.YOUNG_S = held
