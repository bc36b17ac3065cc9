"""A job's state as one server-sent event. Its id is the job's revision, so a client that reconnects misses no end."""

from __future__ import annotations

import json

from django.utils import timezone

from fleet import estimates, held_up, presenting
from fleet.models import Job, Output


def render(job: Job, base_url: str = "") -> str:
    """`event: <status>`, `id: <revision>`, `data: <the job as GET /v1/jobs/{id} answers>`."""
    outputs = Output.objects.filter(job=job, published=True).order_by("index") if job.status == "succeeded" else []
    now = timezone.now()
    shape = presenting.job(job, outputs=outputs, place=estimates.place(job, now=now), waiting=held_up.of(job, now=now))
    for item in shape["outputs"]:
        item["url"] = base_url + item["url"]
    return f"event: {job.status}\nid: {job.revision}\ndata: {json.dumps(shape, separators=(',', ':'))}\n\n"
