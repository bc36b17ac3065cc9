"""What a worker is told of a version's models: those of its newest lock that can be told from others."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from factories import make_customer, make_pool, make_version, make_worker, make_workflow, submit

from builds.models import Lock, Version, VersionLock
from fleet import assignments, queue

pytestmark = pytest.mark.django_db


def lock(version: Version, models: list[dict[str, Any]], *, at: datetime) -> None:
    """Give the version a lock with these models."""
    name = f"{Lock.objects.count():064x}"
    made = Lock.objects.create(sha256=name, document={"schema": "comfyplane-lock/1", "models": models}, created_at=at, created_by="test")
    VersionLock.objects.create(version=version, lock=made, made_at=at, made_by="test")


def model(name: str, sha256: str = "ab" * 32) -> dict[str, Any]:
    return {"directory": "loras", "filename": name, "sha256": sha256, "size_bytes": 5, "urls": ["https://models.example/x"], "licence": "mit"}


def test_an_assignment_carries_the_models_of_the_newest_lock(now: datetime) -> None:
    pool = make_pool(now=now)
    workflow = make_workflow(now=now, pool=pool)
    version = make_version(workflow, now=now)
    customer = make_customer(now=now)
    worker = make_worker(pool, now=now)

    def told() -> list[dict[str, Any]]:
        submit(customer, workflow, now=now)
        [assignment] = queue.claim(worker, now=now)
        return list(assignments.render(assignment, now=now)["models"])

    assert told() == []
    lock(version, [model("old.safetensors")], at=now)
    lock(version, [model("a.safetensors"), model("unknown.safetensors", sha256="")], at=now + timedelta(seconds=1))
    [one] = told()
    assert one == {"directory": "loras", "filename": "a.safetensors", "sha256": "ab" * 32, "size_bytes": 5, "urls": ["https://models.example/x"]}
    lock(version, [], at=now + timedelta(seconds=2))
    assert told() == [], "the newest lock counts at once"
