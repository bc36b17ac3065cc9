"""Upscaling with a compact convolutional model, computed in numpy.

Only plain stacks of 3x3 convolutions with PReLU and a final pixel shuffle are
understood; such a model is small enough to run without a graphics card.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fleet.engine import safetensors
from fleet.engine.pixels import Array
from fleet.engine.run import Run
from fleet.engine.specs import link, model_choice, node_v3

TILE, OVERLAP = 512, 32
# Rows convolved at once, to keep the unfolded copy small.
STRIP = 32


@dataclass(frozen=True)
class CompactModel:
    """Layers in order: a convolution (weight, bias) or the slopes of a PReLU."""

    layers: tuple[tuple[Array, Array | None], ...]
    scale: int


IMAGE = link("IMAGE")


@node_v3(
    "UpscaleModelLoader",
    category="loaders",
    module="comfy_extras.nodes_upscale_model",
    title="Load Upscale Model",
    outputs=["UPSCALE_MODEL"],
    inputs={"model_name": model_choice("upscale_models")},
)
def upscale_model_loader(run: Run, model_name: str) -> CompactModel:
    path = run.directories.model_path("upscale_models", model_name)
    if path is None:
        raise FileNotFoundError(f"Model in folder 'upscale_models' with filename '{model_name}' not found.")
    if path.suffix != ".safetensors":
        raise NotImplementedError(f"{model_name}: the embedded engine reads safetensors only")
    return compact_model(safetensors.load(path))


@node_v3(
    "ImageUpscaleWithModel",
    category="image/upscaling",
    module="comfy_extras.nodes_upscale_model",
    title="Upscale Image (using Model)",
    outputs=["IMAGE"],
    inputs={"upscale_model": link("UPSCALE_MODEL"), "image": IMAGE},
)
def image_upscale_with_model(run: Run, upscale_model: CompactModel, image: Array) -> Array:
    count, height, width, _ = image.shape
    scale = upscale_model.scale
    run.claim(count, height * scale, width * scale, 3)
    out = np.zeros((count, height * scale, width * scale, 3), dtype=np.float32)
    places = [(y, x) for y in _positions(height) for x in _positions(width)]
    total, done = len(places) * count, 0
    for index in range(count):
        weights = np.zeros((height * scale, width * scale, 1), dtype=np.float32)
        for y, x in places:
            tile = _run(upscale_model, image[index, y : y + TILE, x : x + TILE, :3])
            cover = _feathered(tile.shape[0], tile.shape[1], OVERLAP * scale)
            area = (slice(y * scale, y * scale + tile.shape[0]), slice(x * scale, x * scale + tile.shape[1]))
            out[index][area] += tile * cover
            weights[area] += cover
            done += 1
            run.progress(done, total)
        out[index] /= weights
    return np.clip(out, 0, 1, out=out)


def compact_model(arrays: dict[str, Any]) -> CompactModel:
    """The model in a file's arrays; raises when it is of another architecture."""
    numbers = sorted({int(name.split(".")[1]) for name in arrays if name.startswith("body.")})
    layers: list[tuple[Array, Array | None]] = []
    for position in numbers:
        weight = np.asarray(arrays[f"body.{position}.weight"], dtype=np.float32)
        bias = arrays.get(f"body.{position}.bias")
        if weight.ndim not in (1, 4) or (weight.ndim == 4) != (bias is not None):
            raise NotImplementedError("the embedded engine runs compact upscale models only")
        layers.append((weight, None if bias is None else np.asarray(bias, dtype=np.float32)))
    if not layers or layers[-1][1] is None:
        raise NotImplementedError("the embedded engine runs compact upscale models only")
    return CompactModel(tuple(layers), math.isqrt(layers[-1][0].shape[0] // 3))


def _positions(length: int) -> list[int]:
    """Where tiles begin along one side."""
    return list(range(0, length - OVERLAP, TILE - OVERLAP)) if length > TILE else [0]


def _run(model: CompactModel, tile: Array) -> Array:
    values = np.ascontiguousarray(tile.transpose(2, 0, 1))
    for weight, bias in model.layers:
        if bias is None:
            values = np.maximum(values, 0) + weight[:, None, None] * np.minimum(values, 0)
        else:
            values = _convolved(values, weight, bias)
    height, width, scale = *tile.shape[:2], model.scale
    shuffled = values.reshape(3, scale, scale, height, width).transpose(3, 1, 4, 2, 0)
    # The model learns what to add to a plain enlargement.
    return shuffled.reshape(height * scale, width * scale, 3) + tile.repeat(scale, axis=0).repeat(scale, axis=1)


def _convolved(values: Array, weight: Array, bias: Array) -> Array:
    """A 3x3 convolution as one product per strip of rows; channels come first."""
    _, height, width = values.shape
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)))
    kernel = weight.reshape(len(bias), -1)
    out = np.empty((len(bias), height, width), dtype=np.float32)
    for top in range(0, height, STRIP):
        rows = min(STRIP, height - top)
        windows = np.lib.stride_tricks.sliding_window_view(padded[:, top : top + rows + 2], (3, 3), axis=(1, 2))
        columns = windows.transpose(0, 3, 4, 1, 2).reshape(kernel.shape[1], rows * width)
        out[:, top : top + rows] = (kernel @ columns).reshape(len(bias), rows, width) + bias[:, None, None]
    return out


def _feathered(height: int, width: int, reach: int) -> Array:
    """Weights that fade towards a tile's edges, so that overlapping tiles blend."""
    lines = []
    for length in (height, width):
        ramp = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)) / reach
        lines.append(np.minimum(ramp, 1.0).astype(np.float32))
    return (lines[0][:, None] * lines[1][None, :])[..., None]
