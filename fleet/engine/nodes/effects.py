"""Filters: images in, images of the same size out."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fleet.engine import noise, pixels
from fleet.engine.pixels import Array
from fleet.engine.run import Run
from fleet.engine.specs import choice, integer, link, node_v3, number

IMAGE = link("IMAGE")
SEED = integer(default=0, min=0, max=18446744073709551615, control_after_generate=True)
UNIT = number(default=0.5, min=0.0, max=1.0, step=0.01)


@node_v3("ImageAddNoise", category="image", module="comfy_extras.nodes_images", outputs=["IMAGE"], inputs={"image": IMAGE, "seed": SEED, "strength": UNIT})
def image_add_noise(run: Run, image: Array, seed: int, strength: float) -> Array:
    run.claim(2, *image.shape)
    added = noise.normal(seed, image.shape)
    added *= np.float32(strength)
    added += image
    return np.clip(added, 0, 1, out=added)


@node_v3(
    "ImageBlend",
    category="image/postprocessing",
    module="comfy_extras.nodes_post_processing",
    outputs=["IMAGE"],
    inputs={
        "image1": IMAGE,
        "image2": IMAGE,
        "blend_factor": UNIT,
        "blend_mode": choice(["normal", "multiply", "screen", "overlay", "soft_light", "difference"]),
    },
)
def image_blend(run: Run, image1: Array, image2: Array, blend_factor: float, blend_mode: str) -> Array:
    height, width, channels = image1.shape[1:]
    run.claim(3, len(image1), height, width, channels)
    if image2.shape[1:3] != (height, width):
        image2 = pixels.resize(image2, width, height, "bicubic", "center")
    count = max(len(image1), len(image2))
    shared = min(channels, image2.shape[3])
    lower, upper = pixels.with_batch(image1, count)[..., :shared], pixels.with_batch(image2, count)[..., :shared]
    factor = np.float32(blend_factor)
    return np.clip(lower * (1 - factor) + _blended(lower, upper, blend_mode) * factor, 0, 1)


@node_v3(
    "ImageBlur",
    category="image/postprocessing",
    module="comfy_extras.nodes_post_processing",
    outputs=["IMAGE"],
    inputs={"image": IMAGE, "blur_radius": integer(default=1, min=1, max=31, step=1), "sigma": number(default=1.0, min=0.1, max=10.0, step=0.1)},
)
def image_blur(run: Run, image: Array, blur_radius: int, sigma: float) -> Array:
    run.claim(3, *image.shape)
    return pixels.blur(image, blur_radius, sigma)


@node_v3(
    "ImageSharpen",
    category="image/postprocessing",
    module="comfy_extras.nodes_post_processing",
    outputs=["IMAGE"],
    inputs={
        "image": IMAGE,
        "sharpen_radius": integer(default=1, min=1, max=31, step=1),
        "sigma": number(default=1.0, min=0.1, max=10.0, step=0.01),
        "alpha": number(default=1.0, min=0.0, max=5.0, step=0.01),
    },
)
def image_sharpen(run: Run, image: Array, sharpen_radius: int, sigma: float, alpha: float) -> Array:
    run.claim(3, *image.shape)
    amount = np.float32(alpha * 10)
    return np.clip(image * (1 + amount) - pixels.blur(image, sharpen_radius, sigma) * amount, 0, 1)


@node_v3(
    "ImageQuantize",
    category="image/postprocessing",
    module="comfy_extras.nodes_post_processing",
    outputs=["IMAGE"],
    inputs={
        "image": IMAGE,
        "colors": integer(default=256, min=1, max=256, step=1),
        "dither": choice(["none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16"]),
    },
)
def image_quantize(run: Run, image: Array, colors: int, dither: str) -> Array:
    quantized = []
    for one in image:
        picture = pixels.to_pillow(one[..., :3])
        palette = picture.quantize(colors=colors)
        if dither.startswith("bayer"):
            picture = _ordered(picture, int(dither.partition("-")[2]), len(palette.getpalette() or [0] * 768) // 3)
        method = Image.Dither.FLOYDSTEINBERG if dither == "floyd-steinberg" else Image.Dither.NONE
        quantized.append(pixels.from_pillow(picture.quantize(colors=colors, palette=palette, dither=method).convert("RGB")))
    return np.stack(quantized)


def _blended(lower: Array, upper: Array, mode: str) -> Array:
    if mode == "normal":
        return upper
    if mode == "multiply":
        return lower * upper
    if mode == "screen":
        return 1 - (1 - lower) * (1 - upper)
    if mode == "overlay":
        return np.where(lower <= 0.5, 2 * lower * upper, 1 - 2 * (1 - lower) * (1 - upper))
    if mode == "difference":
        return lower - upper
    soft = np.where(lower <= 0.25, ((16 * lower - 12) * lower + 4) * lower, np.sqrt(lower))
    return np.where(upper <= 0.5, lower - (1 - 2 * upper) * lower * (1 - lower), lower + (2 * upper - 1) * (soft - lower))


def _ordered(picture: Image.Image, order: int, colors: int) -> Image.Image:
    """A picture with an ordered pattern of offsets added, twice as large as the step between colours."""
    pixels_of = np.asarray(picture, dtype=np.float32)
    height, width = pixels_of.shape[:2]
    offsets = _bayer(order) * np.float32(2 * 256 / colors) + np.float32(0.5)
    tiled = np.tile(offsets, (-(-height // order), -(-width // order)))[:height, :width, None]
    return Image.fromarray(np.clip(pixels_of + tiled, 0, 255).astype(np.uint8))


def _bayer(order: int) -> Array:
    """The ordered pattern of a size, its values spread evenly around zero."""
    pattern = np.zeros((1, 1), dtype=np.float32)
    while len(pattern) < order:
        step = np.float32(1 / (2 * len(pattern)) ** 2)
        pattern = np.block([[pattern - 1.5 * step, pattern + 0.5 * step], [pattern + 1.5 * step, pattern - 0.5 * step]]).astype(np.float32)
    return pattern
