"""A model the lock can fetch keeps no version from running; one nobody can fetch still does."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from factories import make_workflow

from builds import libraries, versions
from builds.locking import making
from builds.locking.making import Prepared
from builds.models import Channel, Version

GRAPH: dict[str, Any] = {
    "1": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "sub/twice.safetensors"}},
    "2": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "3": {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["1", 0], "image": ["2", 0]}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
}


def library() -> dict[str, Any]:
    number = ["INT", {"default": 8, "min": 0, "max": 16777215}]
    return {
        "UpscaleModelLoader": {"input": {"required": {"model_name": [["other.safetensors"]]}}, "output": ["UPSCALE_MODEL"], "output_node": False},
        "EmptyImage": {"input": {"required": dict.fromkeys(("width", "height", "batch_size", "color"), number)}, "output": ["IMAGE"], "output_node": False},
        "ImageUpscaleWithModel": {"input": {"required": {"upscale_model": ["UPSCALE_MODEL"], "image": ["IMAGE"]}}, "output": ["IMAGE"], "output_node": False},
        "SaveImage": {"input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}}, "output": [], "output_node": True},
    }


def give_lock(version: Version, *, now: datetime, **model: Any) -> None:
    entry = {"directory": "upscale_models", "filename": "sub/twice.safetensors", "sha256": "0" * 64, "size_bytes": 1, "urls": ["https://models.example/x"]}
    document: Any = {"schema": "comfyplane-lock/1", "comfyui": {"commit": "c" * 40}, "models": [entry | model]}
    making.keep(version=version, prepared=Prepared(document, ("a" if model else "b") * 64, []), actor="ada", now=now)
    version.refresh_from_db()


@pytest.mark.django_db
def test_a_version_may_serve_once_its_lock_says_where_its_models_come_from(now: datetime) -> None:
    libraries.store(name="small", document=library(), current=True, now=now)
    workflow = make_workflow(now=now)
    version = versions.create(workflow=workflow, graph=GRAPH, library=libraries.current(), author="ada", now=now)
    assert not version.runnable and [one["code"] for one in version.findings] == ["model_missing"]
    give_lock(version, now=now, urls=[])
    assert not version.runnable, "a hash alone can be fetched from nowhere"
    give_lock(version, now=now)
    assert version.runnable and [(one["level"], one["code"]) for one in version.findings] == [("warning", "model_fetched_on_demand")]
    versions.promote(workflow=workflow, channel=Channel.Name.PRODUCTION, version=version, actor="ada", now=now)
    libraries.store(name="small", document=library(), current=True, now=now)
    version.refresh_from_db()
    assert version.runnable, "judging it again forgets nothing"
