"""A Docker engine for the tests of real builds: the one that answers, else, where it is promised, one of our own, started as root.

COMFYPLANE_REQUIRE_DOCKER=1 promises it: what is missing is then an error. COMFYPLANE_TEST_CACHE keeps the base image
between runs, which debootstrap takes a minute to make.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import factories
import pytest
from django.utils import timezone

from builds.images import building, running
from builds.locking import document as lock_document
from builds.models import Build, Lock, Version, Workflow


def _load(name: str) -> Any:
    # importlib mode puts no test directory on the path.
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


world = _load("docker_world")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "docker":
            item.add_marker(pytest.mark.docker)


def _missing(reason: str) -> None:
    if os.environ.get("COMFYPLANE_REQUIRE_DOCKER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """Where an engine answers."""
    for named in (os.environ.get("COMFYPLANE_TEST_DOCKER_HOST"), os.environ.get("DOCKER_HOST"), "unix:///var/run/docker.sock"):
        if named and world.answers(named):
            yield named
            return
    if os.environ.get("COMFYPLANE_REQUIRE_DOCKER") != "1":
        pytest.skip("no Docker engine answers; COMFYPLANE_REQUIRE_DOCKER=1 starts one of our own, as root")
    if os.getuid() != 0 or not shutil.which("dockerd") or not Path("/usr/bin/docker").is_file():
        _missing("needs a Docker engine: none answers, and dockerd can only be started by root where docker.io is installed")
    with tempfile.TemporaryDirectory(prefix="cpd-", ignore_cleanup_errors=True) as scratch, world.engine(Path(scratch)) as host:
        yield host


@pytest.fixture(scope="session")
def docker_client(docker_host: str) -> Iterator[Any]:
    import docker

    client = docker.DockerClient(base_url=docker_host, timeout=120)
    yield client
    client.close()


@pytest.fixture(scope="session")
def base(docker_client: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The base image's id."""
    kept = os.environ.get("COMFYPLANE_TEST_CACHE")
    cache = Path(kept) if kept else tmp_path_factory.mktemp("base")
    if not shutil.which("debootstrap") and not (cache / world.BASE_TAR).is_file():
        _missing("needs debootstrap to make a base image")
    return str(world.base_image(docker_client, cache))


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry on loopback; host:port."""
    if not shutil.which("docker-registry"):
        _missing("needs docker-registry")
    with world.registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@dataclass
class Trees:
    """Repositories of the stand-in and of two packs; commits by name."""

    root: Path
    commits: dict[str, str] = field(default_factory=dict)

    def pack(self, name: str, **files: str) -> str:
        """A repository `name` with these files (dots are written __dot__py); its commit."""
        self.commits[name] = world.repository(self.root / name, {key.replace("__dot__", "."): text for key, text in files.items()})
        return self.commits[name]


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    made = Trees(tmp_path_factory.mktemp("mirror"))
    made.commits["ComfyUI"] = world.standin(made.root / "ComfyUI")
    made.pack("brighten", __init____dot__py=world.BRIGHTEN)
    # New in every session, so that its script really runs on an engine that has seen these tests before.
    made.pack("mirror", __init____dot__py=world.TABLE, install__dot__py=world.INSTALL, session__dot__txt=secrets.token_hex(8))
    return made


@dataclass
class Builder:
    """Asks and builds in this process, the way the command does."""

    now: datetime
    trees: Trees
    base: str
    workflow: Workflow | None = None

    def document(self, **changes: Any) -> dict[str, Any]:
        """A lock document with both packs."""
        packs = [
            world.pack("brighten", self.trees.commits["brighten"], classes=["TestBrighten"]),
            world.pack("mirror", self.trees.commits["mirror"], classes=["TestMirror"], install=True),
        ]
        made = world.document(
            comfyui="https://example.com/test/ComfyUI",
            commit=self.trees.commits["ComfyUI"],
            packs=changes.pop("packs", packs),
            classes=changes.pop("classes", ["EmptyImage", "SaveImage", "TestBrighten", "TestMirror"]),
        )
        made["base_image"]["digest"] = self.base
        return lock_document.normal({**made, **changes})

    def version(self) -> Version:
        self.workflow = self.workflow or factories.make_workflow(now=self.now)
        return self.workflow.versions.first() or factories.make_version(self.workflow, now=self.now)

    def ask(self, document: dict[str, Any]) -> Build:
        lock, _ = Lock.objects.get_or_create(
            sha256=lock_document.sha256(document), defaults={"document": document, "created_at": self.now, "created_by": "test"}
        )
        return building.request(version=self.version(), lock=lock, actor="test", now=timezone.now())

    def build(self, document: dict[str, Any] | None = None, **options: Any) -> Build:
        return running.run(self.ask(document or self.document()).id, clock=timezone.now, **options)


@pytest.fixture
def builder(transactional_db: None, settings: Any, docker_host: str, base: str, trees: Trees, now: datetime) -> Builder:
    ca = next((p for p in (os.environ.get("SSL_CERT_FILE", ""), "/etc/ssl/certs/ca-certificates.crt") if p and Path(p).is_file()), "")
    settings.BUILD = {
        **settings.BUILD,
        "DOCKER": "",
        "DOCKER_HOST": docker_host,
        "NETWORK": "host",
        "CA_BUNDLE": ca,
        "PACKAGE_INDEX": os.environ.get("PIP_INDEX_URL", ""),
        "PACK_MIRROR": str(trees.root),
        "COMFYUI_SOURCE": str(trees.root / "ComfyUI"),
        "REGISTRY": "",
        "LEASE_S": 30.0,
    }
    return Builder(now=now, trees=trees, base=base)
