"""Images scaled, cropped, turned and padded."""

from __future__ import annotations

import math

import numpy as np

from fleet.engine import pixels
from fleet.engine.pixels import Array
from fleet.engine.run import Run
from fleet.engine.specs import choice, integer, link, node, node_v3, number

SIDE = integer(default=512, min=1, max=16384, step=1)
PLACE = integer(default=0, min=0, max=16384, step=1)
PADDING = integer(default=0, min=0, max=16384, step=8)
METHODS = choice(["nearest-exact", "bilinear", "area", "bicubic", "lanczos"])
FLIPS = choice(["x-axis: vertically", "y-axis: horizontally"])
TURNS = choice(["none", "90 degrees", "180 degrees", "270 degrees"])
IMAGE = link("IMAGE")


@node(
    "ImageScale",
    category="image/upscaling",
    module="nodes",
    title="Upscale Image",
    outputs=["IMAGE"],
    inputs={
        "image": IMAGE,
        "upscale_method": METHODS,
        "width": integer(default=512, min=0, max=16384, step=1),
        "height": integer(default=512, min=0, max=16384, step=1),
        "crop": choice(["disabled", "center"]),
    },
)
def image_scale(run: Run, image: Array, upscale_method: str, width: int, height: int, crop: str) -> Array:
    if width == 0 and height == 0:
        return image
    old_height, old_width = image.shape[1:3]
    # A side of zero follows the other one.
    width = width or max(1, round(old_width * height / old_height))
    height = height or max(1, round(old_height * width / old_width))
    return _scaled(run, image, width, height, upscale_method, crop)


@node(
    "ImageScaleBy",
    category="image/upscaling",
    module="nodes",
    title="Upscale Image By",
    outputs=["IMAGE"],
    inputs={"image": IMAGE, "upscale_method": METHODS, "scale_by": number(default=1.0, min=0.01, max=8.0, step=0.01)},
)
def image_scale_by(run: Run, image: Array, upscale_method: str, scale_by: float) -> Array:
    return _scaled(run, image, round(image.shape[2] * scale_by), round(image.shape[1] * scale_by), upscale_method)


@node_v3(
    "ImageScaleToTotalPixels",
    category="image/upscaling",
    module="comfy_extras.nodes_post_processing",
    outputs=["IMAGE"],
    inputs={
        "image": IMAGE,
        "upscale_method": METHODS,
        "megapixels": number(default=1.0, min=0.01, max=16.0, step=0.01),
        "resolution_steps": integer(default=1, min=1, max=256),
    },
)
def image_scale_to_total_pixels(run: Run, image: Array, upscale_method: str, megapixels: float, resolution_steps: int) -> Array:
    height, width = image.shape[1:3]
    factor = math.sqrt(megapixels * 1024 * 1024 / (width * height))
    sides = [max(1, round(side * factor / resolution_steps)) * resolution_steps for side in (width, height)]
    return _scaled(run, image, sides[0], sides[1], upscale_method)


@node_v3(
    "ImageScaleToMaxDimension",
    category="image/upscaling",
    module="comfy_extras.nodes_images",
    outputs=["IMAGE"],
    inputs={
        "image": IMAGE,
        "upscale_method": choice(["area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic"]),
        "largest_size": integer(default=512, min=0, max=16384, step=1),
    },
)
def image_scale_to_max_dimension(run: Run, image: Array, upscale_method: str, largest_size: int) -> Array:
    height, width = image.shape[1:3]
    factor = largest_size / max(width, height)
    return _scaled(run, image, round(width * factor), round(height * factor), upscale_method)


@node_v3(
    "ImageCrop",
    category="image/transform",
    module="comfy_extras.nodes_images",
    title="Image Crop",
    outputs=["IMAGE"],
    inputs={"image": IMAGE, "width": SIDE, "height": SIDE, "x": PLACE, "y": PLACE},
)
def image_crop(run: Run, image: Array, width: int, height: int, x: int, y: int) -> Array:
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return image[:, y : y + height, x : x + width].copy()


@node_v3("ImageFlip", category="image/transform", module="comfy_extras.nodes_images", outputs=["IMAGE"], inputs={"image": IMAGE, "flip_method": FLIPS})
def image_flip(run: Run, image: Array, flip_method: str) -> Array:
    return np.flip(image, axis=1 if flip_method.startswith("x") else 2).copy()


@node_v3("ImageRotate", category="image/transform", module="comfy_extras.nodes_images", outputs=["IMAGE"], inputs={"image": IMAGE, "rotation": TURNS})
def image_rotate(run: Run, image: Array, rotation: str) -> Array:
    quarters = 0 if rotation == "none" else int(rotation.split()[0]) // 90
    return np.rot90(image, k=quarters, axes=(2, 1)).copy()


@node_v3(
    "ResizeAndPadImage",
    category="image/transform",
    module="comfy_extras.nodes_images",
    outputs=["IMAGE"],
    inputs={
        "image": IMAGE,
        "target_width": SIDE,
        "target_height": SIDE,
        "padding_color": choice(["white", "black"]),
        "interpolation": choice(["area", "bicubic", "nearest-exact", "bilinear", "lanczos"]),
    },
)
def resize_and_pad_image(run: Run, image: Array, target_width: int, target_height: int, padding_color: str, interpolation: str) -> Array:
    count, height, width, channels = image.shape
    run.claim(count, target_height, target_width, channels)
    factor = min(target_width / width, target_height / height)
    inner_width, inner_height = int(width * factor), int(height * factor)
    out = np.full((count, target_height, target_width, channels), 1.0 if padding_color == "white" else 0.0, dtype=np.float32)
    x, y = (target_width - inner_width) // 2, (target_height - inner_height) // 2
    out[:, y : y + inner_height, x : x + inner_width] = _scaled(run, image, inner_width, inner_height, interpolation)
    return out


@node(
    "ImagePadForOutpaint",
    category="image",
    module="nodes",
    title="Pad Image for Outpainting",
    outputs=["IMAGE", "MASK"],
    inputs={"image": IMAGE, "left": PADDING, "top": PADDING, "right": PADDING, "bottom": PADDING, "feathering": integer(default=40, min=0, max=16384, step=1)},
)
def image_pad_for_outpaint(run: Run, image: Array, left: int, top: int, right: int, bottom: int, feathering: int) -> tuple[Array, Array]:
    count, height, width, channels = image.shape
    run.claim(count, height + top + bottom, width + left + right, channels + 1)
    out = np.full((count, height + top + bottom, width + left + right, channels), 0.5, dtype=np.float32)
    out[:, top : top + height, left : left + width] = image
    mask = np.ones(out.shape[1:3], dtype=np.float32)
    inner = np.zeros((height, width), dtype=np.float32)
    if feathering > 0 and feathering * 2 < min(height, width):
        far = np.float32(max(height, width))
        rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
        sides = [rows if top else far, height - rows if bottom else far, columns if left else far, width - columns if right else far]
        distance = np.minimum(np.minimum(sides[0], sides[1]), np.minimum(sides[2], sides[3]))
        inner = (np.clip((feathering - distance) / feathering, 0, None) ** 2).astype(np.float32)
    mask[top : top + height, left : left + width] = inner
    return out, mask[None]


def _scaled(run: Run, image: Array, width: int, height: int, method: str, crop: str = "disabled") -> Array:
    run.claim(2, len(image), height, width, image.shape[3])
    return pixels.resize(image, max(1, width), max(1, height), method, crop)
