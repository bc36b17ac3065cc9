"""How a node is named to people, and which of its settings tells most."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from builds.links import MODEL_SUFFIXES, is_model, literal
from builds.nodespecs import NodeSpec

LONGEST = 20
_TELLING = (
    "text",
    "prompt",
    "value",
    "string",
    "upscale_method",
    "blend_mode",
    "mode",
    "image",
    "audio",
    "video",
    "file",
    "cfg",
    "denoise",
    "strength",
    "sigma",
)


def title(node: Mapping[str, Any], spec: NodeSpec | None = None) -> str:
    """The title its author gave it, else its class in words."""
    given = (node.get("_meta") or {}).get("title")
    if given:
        return str(given)
    if spec and spec.display_name != spec.class_type:
        return spec.display_name
    class_type = str(node.get("class_type") or "Unknown node")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z]{2})(?=[A-Z][a-z])|_+", " ", class_type).strip()


def key_value(node: Mapping[str, Any]) -> str:
    """Its most telling setting in a few words; empty when everything is wired."""
    values = {name: literal(raw) for name, raw in node["inputs"].items() if isinstance(literal(raw), str | int | float)}
    for name, value in values.items():
        if is_model(name, value) and name != "filename_prefix":
            return cut(_stem(str(value)), LONGEST)
    if "steps" in values:
        return cut(" ".join(str(part) for part in (values["steps"], "steps,", values.get("sampler_name", ""))).rstrip(", "), LONGEST)
    if "width" in values and "height" in values:
        batch = values.get("batch_size", 1)
        return cut(f"{values['width']} × {values['height']}" + (f", {batch}" if batch != 1 else ""), LONGEST)
    if values.get("filename_prefix"):
        return cut(str(values["filename_prefix"]), LONGEST)
    name = next((name for name in _TELLING if values.get(name) not in (None, "")), next(iter(values), ""))
    if not name:
        return ""
    value = values[name]
    return cut(" ".join(value.split()) if isinstance(value, str) else f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}", LONGEST)


def cut(text: str, limit: int) -> str:
    """`text`, or its beginning and an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _stem(name: str) -> str:
    name = re.split(r"[/\\]", name)[-1]
    return next((name[: -len(suffix)] for suffix in MODEL_SUFFIXES if name.lower().endswith(suffix)), name)
