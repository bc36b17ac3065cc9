"""Arithmetic on images: float arrays from 0 to 1, shaped batch, height, width, channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

# Rows multiplied at once by a banded matrix: wide enough for BLAS, narrow enough to waste little.
BAND = 32


def resize(images: Array, width: int, height: int, method: str, crop: str = "disabled") -> Array:
    """Images scaled to a size; `center` crops first so that proportions stay."""
    if crop == "center":
        images = center_crop(images, width / height)
    if method == "lanczos":
        return _lanczos(images, width, height)
    along = {"nearest-exact": _nearest, "bilinear": _bilinear, "area": _area, "bicubic": _bicubic}[method]
    return np.ascontiguousarray(along(along(images, 1, height), 2, width), dtype=np.float32)


def center_crop(images: Array, aspect: float) -> Array:
    """The largest centred part with the given width-to-height ratio."""
    height, width = images.shape[1:3]
    x = y = 0
    if width / height > aspect:
        x = round((width - width * (aspect / (width / height))) / 2)
    elif width / height < aspect:
        y = round((height - height * ((width / height) / aspect)) / 2)
    return images[:, y : height - y, x : width - x]


def _nearest(values: Array, axis: int, size: int) -> Array:
    old = values.shape[axis]
    index = np.minimum(((np.arange(size) + 0.5) * old / size).astype(np.int64), old - 1)
    return values.take(index, axis=axis)


def _area(values: Array, axis: int, size: int) -> Array:
    old = values.shape[axis]
    if old % size == 0:
        shape = (*values.shape[:axis], size, old // size, *values.shape[axis + 1 :])
        return values.reshape(shape).mean(axis=axis + 1, dtype=np.float32)
    first = np.arange(size) * old // size
    last = -(-(np.arange(1, size + 1) * old) // size)
    sums = np.cumsum(values, axis=axis, dtype=np.float64)
    sums = np.concatenate([np.zeros_like(sums.take([0], axis=axis)), sums], axis=axis)
    counts = (last - first).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    return ((sums.take(last, axis=axis) - sums.take(first, axis=axis)) / counts).astype(np.float32)


def _bilinear(values: Array, axis: int, size: int) -> Array:
    position = np.maximum(_centres(values.shape[axis], size), 0)
    base = np.floor(position).astype(np.int64)
    part = position - base
    return _taps(values, axis, [(base, 1 - part), (base + 1, part)])


def _bicubic(values: Array, axis: int, size: int) -> Array:
    position = _centres(values.shape[axis], size)
    base = np.floor(position).astype(np.int64)
    part = position - base
    return _taps(values, axis, [(base + k, _cubic(np.abs(part - k))) for k in (-1, 0, 1, 2)])


def _centres(old: int, size: int) -> npt.NDArray[np.float64]:
    return (np.arange(size) + 0.5) * old / size - 0.5


def _cubic(distance: npt.NDArray[np.float64], a: float = -0.75) -> npt.NDArray[np.float64]:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, far)


def _taps(values: Array, axis: int, taps: list[tuple[Any, Any]]) -> Array:
    """A weighted sum of shifted samples; samples beyond the edge repeat it."""
    last = values.shape[axis] - 1
    shape = [-1 if i == axis else 1 for i in range(values.ndim)]
    total: Any = 0.0
    for index, weight in taps:
        total = total + values.take(np.clip(index, 0, last), axis=axis) * weight.astype(np.float32).reshape(shape)
    return np.asarray(total, dtype=np.float32)


def _lanczos(images: Array, width: int, height: int) -> Array:
    from PIL import Image

    done = [to_pillow(image).resize((width, height), Image.Resampling.LANCZOS) for image in images]
    return np.stack([from_pillow(image) for image in done])


def to_bytes(image: Array) -> npt.NDArray[np.uint8]:
    """Eight bits per channel, cut off at black and white."""
    return np.clip(255.0 * image, 0, 255).astype(np.uint8)


def to_pillow(image: Array) -> Any:
    from PIL import Image

    pixels = to_bytes(image)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def from_pillow(image: Any) -> Array:
    pixels = np.asarray(image, dtype=np.float32) / np.float32(255.0)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def gaussian(radius: int, sigma: float) -> Array:
    """Weights of a blur; sigma counts in radii, because the kernel spans -1 to 1."""
    weights = np.exp(-(np.linspace(-1, 1, 2 * radius + 1) ** 2) / (2 * sigma * sigma))
    return (weights / weights.sum()).astype(np.float32)


def blur(images: Array, radius: int, sigma: float) -> Array:
    """Images blurred by a Gaussian; edges are mirrored."""
    weights = gaussian(radius, sigma)
    blurred = np.empty_like(images)
    for i, image in enumerate(images):
        height, width, channels = image.shape
        down = _convolve(image.reshape(height, width * channels), weights)
        turned = np.ascontiguousarray(down.reshape(height, width, channels).transpose(1, 0, 2)).reshape(width, height * channels)
        blurred[i] = _convolve(turned, weights).reshape(width, height, channels).transpose(1, 0, 2)
    return blurred


def _convolve(rows: Array, weights: Array) -> Array:
    """Each column convolved with `weights`, as products with a narrow band matrix."""
    radius, count = len(weights) // 2, len(rows)
    # An image lower than the blur is mirrored more than once.
    padded = np.pad(rows, ((radius, radius), (0, 0)), mode="reflect") if count > 1 else np.repeat(rows, 2 * radius + 1, axis=0)
    out = np.empty_like(rows)
    for start in range(0, count, BAND):
        size = min(BAND, count - start)
        band = np.zeros((size, size + 2 * radius), dtype=np.float32)
        for row in range(size):
            band[row, row : row + 2 * radius + 1] = weights
        np.matmul(band, padded[start : start + size + 2 * radius], out=out[start : start + size])
    return out


def with_batch(images: Array, count: int) -> Array:
    """As many images as asked, the last one repeated."""
    if len(images) >= count:
        return images[:count]
    return np.concatenate([images, np.repeat(images[-1:], count - len(images), axis=0)])
