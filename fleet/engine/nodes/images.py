"""Images made, joined, taken apart and composited."""

from __future__ import annotations

from typing import Any

import numpy as np

from fleet.engine import pixels
from fleet.engine.pixels import Array
from fleet.engine.run import Run
from fleet.engine.specs import flag, integer, link, node, node_v3

SIDE = integer(default=512, min=1, max=16384, step=1)
PLACE = integer(default=0, min=0, max=16384, step=1)
IMAGE = link("IMAGE")
MASK = link("MASK")
OFF = flag(default=False)


@node(
    "EmptyImage",
    category="image",
    module="nodes",
    outputs=["IMAGE"],
    inputs={
        "width": SIDE,
        "height": SIDE,
        "batch_size": integer(default=1, min=1, max=4096),
        "color": integer(default=0, min=0, max=16777215, step=1, display="color"),
    },
)
def empty_image(run: Run, width: int, height: int, batch_size: int, color: int) -> Array:
    run.claim(batch_size, height, width)
    run.claim(batch_size, height, width, 3)
    channels = [((color >> shift) & 0xFF) / 0xFF for shift in (16, 8, 0)]
    return np.broadcast_to(np.array(channels, dtype=np.float32), (batch_size, height, width, 3)).copy()


@node("ImageInvert", category="image", module="nodes", title="Invert Image", outputs=["IMAGE"], inputs={"image": IMAGE})
def image_invert(run: Run, image: Array) -> Array:
    return np.float32(1.0) - image


@node("ImageBatch", category="image", module="nodes", title="Batch Images", outputs=["IMAGE"], deprecated=True, inputs={"image1": IMAGE, "image2": IMAGE})
def image_batch(run: Run, image1: Array, image2: Array) -> Array:
    return joined(run, [image1, image2])


@node_v3(
    "BatchImagesNode",
    category="image",
    module="comfy_extras.nodes_post_processing",
    title="Batch Images",
    outputs=["IMAGE"],
    inputs={"images": link("COMFY_AUTOGROW_V3", template={"input": {"required": {"image": ["IMAGE", {}]}}, "prefix": "image", "min": 2, "max": 50})},
)
def batch_images_node(run: Run, images: dict[str, Array]) -> Array:
    return joined(run, list(images.values()))


@node_v3(
    "RepeatImageBatch",
    category="image/batch",
    module="comfy_extras.nodes_images",
    outputs=["IMAGE"],
    inputs={"image": IMAGE, "amount": integer(default=1, min=1, max=4096)},
)
def repeat_image_batch(run: Run, image: Array, amount: int) -> Array:
    run.claim(len(image) * amount, *image.shape[1:])
    return np.tile(image, (amount, 1, 1, 1))


@node_v3(
    "ImageFromBatch",
    category="image/batch",
    module="comfy_extras.nodes_images",
    outputs=["IMAGE"],
    inputs={"image": IMAGE, "batch_index": integer(default=0, min=0, max=4095), "length": integer(default=1, min=1, max=4096)},
)
def image_from_batch(run: Run, image: Array, batch_index: int, length: int) -> Array:
    start = min(len(image) - 1, batch_index)
    return image[start : start + min(len(image) - start, length)].copy()


@node_v3(
    "GetImageSize",
    category="image",
    module="comfy_extras.nodes_images",
    title="Get Image Size",
    outputs=["INT", "INT", "INT"],
    names=["width", "height", "batch_size"],
    hidden={"unique_id": ["UNIQUE_ID"]},
    inputs={"image": IMAGE},
)
def get_image_size(run: Run, image: Array) -> tuple[int, int, int]:
    count, height, width = image.shape[:3]
    run.report_text(f"width: {width}, height: {height}\n batch size: {count}")
    return width, height, count


