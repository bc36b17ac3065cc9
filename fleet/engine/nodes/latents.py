"""Latents: a dict with `samples`, shaped batch, channels, height, width."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np

from fleet.engine import pixels, safetensors
from fleet.engine.nodes.files import HIDDEN, as_metadata
from fleet.engine.run import Result, Run
from fleet.engine.specs import choice, integer, link, node, node_v3, number, text

Latent = dict[str, Any]

LATENT = link("LATENT")
LATENT_SIDE = integer(default=512, min=16, max=16384, step=8)
FLIPS = choice(["x-axis: vertically", "y-axis: horizontally"])
TURNS = choice(["none", "90 degrees", "180 degrees", "270 degrees"])


@node(
    "EmptyLatentImage",
    category="latent",
    module="nodes",
    title="Empty Latent Image",
    outputs=["LATENT"],
    inputs={"width": LATENT_SIDE, "height": LATENT_SIDE, "batch_size": integer(default=1, min=1, max=4096)},
)
def empty_latent_image(run: Run, width: int, height: int, batch_size: int) -> Latent:
    return _empty(run, batch_size, 4, height, width)


@node_v3(
    "EmptySD3LatentImage",
    category="latent/sd3",
    module="comfy_extras.nodes_sd3",
    outputs=["LATENT"],
    inputs={
        "width": integer(default=1024, min=16, max=16384, step=16),
        "height": integer(default=1024, min=16, max=16384, step=16),
        "batch_size": integer(default=1, min=1, max=4096),
    },
)
def empty_sd3_latent_image(run: Run, width: int, height: int, batch_size: int) -> Latent:
    return _empty(run, batch_size, 16, height, width)


@node(
    "SaveLatent",
    category="_for_testing",
    module="nodes",
    terminal=True,
    hidden=HIDDEN,
    inputs={"samples": LATENT, "filename_prefix": text(default="latents/ComfyUI")},
)
def save_latent(run: Run, samples: Latent, filename_prefix: str) -> Result:
    output = run.directories.output
    place = run.directories.next_file(output, filename_prefix, now=datetime.now())
    name = f"{place.stem}_{place.counter:05}_.latent"
    arrays = {"latent_tensor": np.ascontiguousarray(samples["samples"]), "latent_format_version_0": np.array([], dtype=np.float32)}
    safetensors.save(place.folder / name, arrays, as_metadata(run))
    return Result(ui={"latents": [{"filename": name, "subfolder": place.subfolder, "type": "output"}]})


@node("LoadLatent", category="_for_testing", module="nodes", outputs=["LATENT"], inputs={"latent": choice(lambda directories: directories.inputs({".latent"}))})
def load_latent(run: Run, latent: str) -> Latent:
    arrays = safetensors.load(run.directories.annotated(latent))
    scale = 1.0 if "latent_format_version_0" in arrays else 1.0 / 0.18215
    return {"samples": (arrays["latent_tensor"] * scale).astype(np.float32)}


@node(
    "LatentUpscale",
    category="latent",
    module="nodes",
    title="Upscale Latent",
    outputs=["LATENT"],
    inputs={
        "samples": LATENT,
        "upscale_method": choice(["nearest-exact", "bilinear", "area", "bicubic", "bislerp"]),
        "width": integer(default=512, min=0, max=16384, step=8),
        "height": integer(default=512, min=0, max=16384, step=8),
        "crop": choice(["disabled", "center"]),
    },
)
def latent_upscale(run: Run, samples: Latent, upscale_method: str, width: int, height: int, crop: str) -> Latent:
    values = samples["samples"]
    old_height, old_width = values.shape[2:]
    if width == 0 and height == 0:
        return samples
    width = max(64, width) // 8 if width else max(8, round(old_width * (height // 8) / old_height))
    height = max(64, height) // 8 if height else max(8, round(old_height * width / old_width))
    run.claim(2, *values.shape[:2], height, width)
    # Spherical interpolation of latents has no model-free use; a straight one stands in.
    method = "bilinear" if upscale_method == "bislerp" else upscale_method
    scaled = pixels.resize(values.transpose(0, 2, 3, 1), width, height, method, crop)
    return {**samples, "samples": scaled.transpose(0, 3, 1, 2).copy()}


@node("LatentFlip", category="latent/transform", module="nodes", title="Flip Latent", outputs=["LATENT"], inputs={"samples": LATENT, "flip_method": FLIPS})
def latent_flip(run: Run, samples: Latent, flip_method: str) -> Latent:
    return {**samples, "samples": np.flip(samples["samples"], axis=2 if flip_method.startswith("x") else 3).copy()}


@node("LatentRotate", category="latent/transform", module="nodes", title="Rotate Latent", outputs=["LATENT"], inputs={"samples": LATENT, "rotation": TURNS})
def latent_rotate(run: Run, samples: Latent, rotation: str) -> Latent:
    quarters = 0 if rotation == "none" else int(rotation.split()[0]) // 90
    return {**samples, "samples": np.rot90(samples["samples"], k=quarters, axes=(3, 2)).copy()}


@node(
    "LatentFromBatch",
    category="latent/batch",
    module="nodes",
    title="Latent From Batch",
    outputs=["LATENT"],
    inputs={"samples": LATENT, "batch_index": integer(default=0, min=0, max=63), "length": integer(default=1, min=1, max=64)},
)
def latent_from_batch(run: Run, samples: Latent, batch_index: int, length: int) -> Latent:
    start = min(len(samples["samples"]) - 1, batch_index)
    return {**samples, "samples": samples["samples"][start : start + length].copy()}


@node(
    "RepeatLatentBatch",
    category="latent/batch",
    module="nodes",
    title="Repeat Latent Batch",
    outputs=["LATENT"],
    inputs={"samples": LATENT, "amount": integer(default=1, min=1, max=64)},
)
def repeat_latent_batch(run: Run, samples: Latent, amount: int) -> Latent:
    run.claim(amount, *samples["samples"].shape)
    return {**samples, "samples": np.tile(samples["samples"], (amount, 1, 1, 1))}


@node_v3("LatentAdd", category="latent/advanced", module="comfy_extras.nodes_latent", outputs=["LATENT"], inputs={"samples1": LATENT, "samples2": LATENT})
def latent_add(run: Run, samples1: Latent, samples2: Latent) -> Latent:
    return {**samples1, "samples": samples1["samples"] + _like(samples1, samples2)}


@node_v3("LatentSubtract", category="latent/advanced", module="comfy_extras.nodes_latent", outputs=["LATENT"], inputs={"samples1": LATENT, "samples2": LATENT})
def latent_subtract(run: Run, samples1: Latent, samples2: Latent) -> Latent:
    return {**samples1, "samples": samples1["samples"] - _like(samples1, samples2)}


@node_v3(
    "LatentMultiply",
    category="latent/advanced",
    module="comfy_extras.nodes_latent",
    outputs=["LATENT"],
    inputs={"samples": LATENT, "multiplier": number(default=1.0, min=-10.0, max=10.0, step=0.01)},
)
def latent_multiply(run: Run, samples: Latent, multiplier: float) -> Latent:
    return {**samples, "samples": samples["samples"] * np.float32(multiplier)}


@node(
    "LatentBlend",
    category="_for_testing",
    module="nodes",
    title="Latent Blend",
    outputs=["LATENT"],
    inputs={"samples1": LATENT, "samples2": LATENT, "blend_factor": number(default=0.5, min=0, max=1, step=0.01)},
)
def latent_blend(run: Run, samples1: Latent, samples2: Latent, blend_factor: float) -> Latent:
    first, second = samples1["samples"], _like(samples1, samples2)
    if first.shape[1] != second.shape[1]:
        raise RuntimeError(f"The size of tensor a ({first.shape[1]}) must match the size of tensor b ({second.shape[1]}) at non-singleton dimension 1")
    return {**samples1, "samples": first * np.float32(blend_factor) + second * np.float32(1 - blend_factor)}


def _empty(run: Run, count: int, channels: int, height: int, width: int) -> Latent:
    shape = (count, channels, height // 8, width // 8)
    run.claim(*shape)
    return {"samples": np.zeros(shape, dtype=np.float32)}


def _like(wanted: Latent, latent: Latent) -> Any:
    """The second latent in the size and batch of the first."""
    height, width = wanted["samples"].shape[2:]
    values = latent["samples"]
    if values.shape[2:] != (height, width):
        values = pixels.resize(values.transpose(0, 2, 3, 1), width, height, "bicubic", "center").transpose(0, 3, 1, 2)
    return pixels.with_batch(values, len(wanted["samples"]))
