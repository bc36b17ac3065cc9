"""Images loaded from and saved to the engine's directories."""

from __future__ import annotations

import hashlib
import json
import random
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImageSequence
from PIL.PngImagePlugin import PngInfo

from fleet.engine import pixels
from fleet.engine.directories import IMAGE_SUFFIXES, Directories, OutsideDirectory
from fleet.engine.pixels import Array
from fleet.engine.run import Result, Run
from fleet.engine.specs import choice, flag, integer, link, node, node_v3, number, text

HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
HIDDEN_V3 = {"prompt": ["PROMPT"], "extra_pnginfo": ["EXTRA_PNGINFO"]}
LETTERS = "abcdefghijklmnopqrstupvxyz"
# EXIF tags that carry the prompt (model) and, counting down, the rest (maker and below).
EXIF_PROMPT, EXIF_REST = 0x0110, 0x010F
WEBP_EFFORT = {"default": 4, "fastest": 0, "slowest": 6}


def image_names(directories: Directories) -> list[str]:
    return directories.inputs(IMAGE_SUFFIXES)


def _image_refused(directories: Directories, image: str) -> str | None:
    try:
        found = directories.annotated(image).is_file()
    except (OutsideDirectory, ValueError):
        found = False
    return None if found else f"Invalid image file: {image}"


def _content(directories: Directories, image: str, **_: Any) -> str:
    return hashlib.sha256(directories.annotated(image).read_bytes()).hexdigest()


def as_metadata(run: Run) -> dict[str, str]:
    """The prompt and the client's extra facts, as text to put into a file."""
    extra = run.extra_data.get("extra_pnginfo")
    return {"prompt": json.dumps(run.prompt), **{key: json.dumps(value) for key, value in (extra.items() if isinstance(extra, dict) else ())}}


def temporary_prefix() -> str:
    return "ComfyUI_temp_" + "".join(random.choice(LETTERS) for _ in range(5))


IMAGE = link("IMAGE")
MASK = link("MASK")
ON = flag(default=True)


@node(
    "LoadImage",
    category="image",
    module="nodes",
    title="Load Image",
    outputs=["IMAGE", "MASK"],
    stamp=_content,
    check=_image_refused,
    checked=("image",),
    inputs={"image": choice(image_names, image_upload=True)},
)
def load_image(run: Run, image: str) -> tuple[Array, Array]:
    frames: list[Array] = []
    masks: list[Array] = []
    with Image.open(run.directories.annotated(image)) as opened:
        count = getattr(opened, "n_frames", 1)
        run.claim(count, opened.height, opened.width, 4)
        for frame in ImageSequence.Iterator(opened):
            picture = ImageOps.exif_transpose(frame)
            if frames and picture.size != (frames[0].shape[1], frames[0].shape[0]):
                continue
            frames.append(pixels.from_pillow(_rgb(picture)))
            masks.append(_transparency(picture))
            if opened.format == "MPO":
                break
    return np.stack(frames), np.stack(masks)


@node(
    "LoadImageMask",
    category="mask",
    module="nodes",
    title="Load Image (as Mask)",
    outputs=["MASK"],
    stamp=_content,
    check=_image_refused,
    checked=("image",),
    inputs={"image": choice(image_names, image_upload=True), "channel": choice(["alpha", "red", "green", "blue"])},
)
def load_image_mask(run: Run, image: str, channel: str) -> Array:
    with Image.open(run.directories.annotated(image)) as opened:
        run.claim(opened.height, opened.width, 4)
        picture = ImageOps.exif_transpose(opened)
        if picture.getbands() != ("R", "G", "B", "A"):
            picture = (_rgb(picture) if picture.mode.startswith("I") else picture).convert("RGBA")
        band = channel[0].upper()
        values = np.asarray(picture.getchannel(band), dtype=np.float32) / np.float32(255.0)
    return (1 - values if band == "A" else values)[None]


@node(
    "SaveImage",
    category="image",
    module="nodes",
    title="Save Image",
    terminal=True,
    hidden=HIDDEN,
    inputs={"images": IMAGE, "filename_prefix": text(default="ComfyUI")},
)
def save_image(run: Run, images: Array, filename_prefix: str = "ComfyUI") -> Result:
    return save_pngs(run, images, filename_prefix, kind="output", compress_level=4)


@node("PreviewImage", category="image", module="nodes", title="Preview Image", terminal=True, hidden=HIDDEN, inputs={"images": IMAGE})
def preview_image(run: Run, images: Array) -> Result:
    return save_pngs(run, images, temporary_prefix(), kind="temp", compress_level=1)


