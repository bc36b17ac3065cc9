"""Rows for the tests of the work pages: people with roles, workflows with every kind of input, jobs in every state."""

from __future__ import annotations

import io
from datetime import timedelta

from django.utils import timezone
from PIL import Image

from controlplane.kernel import blobs
from fleet.models import Attempt, Job, Output
from tests import factories

XSS = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 255}},
    "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 2, "sigma": 1.0}, "_meta": {"title": XSS}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "out"}},
}
EXPOSED = [
    {"name": "prompt", "node": "1", "input": "color", "type": "string", "title": "Prompt", "default": "a boat", "multiline": True, "max_length": 600},
    {"name": "caption", "node": "1", "input": "batch_size", "type": "string", "title": "Caption", "default": "quiet"},
    {"name": "width", "node": "1", "input": "width", "type": "integer", "title": "Width", "default": 64, "minimum": 1, "maximum": 4096},
    {"name": "sigma", "node": "2", "input": "sigma", "type": "number", "title": "Sigma", "default": 1.0, "minimum": 0.1, "maximum": 10.0},
    {"name": "mode", "node": "1", "input": "height", "type": "string", "title": "Mode", "default": "fast", "enum": ["fast", "fine"]},
    {"name": "tile", "node": "2", "input": "blur_radius", "type": "boolean", "title": "Tile", "default": True},
    {"name": "seed", "node": "3", "input": "filename_prefix", "type": "integer", "title": "Seed", "minimum": 0, "maximum": 2**32, "randomize": True},
]
PHOTO = {"name": "photo", "node": "2", "input": "image", "type": "string", "title": "Photo", "kind": "image", "required": True}


def workflow(*, now, slug="boat", exposed=None, **fields):
    """A released workflow with every kind of plain input."""
    made = factories.make_workflow(now=now, slug=slug, **fields)
    factories.make_version(made, now=now, graph=GRAPH, inputs=EXPOSED if exposed is None else exposed)
    return made


def job(customer, made, *, now, status="queued", worker=None, created=None, **fields):
    """A job in that state, with its attempt; admitted the real way."""
    found = factories.submit(customer, made, now=created or now)
    if status == "queued":
        Job.objects.filter(id=found.id).update(**fields)
        found.refresh_from_db()
        return found
    worker = worker or factories.make_worker(found.pool, now=now)
    start = (created or now) + timedelta(seconds=1.5)
    end = start + timedelta(seconds=8)
    changed = {"status": status, "attempt": 1, "started_at": start, "worker": worker}
    if status == "running":
        changed |= {"lease_until": now + timedelta(hours=1), "progress": 0.4, "node": "2"}
        Attempt.objects.create(job=found, number=1, worker=worker, claimed_at=start)
    else:
        good = status == "succeeded"
        changed |= {"finished_at": end, "price_microusd": 12_000 if good else 0, "cost_microusd": 3_600, "billable_s": 8.0, "progress": 1.0 if good else 0.4}
        if status == "failed":
            changed |= {"failure_class": "workflow", "error": {"code": "node_failed", "message": "It broke.", "suggestion": "Mend it."}}
        timings = {"inputs_s": 0.1, "submit_s": 0.1, "queue_s": 0.0, "load_s": 0.0, "run_s": 6.0, "upload_s": 1.0, "busy_s": 8.0}
        nodes = [{"node": "1", "class_type": "EmptyImage", "start_s": 0.0, "run_s": 1.0, "cached": False}]
        nodes.append({"node": "2", "class_type": "ImageBlur", "start_s": 1.0, "run_s": 5.0, "cached": False})
        Attempt.objects.create(
            job=found, number=1, worker=worker, state="succeeded" if status == "succeeded" else "failed", claimed_at=start, ended_at=end, timings=timings,
            nodes=nodes, busy_s=8.0, cost_microusd=3_600,
        )  # fmt: skip
    Job.objects.filter(id=found.id).update(**(changed | {"quote_microusd": 50_000_000_000} | fields))
    found.refresh_from_db()
    return found


def png(width=32, height=24, color="#3366cc") -> io.BytesIO:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), color).save(stream, "PNG")
    stream.seek(0)
    return stream


def output(found, *, name="out_00001_.png", kind="image", media_type="image/png", body=None, index=0, **fields):
    """A stored output of a job."""
    now = timezone.now()
    blob = blobs.put(io.BytesIO(body) if body is not None else png(), media_type=media_type, max_bytes=10**8, now=now)
    values = {"width": 32, "height": 24, "measurements": {"decodes": True, "blank": False, "flat": True, "sharpness": 12.5, "phash": "ffd8"}}
    values |= {"name": name, "kind": kind, "media_type": media_type, "size_bytes": blob.size_bytes}
    return Output.objects.create(job=found, attempt=1, index=index, blob=blob, published=True, created_at=now, **(values | fields))
