"""One node that resizes images and masks in any of eight ways."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fleet.engine import pixels
from fleet.engine.pixels import Array
from fleet.engine.run import Run
from fleet.engine.specs import choice, link, node_v3

SIDE = ["INT", {"default": 512, "min": 0, "max": 16384, "step": 1}]
CROP = ["COMBO", {"default": "center", "multiselect": False, "options": ["disabled", "center"]}]
WAYS: dict[str, dict[str, list[Any]]] = {
    "scale by multiplier": {"multiplier": ["FLOAT", {"default": 1.0, "min": 0.01, "max": 8.0, "step": 0.01}]},
    "scale dimensions": {"width": SIDE, "height": SIDE, "crop": CROP},
    "scale longer dimension": {"longer_size": SIDE},
    "scale shorter dimension": {"shorter_size": SIDE},
    "scale width": {"width": SIDE},
    "scale height": {"height": SIDE},
    "scale total pixels": {"megapixels": ["FLOAT", {"default": 1.0, "min": 0.01, "max": 16.0, "step": 0.01}]},
    "match size": {"match": ["IMAGE,MASK", {}], "crop": CROP},
}


@node_v3(
    "ResizeImageMaskNode",
    category="transform",
    module="comfy_extras.nodes_post_processing",
    title="Resize Image/Mask",
    outputs=["COMFY_MATCHTYPE_V3"],
    names=["resized"],
    matches=("input_type",),
    inputs={
        "input": link("COMFY_MATCHTYPE_V3", template={"template_id": "input_type", "allowed_types": "IMAGE,MASK"}),
        "resize_type": link("COMFY_DYNAMICCOMBO_V3", options=[{"key": key, "inputs": {"required": inputs}} for key, inputs in WAYS.items()]),
        "scale_method": choice(["nearest-exact", "bilinear", "area", "bicubic", "lanczos"], default="area"),
    },
)
def resize_image_mask_node(run: Run, input: Array, resize_type: dict[str, Any], scale_method: str) -> Array:
    images = input[..., None] if input.ndim == 3 else input
    width, height = _wanted(images.shape[2], images.shape[1], resize_type)
    run.claim(2, len(images), height, width, images.shape[3])
    scaled = pixels.resize(images, width, height, scale_method, resize_type.get("crop", "disabled"))
    return np.ascontiguousarray(scaled[..., 0]) if input.ndim == 3 else scaled


def _wanted(width: int, height: int, asked: dict[str, Any]) -> tuple[int, int]:
    """The size after resizing; a side of zero follows the other one."""
    way = asked["resize_type"]
    if way == "match size":
        return asked["match"].shape[2], asked["match"].shape[1]
    if way in ("scale dimensions", "scale width", "scale height"):
        wide, high = asked.get("width", 0), asked.get("height", 0)
        if not wide and not high:
            return width, height
        return wide or max(1, round(width * high / height)), high or max(1, round(height * wide / width))
    factors = {
        "scale by multiplier": lambda: asked["multiplier"],
        "scale longer dimension": lambda: asked["longer_size"] / max(width, height),
        "scale shorter dimension": lambda: asked["shorter_size"] / min(width, height),
        "scale total pixels": lambda: math.sqrt(asked["megapixels"] * 1024 * 1024 / (width * height)),
    }
    factor = factors[way]()
    return max(1, round(width * factor)), max(1, round(height * factor))
