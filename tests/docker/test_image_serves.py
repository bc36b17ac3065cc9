"""The whole path through a built image: asked for over the API, built by the tasks process, run as a worker, and a customer's job billed."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from builds.images import checking
from builds.locking import document as lock_document
from tests.integration.live_plane import Plane, until

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 0x336699}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
}
# 0x33 is 0.2 of full: half as much again makes 0.7.
BRIGHTER = {
    **GRAPH,
    "2": {"class_type": "TestBrighten", "inputs": {"image": ["1", 0], "by": 0.5}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "out"}},
}
SETUP = """
import json, sys
sys.path.insert(0, 'tests')
import factories
from django.utils import timezone
from builds.models import Lock, Version, VersionLock
from fleet import tokens
from fleet.models import Pool
now = timezone.now()
document = json.load(open({path!r}))
lock = Lock.objects.create(sha256={sha!r}, document=document, created_at=now, created_by='test')
version = Version.objects.get(workflow__slug='built', number=1)
VersionLock.objects.create(version=version, lock=lock, made_at=now, made_by='test')
pool = factories.make_pool(now=now, slug='images')
version.workflow.pool_slug = 'images'
version.workflow.save()
customer = factories.make_customer(now=now, slug='buyer')
print(json.dumps({{'pool_token': tokens.pool_token(pool), 'key': factories.make_key(customer, now=now)[1]}}))
"""
LIBRARY = """
from django.utils import timezone
from builds import libraries
from builds.models import NodeLibrary
made = NodeLibrary.objects.get(name__startswith='lock ')
libraries.store(name=made.name, document=made.object_info, current=True, now=timezone.now())
"""
USAGE = """
import json
from billing.models import UsageEntry
from fleet.models import Attempt
attempt = Attempt.objects.get(job_id={job!r})
meters = sorted(UsageEntry.objects.filter(job_id={job!r}, outcome='succeeded').values_list('meter', flat=True))
print(json.dumps({{'worker': attempt.worker.name, 'meters': meters}}))
"""


@pytest.fixture
def plane(builder: Any, settings: Any, tmp_path: Path) -> Any:
    names = ("DOCKER_HOST", "NETWORK", "CA_BUNDLE", "PACK_MIRROR", "COMFYUI_SOURCE", "PACKAGE_INDEX")
    env = {f"BUILD_{name}": str(settings.BUILD[name]) for name in names}
    made = Plane(data_dir=tmp_path / "plane", env={**env, "DEMO": "0"})
    yield made
    made.end()


def test_a_job_runs_in_a_built_image_and_is_billed(builder: Any, plane: Plane, docker_client: Any, tmp_path: Path) -> None:
    plane.start()
    told = plane.credentials()
    operator = httpx.Client(base_url=told["base_url"], auth=(told["operator"]["username"], told["operator"]["password"]), timeout=60, trust_env=False)
    assert operator.post("/ops/api/workflows", json={"document": GRAPH, "slug": "built", "promote": "production"}).status_code == 201
    refused = operator.post("/ops/api/workflows/built/builds")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_locked")

    document = builder.document()
    path = tmp_path / "lock.json"
    path.write_text(json.dumps(document))
    given = json.loads(plane.manage("shell", "-v0", "-c", SETUP.format(path=str(path), sha=lock_document.sha256(document))).stdout.splitlines()[-1])
    asked = operator.post("/ops/api/workflows/built/builds", json={"version": 1})
    assert asked.status_code == 202, asked.text
    address = f"/ops/api/builds/{asked.json()['id']}"
    until(lambda: operator.get(address).json()["state"] not in ("queued", "running"), seconds=120, what=plane.logs, every_s=0.5)
    build = operator.get(address).json()
    assert build["state"] == "succeeded", (build["error"], plane.logs())
    again = operator.post("/ops/api/workflows/built/builds", json={"version": 1})
    assert (again.status_code, again.json()["id"]) == (200, build["id"])

    # What the image brings is known now, so a workflow may use the pack's class.
    plane.manage("shell", "-v0", "-c", LIBRARY)
    newer = operator.post("/ops/api/workflows", json={"document": BRIGHTER, "slug": "built", "promote": "production"})
    assert newer.status_code == 201 and newer.json()["runnable"], newer.text

    container = docker_client.containers.run(
        build["image_id"],
        detach=True,
        network_mode="host",
        environment={
            "COMFYPLANE_URL": told["base_url"],
            "COMFYPLANE_POOL_TOKEN": given["pool_token"],
            "COMFYPLANE_WORKER_NAME": "in-the-image",
            "COMFYPLANE_MIN_FREE_DISK_MIB": "1",
            "COMFYUI_ARGS": "--cpu",
        },
        labels={checking.LABEL: "1"},
        **checking.hardened(1024),
    )
    try:
        began = time.monotonic()
        until(lambda: _health(container) == "healthy", seconds=60, what=lambda: container.logs(tail=40).decode(), every_s=0.3)
        healthy_s = time.monotonic() - began
        with httpx.Client(base_url=told["base_url"], headers={"Authorization": f"Bearer {given['key']}"}, timeout=90, trust_env=False) as customer:
            made = customer.post("/v1/workflows/built/jobs", json={"inputs": {}}, headers={"Prefer": "wait=60"})
            job = made.json()
            assert job["status"] == "succeeded", (made.text, container.logs(tail=40).decode(), plane.logs())
            output = customer.get(job["outputs"][0]["url"].removeprefix(told["base_url"]), follow_redirects=True)
            picture = Image.open(io.BytesIO(output.content)).convert("RGB")
            assert picture.size == (64, 48)
            assert all(abs(channel - wanted) <= 1 for channel, wanted in zip(picture.getpixel((5, 5)), (178, 229, 255), strict=True))
        seen = json.loads(plane.manage("shell", "-v0", "-c", USAGE.format(job=job["id"])).stdout.splitlines()[-1])
        assert seen["worker"] == "in-the-image" and seen["meters"] == ["gpu_second", "job"]
        container.stop(timeout=10)
        assert container.wait()["StatusCode"] == 0, "it leaves in order"
        sys.stderr.write(f"healthy after {healthy_s:.1f} s\n")
    finally:
        container.remove(force=True)


def _health(container: Any) -> str:
    container.reload()
    return str(container.attrs["State"].get("Health", {}).get("Status"))