@node_v3(
    "ImageCompositeMasked",
    category="image",
    module="comfy_extras.nodes_mask",
    outputs=["IMAGE"],
    inputs={"destination": IMAGE, "source": IMAGE, "x": PLACE, "y": PLACE, "resize_source": OFF},
    optional={"mask": MASK},
)
def image_composite_masked(run: Run, destination: Array, source: Array, x: int, y: int, resize_source: bool, mask: Array | None = None) -> Array:
    height, width = destination.shape[1:3]
    count = max(len(destination), len(source))
    run.claim(count, height, width, destination.shape[3])
    if resize_source:
        source = pixels.resize(source, width, height, "bilinear")
    cover = np.ones(source.shape[:3], dtype=np.float32) if mask is None else mask
    cover = pixels.resize(cover[..., None], source.shape[2], source.shape[1], "bilinear")
    out = pixels.with_batch(destination, count).copy()
    source, cover = pixels.with_batch(source, count), pixels.with_batch(cover, count)
    part_height, part_width = min(source.shape[1], height - y), min(source.shape[2], width - x)
    if part_height <= 0 or part_width <= 0:
        return out
    channels = min(out.shape[3], source.shape[3])
    part, cover = source[:, :part_height, :part_width, :channels], cover[:, :part_height, :part_width]
    under = out[:, y : y + part_height, x : x + part_width, :channels]
    out[:, y : y + part_height, x : x + part_width, :channels] = part * cover + under * (1 - cover)
    return out


@node_v3(
    "JoinImageWithAlpha",
    category="mask/compositing",
    module="comfy_extras.nodes_compositing",
    title="Join Image with Alpha",
    outputs=["IMAGE"],
    inputs={"image": IMAGE, "alpha": MASK},
)
def join_image_with_alpha(run: Run, image: Array, alpha: Array) -> Array:
    count = max(len(image), len(alpha))
    run.claim(count, *image.shape[1:3], 4)
    opacity = 1 - pixels.resize(alpha[..., None], image.shape[2], image.shape[1], "bilinear")
    return np.concatenate([pixels.with_batch(image, count)[..., :3], pixels.with_batch(opacity, count)], axis=3)


@node_v3(
    "SplitImageWithAlpha",
    category="mask/compositing",
    module="comfy_extras.nodes_compositing",
    title="Split Image with Alpha",
    outputs=["IMAGE", "MASK"],
    inputs={"image": IMAGE},
)
def split_image_with_alpha(run: Run, image: Array) -> tuple[Array, Array]:
    alpha = image[..., 3] if image.shape[3] > 3 else np.ones(image.shape[:3], dtype=np.float32)
    return image[..., :3].copy(), 1 - alpha


@node_v3(
    "ImageRGBToYUV",
    category="image/batch",
    module="comfy_extras.nodes_morphology",
    outputs=["IMAGE", "IMAGE", "IMAGE"],
    names=["Y", "U", "V"],
    inputs={"image": IMAGE},
)
def image_rgb_to_yuv(run: Run, image: Array) -> tuple[Array, Array, Array]:
    red, green, blue = (image[..., i] for i in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = (luma, (blue - luma) * 0.564 + 0.5, (red - luma) * 0.713 + 0.5)
    grey = [np.repeat(plane[..., None], 3, axis=3).astype(np.float32) for plane in planes]
    return grey[0], grey[1], grey[2]


@node_v3("ImageYUVToRGB", category="image/batch", module="comfy_extras.nodes_morphology", outputs=["IMAGE"], inputs={"Y": IMAGE, "U": IMAGE, "V": IMAGE})
def image_yuv_to_rgb(run: Run, Y: Array, U: Array, V: Array) -> Array:
    luma, blueness, redness = Y.mean(axis=3), U.mean(axis=3) - 0.5, V.mean(axis=3) - 0.5
    red, green, blue = luma + 1.403 * redness, luma - 0.714 * redness - 0.344 * blueness, luma + 1.773 * blueness
    return np.clip(np.stack([red, green, blue], axis=3), 0, 1).astype(np.float32)


def joined(run: Run, images: list[Array]) -> Array:
    """All images as one batch, in the size of the first and with alpha if any has it."""
    height, width = images[0].shape[1:3]
    channels = max(image.shape[3] for image in images)
    run.claim(sum(len(image) for image in images), height, width, channels)
    parts: list[Any] = []
    for image in images:
        if image.shape[1:3] != (height, width):
            image = pixels.resize(image, width, height, "bilinear", "center")
        missing = channels - image.shape[3]
        parts.append(np.pad(image, ((0, 0), (0, 0), (0, 0), (0, missing)), constant_values=1.0) if missing else image)
    return np.concatenate(parts)
