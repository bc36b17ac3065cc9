"""A small world for the tests of the customer API: a released workflow, a pool, customers with keys, a worker that finishes jobs."""

import hashlib
import io
import json
from datetime import timedelta
from uuid import UUID

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from PIL import Image

from billing import customers, keys
from builds import importing, versions
from builds.models import Workflow
from controlplane.kernel import blobs
from fleet import queue
from fleet.models import Job, Output, Pool, Worker

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "ComfyUI"}},
    "3": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "other"}},
}
EXPOSED = [
    {"name": "width", "node": "1", "input": "width", "minimum": 1, "maximum": 512, "default": 64},
    {"name": "color", "node": "1", "input": "color", "minimum": 0, "maximum": 16777215, "default": 255},
]


def pool(slug="default"):
    return Pool.objects.get_or_create(slug=slug, defaults={"name": slug.title(), "base": 1, "max": 2, "created_at": timezone.now()})[0]


def workflow(slug="paint", *, expose=None, released=True) -> Workflow:
    """A released workflow whose inputs all have defaults; with `expose` other ones."""
    pool()
    now = timezone.now()
    made = importing.import_graph(document=GRAPH, slug=slug, name=slug.title(), author="tests", expose=expose or EXPOSED, draft=True, library=None, now=now)
    if released:
        type(made.version).objects.filter(id=made.version.id).update(runnable=True)
        made.version.refresh_from_db()
        versions.promote(workflow=made.workflow, channel="production", version=made.version, actor="tests", now=now)
    return made.workflow


def plan(slug="plan", **changed):
    terms = {
        "price_per_job_microusd": 1000, "price_per_gpu_second_microusd": 500, "monthly_limit_microusd": 100_000_000, "max_active_jobs": 100,
        "requests_per_minute": 100_000, "max_priority": "normal", **changed,
    }  # fmt: skip
    return customers.publish_plan(slug=slug, name=slug.title(), now=timezone.now(), **terms)


def customer(slug="acme", *, scopes=None, **terms):
    """A customer with a key: (customer, key, secret)."""
    made = customers.create(slug=slug, name=slug.title(), plan_revision=plan(f"{slug}-plan", **terms), now=timezone.now())
    key, secret = keys.issue(customer=made, name="test", scopes=scopes, now=timezone.now())
    return made, key, secret


class Caller:
    """A client with a key: api.get("/v1/jobs"), api.post("/v1/…", {...})."""

    def __init__(self, secret):
        self.client = Client(raise_request_exception=False)
        self.auth = {"Authorization": f"Bearer {secret}"} if secret else {}

    def get(self, url, **headers):
        return self.client.get(url, headers=self.auth | named(headers))

    def post(self, url, body=None, **headers):
        data = body if isinstance(body, bytes | str) else json.dumps({} if body is None else body)
        return self.client.post(url, data=data, content_type=headers.pop("content_type", "application/json"), headers=self.auth | named(headers))

    def form(self, url, fields, **headers):
        return self.client.post(url, data=fields, headers=self.auth | named(headers))

    def call(self, method, url, **headers):
        return self.client.generic(method, url, headers=self.auth | named(headers))


def named(headers):
    return {name.replace("_", "-"): value for name, value in headers.items()}


def caller(slug="acme", **kwargs) -> Caller:
    made, key, secret = customer(slug, **kwargs)
    api = Caller(secret)
    api.customer, api.key, api.secret = made, key, secret
    return api


def png(width=8, height=8, color=(200, 30, 30)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), color).save(out, "PNG")
    return out.getvalue()


def worker(slug="default") -> Worker:
    at = timezone.now()
    return Worker.objects.create(pool=pool(slug), name="w", instance=f"w-{Worker.objects.count()}", state="idle", state_since=at, ordered_at=at)


def finish(job_id, *, outputs=1, outcome="succeeded", failure_class="", error=None) -> Job:
    """Claim everything that is queued and finish `job_id` as a worker would."""
    job_id = UUID(str(job_id))
    by = worker()
    now = timezone.now()
    leased = {a.job_id: a for a in queue.claim(by, limit=100, now=now)}
    attempt = leased[job_id].attempt
    stored = []
    for index in range(outputs if outcome == "succeeded" else 0):
        data = png(8 + index, 8)
        blob = blobs.put(io.BytesIO(data), media_type="image/png", max_bytes=10**6, now=now)
        Output.objects.create(
            job_id=job_id,
            attempt=attempt,
            index=index,
            name=f"out {index}.png",
            kind="image",
            media_type="image/png",
            blob=blob,
            size_bytes=len(data),
            created_at=now,
        )
        stored.append({"index": index, "sha256": hashlib.sha256(data).hexdigest(), "measurements": {"width": 8 + index, "height": 8}})
    queue.complete(
        by,
        job_id=job_id,
        attempt=attempt,
        completion=queue.Completion(outcome=outcome, failure_class=failure_class, error=error, outputs=stored, timings={"busy_s": 0.5}),
        now=now + timedelta(seconds=1),
    )
    return Job.objects.get(id=job_id)


def upload(name, data, kind="application/octet-stream"):
    """A file as a form carries it."""
    return SimpleUploadedFile(name, data, content_type=kind)
