"""Measurements of outputs, and their limits."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fleet.agent import mediatypes
from fleet.agent.measure import measure

MAGIC = [b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFFxxxxWEBP", b"fLaC", b"OggS", b"\0\0\0\x18ftypisom", b"II*\0", b"\x02\0\0\0\0\0\0\0{}", b""]


def picture(pixels, fmt="PNG", **kwargs):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, fmt, **kwargs)
    return buffer.getvalue()


def noise(height=48, width=64):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def measured(data):
    return measure(data, mediatypes.sniff(data))


def test_a_picture_is_measured():
    found = measured(picture(noise()))
    assert found | {"sharpness": 1, "phash": 1} == {
        "decodes": True,
        "width": 64,
        "height": 48,
        "frames": 1,
        "duration_s": None,
        "flat": False,
        "blank": False,
        "has_nan": None,
        "sharpness": 1,
        "phash": 1,
    }
    assert found["sharpness"] > 1000 and len(found["phash"]) == 16


def test_one_colour_is_blank_and_flat():
    found = measured(picture(np.full((32, 32, 3), 200, np.uint8)))
    assert found["blank"] and found["flat"] and found["sharpness"] == 0


def test_almost_one_colour_is_flat_but_not_blank():
    pixels = np.full((32, 32, 3), 200, np.uint8)
    pixels[0, 0] = 201
    found = measured(picture(pixels))
    assert found["flat"] and not found["blank"]


def test_a_fully_transparent_picture_is_blank():
    assert measured(picture(np.dstack([noise(), np.zeros((48, 64), np.uint8)])))["blank"]


def test_an_animation_has_frames_and_a_length():
    frames = [Image.fromarray(noise() // n if n else np.zeros((48, 64, 3), np.uint8)) for n in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=100)
    found = measured(buffer.getvalue())
    assert (found["frames"], found["duration_s"], found["blank"]) == (3, 0.3, False)


def test_a_truncated_picture_does_not_decode():
    assert measured(picture(noise())[:200])["decodes"] is False


def bomb(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_reported_and_not_opened():
    found = measured(bomb(50_000, 50_000))
    assert found["decodes"] is None and (found["width"], found["height"]) == (50_000, 50_000)


@pytest.mark.parametrize(("value", "blank", "nan"), [(0.0, True, False), (None, False, False), (float("nan"), None, True)])
def test_sound_is_measured(value, blank, nan):
    wave = np.sin(np.linspace(0, 400, 8000, dtype=np.float32))
    if value is not None:
        wave[: 4000 if nan else None] = value
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, 8000, format="WAV", subtype="FLOAT")
    found = measured(buffer.getvalue())
    assert found["decodes"] and found["duration_s"] == 1.0 and found["has_nan"] is nan
    if blank is not None:
        assert found["blank"] is blank and found["flat"] is blank


@pytest.mark.parametrize(("values", "nan", "blank"), [([0.0] * 4, False, True), ([1.0, 2.0, 3.0, 4.0], False, False), ([1.0, float("nan"), 0, 0], True, False)])
@pytest.mark.parametrize("kind", ["F16", "F32", "BF16"])
def test_latents_are_searched_for_nan(values, nan, blank, kind):
    if kind == "BF16":
        body = (np.array(values, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    else:
        body = np.array(values, {"F16": "<f2", "F32": "<f4"}[kind]).tobytes()
    header = json.dumps({"latent_tensor": {"dtype": kind, "shape": [1, 1, 2, 2], "data_offsets": [0, len(body)]}}).encode()
    found = measured(len(header).to_bytes(8, "little") + header + body)
    assert (found["decodes"], found["has_nan"], found["blank"], found["width"]) == (True, nan, blank, 2)


def test_video_containers_tell_size_and_length():
    def box(kind, body):
        return struct.pack(">I", 8 + len(body)) + kind + body

    mvhd = box(b"mvhd", bytes(12) + struct.pack(">II", 1000, 2500) + bytes(80))
    tkhd = box(b"tkhd", bytes(76) + struct.pack(">II", 640 << 16, 480 << 16))
    data = box(b"ftyp", b"isom\0\0\0\0") + box(b"moov", mvhd + box(b"trak", tkhd)) + box(b"mdat", b"x")
    found = measured(data)
    assert (found["width"], found["height"], found["duration_s"], found["decodes"]) == (640, 480, 2.5, None)


def test_empty_text_is_blank():
    assert measure(b" \n", "text/plain")["blank"] and not measure(b"x", "text/plain")["blank"]


@settings(max_examples=60)
@given(st.sampled_from(MAGIC), st.binary(max_size=80))
def test_hostile_bytes_never_raise(magic, rest):
    data = magic + rest
    assert set(measured(data)) >= {"decodes", "width", "phash"}
