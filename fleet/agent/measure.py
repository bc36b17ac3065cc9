"""Facts about an output: does it open, how large, is it empty, what does it look like.

Judging them is the gates' work. Headers are read before anything is decoded, so that a small file
that unpacks to gigabytes is reported and not opened. Heavy imports happen at first use.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
from typing import Any

from fleet.agent import mediatypes

MAX_PIXELS = 150_000_000  # of one frame
MAX_SAMPLES = 200_000_000  # of audio
MAX_FRAMES = 2000
SHARPNESS_PIXELS = 4_000_000  # larger pictures are measured on a central crop
FLAT_STD = 2.0  # of 255: no picture of anything has less contrast
SILENT_RMS = 1e-4

UNKNOWN: dict[str, Any] = {
    "decodes": None,
    "width": None,
    "height": None,
    "frames": None,
    "duration_s": None,
    "flat": None,
    "blank": None,
    "has_nan": None,
    "sharpness": None,
    "phash": None,
}


def measure(data: bytes, media_type: str) -> dict[str, Any]:
    """The measurements of one output. Never raises: what cannot be told is None, what is broken says so."""
    found = dict(UNKNOWN)
    try:
        if media_type.startswith("image/") and media_type not in ("image/svg+xml", "image/x-exr"):
            found.update(_image(data))
        elif media_type.startswith("audio/"):
            found.update(_audio(data))
        elif media_type in ("video/mp4", "video/quicktime"):
            found.update(_iso_video(data))
        elif media_type == "application/x-safetensors":
            found.update(_tensors(data))
        elif mediatypes.kind(media_type) == "text":
            text = data.decode("utf-8")
            found.update(decodes=True, blank=not text.strip())
    except MemoryError:
        found["decodes"] = None
    except Exception as error:
        found.update(decodes=False, reason=f"{type(error).__name__}: {error}"[:200])
    return found


def _image(data: bytes) -> dict[str, Any]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None  # the limits below speak before decoding, and report instead of raising
        image = Image.open(io.BytesIO(data))
        width, height = image.size
        size = {"width": width, "height": height}
        if width * height > MAX_PIXELS:
            return {**size, "decodes": None, "reason": "too many pixels to decode safely"}
        frames = getattr(image, "n_frames", 1)
        if frames > MAX_FRAMES or frames * width * height > 8 * MAX_PIXELS:
            return {**size, "frames": frames, "decodes": None, "reason": "too many frames to decode safely"}
        image.load()
        looks = _looks(image)
        duration_ms = image.info.get("duration", 0) if frames > 1 else 0
        for index in range(1, frames):
            image.seek(index)
            image.load()
            duration_ms += image.info.get("duration", 0)
            if looks["blank"]:
                # A film is blank only when every frame of it is.
                looks = {**looks, **{k: v for k, v in _looks(image).items() if k in ("blank", "flat")}}
    return {**size, **looks, "decodes": True, "frames": frames, "duration_s": round(duration_ms / 1000, 3) if frames > 1 else None}


def _looks(image: Any) -> dict[str, Any]:
    import imagehash
    import numpy as np

    blank = all(low == high for low, high in _extrema(image))
    shown = image
    if "A" in image.getbands():
        # What is fully transparent is not there.
        blank = blank or image.getchannel("A").getextrema() == (0, 0)
    grey = np.asarray(shown.convert("L"), dtype=np.float32)
    flat = float(grey.std()) < FLAT_STD
    if grey.size > SHARPNESS_PIXELS:
        side = int(SHARPNESS_PIXELS**0.5)
        top, left = max((grey.shape[0] - side) // 2, 0), max((grey.shape[1] - side) // 2, 0)
        grey = grey[top : top + side, left : left + side]
    sharpness = None
    if min(grey.shape) >= 3:
        laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
        sharpness = round(float(laplacian.var()), 3)
    return {"blank": blank, "flat": flat, "sharpness": sharpness, "phash": str(imagehash.phash(shown.convert("RGB")))}


def _extrema(image: Any) -> list[tuple[float, float]]:
    found = image.getextrema()
    return [found] if isinstance(found[0], int | float) else list(found)


def _audio(data: bytes) -> dict[str, Any]:
    import numpy as np
    import soundfile

    with soundfile.SoundFile(io.BytesIO(data)) as sound:
        facts: dict[str, Any] = {"frames": sound.frames, "duration_s": round(sound.frames / sound.samplerate, 3)}
        if sound.frames * sound.channels > MAX_SAMPLES:
            return {**facts, "decodes": None, "reason": "too many samples to decode safely"}
        has_nan, total, count, low, high = False, 0.0, 0, np.inf, -np.inf
        for block in sound.blocks(blocksize=1 << 18, dtype="float32", always_2d=True):
            bad = ~np.isfinite(block)
            has_nan = has_nan or bool(bad.any())
            block[bad] = 0.0
            total += float(np.square(block, dtype=np.float64).sum())
            count += block.size
            low, high = min(low, float(block.min())), max(high, float(block.max()))
    rms = (total / count) ** 0.5 if count else 0.0
    return {**facts, "decodes": count > 0, "has_nan": has_nan, "blank": count > 0 and low == high, "flat": rms < SILENT_RMS}


def _iso_video(data: bytes) -> dict[str, Any]:
    """Size and length from the container. Frames are not decoded: there is no video decoder in the agent."""
    facts: dict[str, Any] = {}
    for kind, body in _boxes(data, 0, len(data)):
        if kind != b"moov":
            continue
        for inner, (start, end) in _boxes(data, *body):
            if inner == b"mvhd":
                wide = data[start] == 1
                scale, length = struct.unpack_from(">IQ" if wide else ">II", data, start + (20 if wide else 12))
                facts["duration_s"] = round(length / scale, 3) if scale else None
            elif inner == b"trak":
                for deep, (first, last) in _boxes(data, start, end):
                    if deep == b"tkhd" and last - first >= 8:
                        width, height = struct.unpack_from(">II", data, last - 8)
                        if width and height:
                            facts.update(width=width >> 16, height=height >> 16)
    return {**facts, "decodes": None if facts else False}


def _boxes(data: bytes, start: int, end: int) -> list[tuple[bytes, tuple[int, int]]]:
    found: list[tuple[bytes, tuple[int, int]]] = []
    while start + 8 <= end and len(found) < 10_000:
        size, head = int.from_bytes(data[start : start + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        elif size == 0:
            size = end - start
        if size < head or start + size > end:
            break
        found.append((data[start + 4 : start + 8], (start + head, start + size)))
        start += size
    return found


def _tensors(data: bytes) -> dict[str, Any]:
    """A latent or another safetensors file: whether its numbers are numbers, and not all the same."""
    import numpy as np

    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    body = memoryview(data)[8 + size :]
    types = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
    has_nan, blank, largest = False, True, 0
    shape: list[int] = []
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        start, end = tensor["data_offsets"]
        if not 0 <= start <= end <= len(body):
            raise ValueError(f"tensor {name} lies outside the file")
        if tensor["dtype"] == "BF16":
            values = (np.frombuffer(body[start:end], "<u2").astype(np.uint32) << 16).view(np.float32)
        elif tensor["dtype"] in types:
            values = np.frombuffer(body[start:end], types[tensor["dtype"]])
        else:
            continue
        if values.size:
            has_nan = has_nan or not bool(np.isfinite(values).all())
            blank = blank and bool((values == values[0]).all())
            if values.size > largest:
                largest, shape = values.size, [int(n) for n in tensor["shape"]]
    facts: dict[str, Any] = {"decodes": True, "has_nan": has_nan, "blank": blank if largest else None}
    if len(shape) == 4:  # batch, channels, height, width
        facts.update(frames=shape[0], height=shape[2], width=shape[3])
    return facts