@node_v3("MaskPreview", category="mask", module="comfy_extras.nodes_mask", title="Preview Mask", terminal=True, hidden=HIDDEN_V3, inputs={"mask": MASK})
def mask_preview(run: Run, mask: Array) -> Result:
    return save_pngs(run, np.repeat(mask[..., None], 3, axis=3), temporary_prefix(), kind="temp", compress_level=4)


@node_v3(
    "SaveAnimatedWEBP",
    category="image/animation",
    module="comfy_extras.nodes_images",
    terminal=True,
    hidden=HIDDEN_V3,
    inputs={
        "images": IMAGE,
        "filename_prefix": text(default="ComfyUI", multiline=False),
        "fps": number(default=6.0, min=0.01, max=1000.0, step=0.01),
        "lossless": ON,
        "quality": integer(default=80, min=0, max=100),
        "method": choice(["default", "fastest", "slowest"]),
    },
)
def save_animated_webp(run: Run, images: Array, filename_prefix: str, fps: float, lossless: bool, quality: int, method: str) -> Result:
    frames = [pixels.to_pillow(image) for image in images]
    exif = frames[0].getexif()
    for offset, (key, value) in enumerate(as_metadata(run).items()):
        exif[EXIF_PROMPT if key == "prompt" else EXIF_REST + 1 - offset] = f"{key}:{value}"
    path, shown = _next(run, filename_prefix, images, "webp")
    frames[0].save(
        path,
        save_all=True,
        duration=int(1000.0 / fps),
        append_images=frames[1:],
        exif=exif,
        lossless=lossless,
        quality=quality,
        method=WEBP_EFFORT[method],
    )
    return _animation(shown, frames)


@node_v3(
    "SaveAnimatedPNG",
    category="image/animation",
    module="comfy_extras.nodes_images",
    terminal=True,
    hidden=HIDDEN_V3,
    inputs={
        "images": IMAGE,
        "filename_prefix": text(default="ComfyUI", multiline=False),
        "fps": number(default=6.0, min=0.01, max=1000.0, step=0.01),
        "compress_level": integer(default=4, min=0, max=9),
    },
)
def save_animated_png(run: Run, images: Array, filename_prefix: str, fps: float, compress_level: int) -> Result:
    frames = [pixels.to_pillow(image) for image in images]
    path, shown = _next(run, filename_prefix, images, "png")
    frames[0].save(path, pnginfo=_png_text(run), compress_level=compress_level, save_all=True, duration=int(1000.0 / fps), append_images=frames[1:])
    return _animation(shown, frames)


def _rgb(picture: Any) -> Any:
    if picture.mode.startswith("I"):
        # Sixteen bits per channel: keep the upper eight.
        picture = picture.point(lambda value: value * (1 / 255))
    return picture.convert("RGB")


def _transparency(picture: Any) -> Array:
    """One minus alpha; an opaque image gets a small empty mask."""
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if "A" not in picture.getbands():
        return np.zeros((64, 64), dtype=np.float32)
    return 1 - np.asarray(picture.getchannel("A"), dtype=np.float32) / np.float32(255.0)


def _png_text(run: Run) -> PngInfo:
    chunks = PngInfo()
    for key, value in as_metadata(run).items():
        chunks.add_text(key, value)
    return chunks


def save_pngs(run: Run, images: Array, prefix: str, *, kind: str, compress_level: int) -> Result:
    """Save a batch as numbered PNG files that carry the prompt."""
    base = run.directories.of(kind)
    assert base is not None
    height, width = images.shape[1:3]
    place = run.directories.next_file(base, prefix, width=width, height=height, now=datetime.now())
    shown = []
    for index, image in enumerate(images):
        name = f"{place.stem.replace('%batch_num%', str(index))}_{place.counter + index:05}_.png"
        pixels.to_pillow(image).save(place.folder / name, pnginfo=_png_text(run), compress_level=compress_level)
        shown.append({"filename": name, "subfolder": place.subfolder, "type": kind})
    return Result(ui={"images": shown})


def _next(run: Run, prefix: str, images: Array, suffix: str) -> tuple[Path, dict[str, str]]:
    height, width = images.shape[1:3]
    place = run.directories.next_file(run.directories.output, prefix, width=width, height=height, now=datetime.now())
    name = f"{place.stem}_{place.counter:05}_.{suffix}"
    return place.folder / name, {"filename": name, "subfolder": place.subfolder, "type": "output"}


def _animation(shown: dict[str, str], frames: list[Any]) -> Result:
    moving = {"animated": [True]} if len(frames) > 1 else {}
    return Result(ui={"images": [shown], **moving})
