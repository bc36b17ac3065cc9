"""The smallest inputs a version still runs with, made from what it exposes. Pure: the same inputs give the same values.

The rules, in order: a seed is fixed; a picture or a sound is a small generated one, any other file is the version's own
default; a choice, a switch and a strength keep the graph's own value, which is known to work; what costs time (sides,
steps, pictures, frames, seconds) is set to the least that still shows something, never above the graph's own value and
never outside of what is legal; text keeps its default, else says a few words. What no rule can fill is named.
"""

from __future__ import annotations

import base64
import io
import math
import struct
import wave
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from builds.exposed import ExposedInput, load_all

SEED = 42
SIDE = 256
"""Pixels of a side: less, and common models paint noise that no check can tell from a fault."""
STEPS = 4
FRAMES = 5
SECONDS = 1
MEGAPIXELS = 0.1
PICTURE = (256, 192)
PROMPT = "a small lighthouse on a rock at dusk"

_SIDES = ("width", "height", "side", "resolution", "size", "target_width", "target_height")
_STEPS = ("steps", "num_steps", "num_inference_steps", "sampling_steps")
_ONES = ("batch_size", "batch", "num_images", "count", "amount_of_images", "images")
_FRAMES = ("frames", "num_frames", "length", "video_length", "frame_count")
_SECONDS = ("seconds", "duration", "duration_s", "audio_length")
_MEGAPIXELS = ("megapixels",)


@dataclass(frozen=True)
class Generated:
    """The values, why each was chosen, and the inputs that need a person."""

    inputs: dict[str, Any]
    why: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def generate(exposed: Iterable[ExposedInput | Mapping[str, Any]]) -> Generated:
    """A value for every exposed input, each one the version's own check accepts."""
    values: dict[str, Any] = {}
    why: dict[str, str] = {}
    missing: list[str] = []
    for one in load_all(exposed):
        value, reason = _value(one)
        if value is None:
            if one.required:
                missing.append(one.name)
            continue
        values[one.name], why[one.name] = value, reason
    return Generated(values, why, tuple(missing))


def _value(one: ExposedInput) -> tuple[Any, str]:
    if one.is_file:
        return _file(one)
    if one.enum is not None:
        kept = one.default if one.default in one.enum else next(iter(one.enum), None)
        return kept, "the graph's own choice" if kept == one.default else "the first choice"
    if one.type == "boolean":
        return bool(one.default), "the graph's own setting"
    if one.type in ("integer", "number"):
        return _number(one)
    return _text(one)


def _file(one: ExposedInput) -> tuple[Any, str]:
    if one.kind == "image":
        return picture(), f"a generated picture of {PICTURE[0]} × {PICTURE[1]} pixels"
    if one.kind == "audio":
        return sound(), "a generated tone of half a second"
    return one.default or None, "the version's own file"


def _text(one: ExposedInput) -> tuple[str, str]:
    if one.default:
        return str(one.default)[: one.max_length], "the graph's own text"
    if not one.required and "negative" in one.name:
        return "", "nothing to avoid"
    return PROMPT[: one.max_length or len(PROMPT)], "a few words"


def _number(one: ExposedInput) -> tuple[Any, str]:
    if one.randomize or one.input in ("seed", "noise_seed"):
        return _legal(one, SEED), "a fixed seed, so that two runs can be compared"
    for names, target, reason in (
        (_SIDES, SIDE, f"the smallest side that still shows something, {SIDE} at most"),
        (_STEPS, STEPS, f"few steps, {STEPS} at most"),
        (_ONES, 1, "one is enough"),
        (_FRAMES, FRAMES, f"few frames, about {FRAMES}"),
        (_SECONDS, SECONDS, f"about {SECONDS} second"),
        (_MEGAPIXELS, MEGAPIXELS, f"{MEGAPIXELS} megapixels at most"),
    ):
        if one.name in names or one.input in names:
            least = target if one.default is None else min(target, one.default)
            return _legal(one, least), reason
    if one.default is not None:
        return _legal(one, one.default), "the graph's own value"
    return _legal(one, one.minimum if one.minimum is not None else 1), "the least that is allowed"


def _legal(one: ExposedInput, wanted: float) -> int | float:
    """The value nearest to `wanted` that is in range; a whole one lies on the step that counts from the minimum, rounded up where there is room."""
    low, high = one.minimum, one.maximum
    value = wanted if low is None else max(wanted, low)
    value = value if high is None else min(value, high)
    if one.type == "number":
        return float(value)
    value = math.ceil(value) if high is None or math.ceil(value) <= high else math.floor(value)
    value = min(max(value, -(2**63)), 2**63)  # larger ones travel badly through JSON
    step = one.multiple_of
    if step is not None:
        up = value + -value % step
        return up if high is None or up <= high else up - step
    if isinstance(one.step, int) and one.step > 1 and isinstance(low, int):
        up = low + -(-(value - low) // one.step) * one.step  # ceiling
        return up if high is None or up <= high else value
    return value


@cache
def picture() -> str:
    """A small picture with edges, colours and shades, as a data: URL."""
    from PIL import Image, ImageDraw

    width, height = PICTURE
    across, down = Image.linear_gradient("L").rotate(90).resize(PICTURE), Image.linear_gradient("L").resize(PICTURE)
    image = Image.merge("RGB", (across, down, Image.new("L", PICTURE, 96)))
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 4, height // 5, width // 2, height * 7 // 10), fill=(236, 200, 60))
    draw.rectangle((width * 5 // 8, height // 3, width * 7 // 8, height * 5 // 6), fill=(40, 60, 150))
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


@cache
def sound() -> str:
    """Half a second of a tone, as a data: URL."""
    out, rate = io.BytesIO(), 16_000
    with wave.open(out, "wb") as tone:
        tone.setnchannels(1)
        tone.setsampwidth(2)
        tone.setframerate(rate)
        tone.writeframes(b"".join(struct.pack("<h", round(9_000 * math.sin(2 * math.pi * 440 * n / rate))) for n in range(rate // 2)))
    return f"data:audio/wav;base64,{base64.b64encode(out.getvalue()).decode()}"
