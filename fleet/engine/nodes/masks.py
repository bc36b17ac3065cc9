"""Masks: float arrays shaped batch, height, width."""

from __future__ import annotations

import numpy as np

from fleet.engine.pixels import Array
from fleet.engine.run import Run
from fleet.engine.specs import choice, flag, integer, link, node_v3, number

SIDE = integer(default=512, min=1, max=16384, step=1)
PLACE = integer(default=0, min=0, max=16384, step=1)
UNIT = number(default=0.5, min=0.0, max=1.0, step=0.01)
IMAGE = link("IMAGE")
MASK = link("MASK")
ON = flag(default=True)


@node_v3(
    "SolidMask",
    category="mask",
    module="comfy_extras.nodes_mask",
    outputs=["MASK"],
    inputs={"value": number(default=1.0, min=0.0, max=1.0, step=0.01), "width": SIDE, "height": SIDE},
)
def solid_mask(run: Run, value: float, width: int, height: int) -> Array:
    run.claim(1, height, width)
    return np.full((1, height, width), value, dtype=np.float32)


@node_v3("InvertMask", category="mask", module="comfy_extras.nodes_mask", outputs=["MASK"], inputs={"mask": MASK})
def invert_mask(run: Run, mask: Array) -> Array:
    return 1 - mask


@node_v3(
    "CropMask",
    category="mask",
    module="comfy_extras.nodes_mask",
    outputs=["MASK"],
    inputs={"mask": MASK, "x": PLACE, "y": PLACE, "width": SIDE, "height": SIDE},
)
def crop_mask(run: Run, mask: Array, x: int, y: int, width: int, height: int) -> Array:
    return mask[:, y : y + height, x : x + width].copy()


@node_v3("ThresholdMask", category="mask", module="comfy_extras.nodes_mask", outputs=["MASK"], inputs={"mask": MASK, "value": UNIT})
def threshold_mask(run: Run, mask: Array, value: float) -> Array:
    return (mask > value).astype(np.float32)


@node_v3("MaskToImage", category="mask", module="comfy_extras.nodes_mask", title="Convert Mask to Image", outputs=["IMAGE"], inputs={"mask": MASK})
def mask_to_image(run: Run, mask: Array) -> Array:
    run.claim(*mask.shape, 3)
    return np.repeat(mask[..., None], 3, axis=3)


@node_v3(
    "ImageToMask",
    category="mask",
    module="comfy_extras.nodes_mask",
    title="Convert Image to Mask",
    outputs=["MASK"],
    inputs={"image": IMAGE, "channel": choice(["red", "green", "blue", "alpha"])},
)
def image_to_mask(run: Run, image: Array, channel: str) -> Array:
    index = ["red", "green", "blue", "alpha"].index(channel)
    if index >= image.shape[3]:
        raise IndexError(f"index {index} is out of bounds for dimension 3 with size {image.shape[3]}")
    return image[..., index].copy()


@node_v3(
    "ImageColorToMask",
    category="mask",
    module="comfy_extras.nodes_mask",
    outputs=["MASK"],
    inputs={"image": IMAGE, "color": integer(default=0, min=0, max=16777215, step=1, display="number")},
)
def image_color_to_mask(run: Run, image: Array, color: int) -> Array:
    wanted = np.array([(color >> shift) & 0xFF for shift in (16, 8, 0)], dtype=np.uint8)
    return (np.round(image[..., :3] * 255).astype(np.uint8) == wanted).all(axis=3).astype(np.float32)


@node_v3(
    "MaskComposite",
    category="mask",
    module="comfy_extras.nodes_mask",
    outputs=["MASK"],
    inputs={"destination": MASK, "source": MASK, "x": PLACE, "y": PLACE, "operation": choice(["multiply", "add", "subtract", "and", "or", "xor"])},
)
def mask_composite(run: Run, destination: Array, source: Array, x: int, y: int, operation: str) -> Array:
    out = destination.copy()
    height, width = min(source.shape[1], out.shape[1] - y), min(source.shape[2], out.shape[2] - x)
    if height <= 0 or width <= 0:
        return out
    part = out[:, y : y + height, x : x + width]
    out[:, y : y + height, x : x + width] = _combined(part, source[:, :height, :width], operation)
    return np.clip(out, 0, 1)


@node_v3(
    "FeatherMask",
    category="mask",
    module="comfy_extras.nodes_mask",
    outputs=["MASK"],
    inputs={"mask": MASK, "left": PLACE, "top": PLACE, "right": PLACE, "bottom": PLACE},
)
def feather_mask(run: Run, mask: Array, left: int, top: int, right: int, bottom: int) -> Array:
    height, width = mask.shape[1:]
    across, down = np.ones(width, dtype=np.float32), np.ones(height, dtype=np.float32)
    for line, start, end in ((across, left, right), (down, top, bottom)):
        start, end = min(start, len(line)), min(end, len(line))
        line[:start] *= np.arange(1, start + 1) / max(start, 1)
        # A real server counts the far side from minus zero: the darkest step falls on the first line, not the last.
        line[-np.arange(end)] *= np.arange(1, end + 1) / max(end, 1)
    return mask * across * down[:, None]


@node_v3(
    "GrowMask",
    category="mask",
    module="comfy_extras.nodes_mask",
    title="Grow Mask",
    outputs=["MASK"],
    inputs={"mask": MASK, "expand": integer(default=0, min=-16384, max=16384, step=1), "tapered_corners": ON},
)
def grow_mask(run: Run, mask: Array, expand: int, tapered_corners: bool) -> Array:
    # Growing further than the mask is wide changes nothing more.
    steps = min(abs(expand), sum(mask.shape[1:]))
    pick = np.minimum if expand < 0 else np.maximum
    out = mask.copy()
    for _ in range(steps):
        out = _grown(out, pick, corners=not tapered_corners)
    return out


def _combined(under: Array, over: Array, operation: str) -> Array:
    if operation == "multiply":
        return under * over
    if operation == "add":
        return under + over
    if operation == "subtract":
        return under - over
    bits = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[operation]
    return bits(np.round(under) > 0, np.round(over) > 0).astype(np.float32)


def _grown(mask: Array, pick: np.ufunc, *, corners: bool) -> Array:
    """The extreme of every pixel and its neighbours; the edge counts as itself."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = mask.shape[1:]
    moves = [(0, 1), (2, 1), (1, 0), (1, 2)] + ([(0, 0), (0, 2), (2, 0), (2, 2)] if corners else [])
    out = mask
    for y, x in moves:
        out = pick(out, padded[:, y : y + height, x : x + width])
    return out
