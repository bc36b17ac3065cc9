"""The catalogue entry of a workflow, in the shape clients already read.

What is said about speed, cost and success is measured or null; nothing is estimated. The static
part is made here; whoever has measurements lays them over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from builds.exposed import ExposedInput, load_all
from builds.models import Channel, Version, Workflow

# Median seconds from start to result: up to this many is called so; anything above is slow.
SPEEDS = ((2.0, "fastest"), (8.0, "fast"), (25.0, "medium"))

_FACES = ("instantid", "pulid", "ipadapterfaceid", "photomaker", "reactor", "faceid")
_OUTPUTS = (("animation", ("SaveAnimated",)), ("video", ("SaveVideo", "SaveWEBM", "VHS_VideoCombine")), ("audio", ("SaveAudio", "PreviewAudio")))
_PICTURES = ("SaveImage", "PreviewImage")


def entry(workflow: Workflow, version: Version | None) -> dict[str, Any]:
    """The static part: what is known without running anything."""
    items = load_all(version.inputs) if version else []
    return {
        "id": workflow.slug,
        "name": workflow.name,
        "description": workflow.description,
        "category": workflow.category,
        "endpoint": f"/v1/workflows/{workflow.slug}/jobs",
        "version": version.number if version else None,
        "performance": {
            "speed": None,
            "quality": workflow.quality or None,
            "cost_per_image_usd": None,
            "cost_per_job_usd": None,
            "typical_time_seconds": None,
            "success_rate": None,
            "measured_jobs": 0,
            "measured_smoke_runs": 0,
            "measured_from": None,
        },
        "capabilities": {**capabilities_of(version.graph if version else {}, items), **(workflow.capabilities or {})},
        "status": status_of(workflow, version),
    }


def with_measurements(entry: Mapping[str, Any], measured: Mapping[str, Any] | None) -> dict[str, Any]:
    """`entry` with measured figures laid over it.

    `measured` may hold p50_s, success_rate (0 to 1), cost_per_job_usd, cost_per_image_usd, jobs, smoke_runs and source (what
    speed and cost rest on: jobs or smoke_runs); what it lacks stays null.
    """
    measured = measured or {}
    p50_s = measured.get("p50_s")
    performance = {
        **entry["performance"],
        "measured_jobs": measured.get("jobs") or 0,
        "measured_smoke_runs": measured.get("smoke_runs") or 0,
        "measured_from": measured.get("source"),
    }
    if p50_s is not None:
        performance |= {"speed": speed_of(p50_s), "typical_time_seconds": round(float(p50_s), 2)}
    for key, digits in (("success_rate", 4), ("cost_per_job_usd", 6), ("cost_per_image_usd", 6)):
        if measured.get(key) is not None:
            performance[key] = round(float(measured[key]), digits)
    return {**entry, "performance": performance}


def speed_of(p50_s: float) -> str:
    """The label of a measured median."""
    return next((label for limit, label in SPEEDS if p50_s <= limit), "slow")


def status_of(workflow: Workflow, version: Version | None) -> str:
    """The furthest channel that points at `version`; draft when none does."""
    if workflow.archived_at is not None:
        return "archived"
    if version is None:
        return "draft"
    names = {channel.name for channel in workflow.channels.all() if channel.version_id == version.pk}
    return next((name for name in reversed(Channel.Name.values) if name in names), "draft")


def capabilities_of(graph: Mapping[str, Any], exposed: Iterable[ExposedInput]) -> dict[str, bool]:
    """What the graph itself shows it can do; an operator's own entries stand above these."""
    classes = [str(node.get("class_type", "")).lower() for node in graph.values()]
    items = list(exposed)
    return {
        "face_consistency": any(word in name for name in classes for word in _FACES),
        "lora_support": any("lora" in name for name in classes),
        "negative_prompt": any(one.name.startswith("negative") for one in items),
        "image_input": any(one.kind == "image" for one in items),
        "seed": any(one.randomize for one in items),
    }


def category_of(graph: Mapping[str, Any], exposed: Iterable[ExposedInput]) -> str:
    """A first guess from what goes in and what comes out."""
    classes = [str(node.get("class_type", "")) for node in graph.values()]
    items = list(exposed)
    for category, starts in _OUTPUTS:
        if any(name.startswith(starts) for name in classes):
            return category
    if not any(name.startswith(_PICTURES) for name in classes):
        return "text" if "PreviewAny" in classes else "image"
    if any(one.kind == "image" for one in items):
        return "image-to-image"
    prompts = {node_id for node_id, node in graph.items() if "CLIPTextEncode" in str(node.get("class_type", ""))}
    return "text-to-image" if any(one.node in prompts for one in items) else "image"
