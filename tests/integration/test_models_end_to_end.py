"""A customer's job whose version is locked to a model, through the whole plane: API, queue, worker, store, engine, bill, metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.fleet.agent.model_source import ModelSource, sha, tensors
from tests.integration.live_plane import until

LOCK = """
import json, sys
from django.utils import timezone
from builds.models import Channel, Lock, VersionLock
version = Channel.objects.get(workflow__slug={slug!r}, name="production").version
lock = Lock.objects.create(sha256="ab" * 32, document={{"schema": "comfyplane-lock/1", "models": {models!r}}}, created_at=timezone.now(), created_by="test")
VersionLock.objects.create(version=version, lock=lock, made_at=timezone.now(), made_by="test")
"""
SEEN = """
import json
from fleet.models import Attempt, Worker
attempt = Attempt.objects.get(job_id={job!r})
print(json.dumps({{"timings": attempt.timings, "billable_s": attempt.job.billable_s, "busy_s": attempt.busy_s, "store": attempt.worker.usage.get("store")}}))
"""


@pytest.mark.thorough
def test_a_locked_model_is_fetched_for_the_first_job_and_here_for_the_next(make_plane, tmp_path: Path) -> None:
    data = tensors(3_000_000)
    with ModelSource() as source:
        store = {"DIR": str(tmp_path / "store"), "HOSTS": source.url, "KEEP_FREE": "0", "CAP": "1GiB"}
        plane = make_plane(env={f"COMFYPLANE_STORE_{name}": value for name, value in store.items()})
        plane.start()
        url = source.add("/weights/style.safetensors", data, bytes_per_s=1_000_000)
        models = [{"directory": "loras", "filename": "flux/style.safetensors", "sha256": sha(data), "size_bytes": len(data), "urls": [url], "licence": "mit"}]
        with plane.client() as client:
            [slug] = re.findall(r"/v1/workflows/([a-z0-9-]+)/jobs", plane.said)[:1]  # of the call it printed
            plane.manage("shell", "-v", "0", "-c", LOCK.format(slug=slug, models=models))

            def run() -> str:
                job = client.post(f"/v1/workflows/{slug}/jobs", json={"inputs": {}}).json()["id"]
                until(lambda: client.get(f"/v1/jobs/{job}").json()["status"] not in ("queued", "running"), seconds=180, what=plane.logs)
                ended = client.get(f"/v1/jobs/{job}").json()
                assert ended["status"] == "succeeded", (ended, plane.logs())
                return str(job)

            first = run()
            seen = json.loads(plane.manage("shell", "-v", "0", "-c", SEEN.format(job=first)).stdout)
            assert source.bytes_served == len(data)
            assert seen["timings"]["models_s"] > 0.5 and abs(seen["billable_s"] + seen["timings"]["models_s"] - seen["busy_s"]) < 0.01, seen
            links = list((plane.data_dir / "run" / "work").rglob("style.safetensors"))
            assert links and all(link.is_symlink() and link.read_bytes() == data and link.parent.name == "flux" for link in links)
            run()
            assert source.bytes_served == len(data)
            token = (plane.data_dir / "secrets" / "metrics_token").read_text().strip()

            def scraped() -> str:
                return client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).text

            until(lambda: 'comfyplane_model_store_events{event="hit"' in scraped(), seconds=90, what=scraped)
            caps = re.findall(r'comfyplane_model_store_bytes{kind="cap",pool="[^"]+"} (\S+)', scraped())
            assert caps and {float(cap) for cap in caps} == {float(2**30)}, "one store, however many workers share it"
        assert plane.stop() == 0
