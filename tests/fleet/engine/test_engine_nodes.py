"""What each node computes, on arrays small enough to see."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fleet.engine.nodes  # noqa: F401
from fleet.engine import pixels
from fleet.engine.directories import Directories
from fleet.engine.memory import MemoryBudget
from fleet.engine.run import Interrupted, Result, Run
from fleet.engine.specs import NODES


@pytest.fixture
def run(tmp_path: Path) -> Run:
    names = ("input", "output", "temp", "models")
    for name in names:
        (tmp_path / name).mkdir()
    return Run(
        node_id="1",
        prompt={"1": {}},
        extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}},
        directories=Directories(**{name: tmp_path / name for name in names}),
        memory=MemoryBudget(64 * 1024**2),
        interrupt=threading.Event(),
        report_progress=lambda value, maximum: None,
        report_text=lambda text: None,
    )


def call(run: Run, name: str, **inputs: Any) -> Any:
    body = NODES[name].run
    assert body is not None
    return body(run, **inputs)


def grey(*rows: list[float]) -> pixels.Array:
    """One image whose three channels hold the rows."""
    return np.repeat(np.array(rows, dtype=np.float32)[None, ..., None], 3, axis=3)


def plane(image: Any) -> list[list[float]]:
    values = image[0] if image.ndim == 3 else image[0, ..., 0]
    return [[round(float(value), 4) for value in row] for row in values]


MASK = np.array([[[0.0, 1.0], [0.25, 0.75]]], dtype=np.float32)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("nearest-exact", [[0.0, 0.0, 1.0, 1.0]]),
        ("bilinear", [[0.0, 0.25, 0.75, 1.0]]),
        ("area", [[0.0, 0.0, 1.0, 1.0]]),
        ("bicubic", [[-0.1055, 0.2266, 0.7734, 1.1055]]),
    ],
)
def test_an_image_is_enlarged(run: Run, method: str, expected: list[list[float]]) -> None:
    scaled = call(run, "ImageScale", image=grey([0.0, 1.0]), upscale_method=method, width=4, height=1, crop="disabled")
    assert plane(scaled) == expected


@pytest.mark.parametrize(("width", "expected"), [(2, [[0.25, 0.75]]), (3, [[0.125, 0.5, 0.875]])])
def test_an_area_is_averaged(run: Run, width: int, expected: list[list[float]]) -> None:
    image = grey([0.0, 0.5, 0.5, 1.0]) if width == 2 else grey([0.0, 0.25, 0.75, 1.0])
    assert plane(pixels.resize(image, width, 1, "area")) == expected


def test_lanczos_keeps_flat_colour_and_size(run: Run) -> None:
    scaled = call(run, "ImageScale", image=grey([0.4] * 6, [0.4] * 6), upscale_method="lanczos", width=3, height=5, crop="center")
    assert scaled.shape == (1, 5, 3, 3)
    assert np.allclose(scaled, 0.4, atol=1 / 255)


def test_a_side_of_zero_follows_the_other(run: Run) -> None:
    assert call(run, "ImageScale", image=np.zeros((1, 10, 20, 3), np.float32), upscale_method="area", width=10, height=0, crop="disabled").shape == (
        1,
        5,
        10,
        3,
    )


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("normal", 0.6), ("multiply", 0.24), ("screen", 0.76), ("overlay", 0.48), ("difference", 0.0), ("soft_light", 0.4465)],
)
def test_blend_modes(run: Run, mode: str, expected: float) -> None:
    blended = call(run, "ImageBlend", image1=grey([0.4]), image2=grey([0.6]), blend_factor=1.0, blend_mode=mode)
    assert float(blended[0, 0, 0, 0]) == pytest.approx(expected, abs=1e-3)


def test_a_blur_equals_the_plain_sum_over_mirrored_neighbours(run: Run) -> None:
    image = np.random.default_rng(3).random((1, 150, 140, 3), dtype=np.float32)
    weights = pixels.gaussian(4, 0.7)
    padded = np.pad(image, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    expected = sum(weights[y] * weights[x] * padded[:, y : y + 150, x : x + 140] for y in range(9) for x in range(9))
    assert np.allclose(call(run, "ImageBlur", image=image, blur_radius=4, sigma=0.7), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 2, 3, 3), (2, 40, 5, 4)])
def test_a_flat_image_stays_flat_when_blurred_or_sharpened(run: Run, shape: tuple[int, ...]) -> None:
    flat = np.full(shape, 0.3, dtype=np.float32)
    assert np.allclose(call(run, "ImageBlur", image=flat, blur_radius=31, sigma=9.0), 0.3, atol=1e-5)
    assert np.allclose(call(run, "ImageSharpen", image=flat, sharpen_radius=3, sigma=1.0, alpha=2.0), 0.3, atol=1e-4)


def test_noise_depends_on_the_seed_alone(run: Run) -> None:
    image = np.full((1, 8, 8, 3), 0.5, dtype=np.float32)
    first, again, other = (call(run, "ImageAddNoise", image=image, seed=seed, strength=0.5) for seed in (1, 1, 2**64 - 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.min() >= 0 and first.max() <= 1


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [
        ("ImageInvert", {"image": grey([0.0, 0.25])}, [[1.0, 0.75]]),
        ("ImageCrop", {"image": grey([1, 2, 3], [4, 5, 6]), "width": 2, "height": 9, "x": 1, "y": 1}, [[5, 6]]),
        ("ImageFlip", {"image": grey([1, 2], [3, 4]), "flip_method": "x-axis: vertically"}, [[3, 4], [1, 2]]),
        ("ImageFlip", {"image": grey([1, 2], [3, 4]), "flip_method": "y-axis: horizontally"}, [[2, 1], [4, 3]]),
        ("ImageRotate", {"image": grey([1, 2], [3, 4]), "rotation": "90 degrees"}, [[3, 1], [4, 2]]),
        ("ImageRotate", {"image": grey([1, 2], [3, 4]), "rotation": "none"}, [[1, 2], [3, 4]]),
        ("InvertMask", {"mask": MASK}, [[1.0, 0.0], [0.75, 0.25]]),
        ("ThresholdMask", {"mask": MASK, "value": 0.5}, [[0, 1], [0, 1]]),
        ("CropMask", {"mask": MASK, "x": 1, "y": 0, "width": 1, "height": 2}, [[1.0], [0.75]]),
        ("MaskToImage", {"mask": MASK}, [[0.0, 1.0], [0.25, 0.75]]),
        ("ImageToMask", {"image": grey([0.5, 1.0]), "channel": "green"}, [[0.5, 1.0]]),
        ("ImageColorToMask", {"image": grey([0.0, 1.0]), "color": 0xFFFFFF}, [[0, 1]]),
        ("SolidMask", {"value": 0.5, "width": 2, "height": 1}, [[0.5, 0.5]]),
        ("FeatherMask", {"mask": np.ones((1, 1, 4), np.float32), "left": 2, "top": 0, "right": 1, "bottom": 0}, [[0.5, 1, 1, 1]]),
        ("FeatherMask", {"mask": np.ones((1, 4, 1), np.float32), "left": 0, "top": 0, "right": 0, "bottom": 2}, [[0.5], [1], [1], [1]]),
        ("MaskComposite", {"destination": MASK, "source": MASK, "x": 0, "y": 0, "operation": "multiply"}, [[0, 1], [0.0625, 0.5625]]),
        ("MaskComposite", {"destination": MASK, "source": MASK, "x": 1, "y": 1, "operation": "add"}, [[0, 1], [0.25, 0.75]]),
        ("MaskComposite", {"destination": MASK, "source": MASK, "x": 0, "y": 0, "operation": "xor"}, [[0, 0], [0, 0]]),
        ("MaskComposite", {"destination": MASK, "source": MASK, "x": 9, "y": 0, "operation": "add"}, [[0, 1], [0.25, 0.75]]),
    ],
)
def test_pixels_and_masks(run: Run, name: str, inputs: dict[str, Any], expected: list[list[float]]) -> None:
    assert plane(call(run, name, **inputs)) == expected


@pytest.mark.parametrize(("tapered", "corner"), [(True, 0.0), (False, 1.0)])
def test_a_mask_grows_with_or_without_corners_and_shrinks_back(run: Run, tapered: bool, corner: float) -> None:
    mask = np.zeros((1, 5, 5), dtype=np.float32)
    mask[0, 2, 2] = 1
    grown = call(run, "GrowMask", mask=mask, expand=1, tapered_corners=tapered)
    assert (grown[0, 1, 2], grown[0, 1, 1], grown[0, 0, 2]) == (1, corner, 0)
    assert np.array_equal(call(run, "GrowMask", mask=grown, expand=-1, tapered_corners=tapered), mask)


def test_a_composite_shows_the_source_where_the_mask_is_full(run: Run) -> None:
    under, over = np.zeros((1, 2, 3, 3), np.float32), np.ones((1, 2, 2, 3), np.float32)
    mask = np.array([[[1.0, 0.5], [0.0, 0.0]]], dtype=np.float32)
    inputs = {"destination": under, "source": over, "x": 1, "y": 0, "resize_source": False}
    assert plane(call(run, "ImageCompositeMasked", **inputs, mask=mask)) == [[0, 1.0, 0.5], [0, 0, 0]]
    assert plane(call(run, "ImageCompositeMasked", **inputs)) == [[0, 1, 1], [0, 1, 1]]
    assert under.sum() == 0


def test_images_of_different_sizes_make_a_batch_of_the_first_size(run: Run) -> None:
    joined = call(run, "BatchImagesNode", images={"image0": np.zeros((1, 4, 6, 3), np.float32), "image1": np.ones((2, 8, 8, 4), np.float32)})
    assert joined.shape == (3, 4, 6, 4)
    assert joined[0, 0, 0].tolist() == [0, 0, 0, 1]


def test_padding_for_outpainting_marks_what_is_new(run: Run) -> None:
    image, mask = call(run, "ImagePadForOutpaint", image=np.ones((1, 8, 8, 3), np.float32), left=8, top=0, right=0, bottom=0, feathering=2)
    assert image.shape == (1, 8, 16, 3)
    assert (mask[0, 0, 0], mask[0, 4, 8], mask[0, 4, 9], mask[0, 4, 12]) == (1, 1, 0.25, 0)


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [
        ("StringConcatenate", {"string_a": "a", "string_b": "b", "delimiter": ", "}, "a, b"),
        ("StringSubstring", {"string": "abcdef", "start": 1, "end": -1}, "bcde"),
        ("StringLength", {"string": "häs"}, 3),
        ("CaseConverter", {"string": "two wORDS", "mode": "Title Case"}, "Two Words"),
        ("CaseConverter", {"string": "two wORDS", "mode": "Capitalize"}, "Two words"),
        ("StringTrim", {"string": " a ", "mode": "Left"}, "a "),
        ("StringReplace", {"string": "aXa", "find": "X", "replace": "-"}, "a-a"),
        ("StringContains", {"string": "Abc", "substring": "aB", "case_sensitive": False}, True),
        ("StringContains", {"string": "Abc", "substring": "aB", "case_sensitive": True}, False),
        ("StringCompare", {"string_a": "Abc", "string_b": "ab", "mode": "Starts With", "case_sensitive": False}, True),
        ("StringCompare", {"string_a": "abc", "string_b": "bc", "mode": "Ends With", "case_sensitive": True}, True),
        ("StringCompare", {"string_a": "abc", "string_b": "abC", "mode": "Equal", "case_sensitive": True}, False),
        ("RegexMatch", {"string": "a\nB", "regex_pattern": "^b$", "case_insensitive": True, "multiline": True, "dotall": False}, True),
        ("RegexMatch", {"string": "a", "regex_pattern": "(", "case_insensitive": True, "multiline": True, "dotall": False}, False),
        ("RegexReplace", {"string": "a1b22", "regex_pattern": "[0-9]+", "replace": "#"}, "a#b#"),
        ("RegexReplace", {"string": "AaA", "regex_pattern": "a", "replace": "-", "count": 2}, "--A"),
        ("PrimitiveInt", {"value": 7}, 7),
        ("PrimitiveBoolean", {"value": False}, False),
    ],
)
def test_text(run: Run, name: str, inputs: dict[str, Any], expected: Any) -> None:
    assert call(run, name, **inputs) == expected


@pytest.mark.parametrize(("mode", "expected"), [("First Match", "a1"), ("All Matches", "1\n2"), ("First Group", "1"), ("All Groups", "1\n2")])
def test_regex_extracts(run: Run, mode: str, expected: str) -> None:
    inputs = {"string": "a1 b2", "regex_pattern": "[a-z]([0-9])", "case_insensitive": False, "multiline": False, "dotall": False}
    assert call(run, "RegexExtract", **inputs, mode=mode, group_index=1) == expected


@pytest.mark.parametrize(("source", "shown"), [("x", "x"), (1, "1"), (True, "True"), (None, "None"), ([1, "a"], '[1, "a"]')])
def test_anything_is_shown_as_text(run: Run, source: Any, shown: str) -> None:
    assert call(run, "PreviewAny", source=source) == Result(ui={"text": [shown]})


def test_a_saved_png_holds_the_pixels_and_the_prompt(run: Run) -> None:
    image = np.array([[[[1.2, 0.5, -0.1]]]], dtype=np.float32)
    shown = call(run, "SaveImage", images=image, filename_prefix="a/%width%x%height%_%year%").ui["images"][0]
    with Image.open(run.directories.output / shown["subfolder"] / shown["filename"]) as saved:
        assert saved.getpixel((0, 0)) == (255, 127, 0)
        assert saved.info["prompt"] == '{"1": {}}'
        assert saved.info["workflow"] == '{"id": "w"}'
    assert shown["filename"].startswith("1x1_20")


@pytest.mark.parametrize("prefix", ["../../evil", "/etc/evil", "a/../../evil"])
def test_a_prefix_does_not_leave_the_output_directory(run: Run, prefix: str) -> None:
    with pytest.raises(Exception, match="outside the output folder"):
        call(run, "SaveImage", images=grey([1.0]), filename_prefix=prefix)


def test_a_link_inside_the_output_directory_does_not_lead_out(run: Run, tmp_path: Path) -> None:
    (run.directories.output / "link").symlink_to(tmp_path)
    with pytest.raises(Exception, match="outside the output folder"):
        call(run, "SaveImage", images=grey([1.0]), filename_prefix="link/evil")


def test_counters_continue_those_on_disk(run: Run) -> None:
    names = [call(run, "SaveImage", images=np.zeros((2, 1, 1, 3), np.float32), filename_prefix="n").ui["images"][-1]["filename"] for _ in range(2)]
    assert names == ["n_00002_.png", "n_00004_.png"]


def test_a_loaded_image_gives_one_minus_alpha_as_mask(run: Run) -> None:
    Image.new("RGBA", (3, 2), (255, 0, 0, 51)).save(run.directories.input / "a.png")
    image, mask = call(run, "LoadImage", image="a.png")
    assert image.shape == (1, 2, 3, 3)
    assert mask[0, 0, 0] == pytest.approx(0.8)
    assert call(run, "LoadImageMask", image="a.png", channel="red")[0, 0, 0] == 1
    assert call(run, "LoadImageMask", image="a.png", channel="alpha")[0, 0, 0] == pytest.approx(0.8)


def test_an_opaque_image_gives_an_empty_mask(run: Run) -> None:
    Image.new("L", (3, 2), 128).save(run.directories.temp / "a.png")
    image, mask = call(run, "LoadImage", image="a.png [temp]")
    assert (image.shape, mask.shape, mask.sum()) == ((1, 2, 3, 3), (1, 64, 64), 0)


def test_a_picture_too_large_for_the_budget_is_refused_before_it_is_read(run: Run) -> None:
    Image.new("1", (4000, 4000)).save(run.directories.input / "bomb.png")
    with pytest.raises(RuntimeError, match="you tried to allocate 256000000 bytes"):
        call(run, "LoadImage", image="bomb.png")


@pytest.mark.parametrize(("name", "suffix"), [("SaveAnimatedWEBP", "webp"), ("SaveAnimatedPNG", "png")])
def test_an_animation_has_all_frames(run: Run, name: str, suffix: str) -> None:
    frames = np.random.default_rng(1).random((3, 8, 8, 3), dtype=np.float32)
    more = {"lossless": True, "quality": 80, "method": "default"} if suffix == "webp" else {"compress_level": 4}
    shown = call(run, name, images=frames, filename_prefix="anim", fps=5.0, **more).ui
    assert shown["animated"] == [True]
    with Image.open(run.directories.output / shown["images"][0]["filename"]) as saved:
        assert getattr(saved, "n_frames", 1) == 3


def test_audio_is_adjusted_saved_and_loaded(run: Run) -> None:
    audio = {"waveform": np.full((1, 2, 100), 0.5, np.float32), "sample_rate": 8000}
    quieter = call(run, "AudioAdjustVolume", audio=audio, volume=-6)
    shown = call(run, "SaveAudio", audio=quieter, filename_prefix="audio/tone").ui["audio"][0]
    assert (shown["filename"], shown["subfolder"]) == ("tone_00001_.flac", "audio")
    (run.directories.output / "audio" / shown["filename"]).rename(run.directories.input / "tone.flac")
    loaded = call(run, "LoadAudio", audio="tone.flac")
    assert loaded["sample_rate"] == 8000
    assert loaded["waveform"].shape == (1, 2, 100)
    assert loaded["waveform"][0, 0, 0] == pytest.approx(0.5 * 10 ** (-6 / 20), abs=1e-3)


def test_audio_is_trimmed_joined_and_split(run: Run) -> None:
    audio = call(run, "EmptyAudio", duration=2.0, sample_rate=100, channels=2)
    trimmed = call(run, "TrimAudioDuration", audio=audio, start_index=-0.5, duration=9.0)
    assert trimmed["waveform"].shape == (1, 2, 50)
    slower = {"waveform": np.ones((1, 1, 50), np.float32), "sample_rate": 50}
    joined = call(run, "AudioConcat", audio1=audio, audio2=slower, direction="before")
    assert (joined["waveform"].shape, joined["waveform"][0, 1, 0]) == ((1, 2, 300), 1)
    assert call(run, "AudioMerge", audio1=audio, audio2=slower, merge_method="add")["waveform"].shape == (1, 2, 200)
    assert call(run, "SplitAudioChannels", audio=audio)[1]["waveform"].shape == (1, 1, 200)


def test_a_latent_survives_saving_and_loading(run: Run) -> None:
    latent = call(run, "EmptyLatentImage", width=64, height=32, batch_size=2)
    latent = {"samples": latent["samples"] + np.float32(0.25)}
    shown = call(run, "SaveLatent", samples=latent, filename_prefix="z").ui["latents"][0]
    assert shown["filename"] == "z_00001_.latent"
    (run.directories.output / "z_00001_.latent").rename(run.directories.input / "z.latent")
    assert np.array_equal(call(run, "LoadLatent", latent="z.latent")["samples"], latent["samples"])


def test_latents_are_scaled_added_and_picked(run: Run) -> None:
    latent = {"samples": np.ones((2, 4, 8, 8), np.float32)}
    assert call(run, "LatentUpscale", samples=latent, upscale_method="bislerp", width=128, height=64, crop="disabled")["samples"].shape == (2, 4, 8, 16)
    assert call(run, "LatentAdd", samples1=latent, samples2={"samples": np.ones((1, 4, 4, 4), np.float32)})["samples"].mean() == pytest.approx(2)
    assert call(run, "LatentFromBatch", samples=latent, batch_index=9, length=3)["samples"].shape[0] == 1


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("EmptyImage", {"width": 16384, "height": 16384, "batch_size": 4096, "color": 0}),
        ("SolidMask", {"value": 1.0, "width": 16384, "height": 16384}),
        ("EmptyLatentImage", {"width": 16384, "height": 16384, "batch_size": 4096}),
        ("EmptyAudio", {"duration": 1e9, "sample_rate": 192000, "channels": 2}),
        ("RepeatImageBatch", {"image": np.zeros((1, 64, 64, 3), np.float32), "amount": 4096}),
        ("ImageScale", {"image": grey([1.0]), "upscale_method": "area", "width": 16384, "height": 16384, "crop": "disabled"}),
        ("StringReplace", {"string": "x" * 100_000, "find": "x", "replace": "y" * 100_000}),
        ("RegexReplace", {"string": "x" * 100_000, "regex_pattern": "(x+)", "replace": r"\1" * 50_000}),
    ],
)
def test_an_absurd_size_is_refused_without_allocating_it(run: Run, name: str, inputs: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory: you tried to allocate"):
        call(run, name, **inputs)


def test_an_upscale_model_that_adds_nothing_enlarges_and_can_be_interrupted(run: Run) -> None:
    from fleet.engine.nodes.upscaling import compact_model

    arrays = {"body.0.weight": np.zeros((12, 3, 3, 3), np.float32), "body.0.bias": np.zeros(12, np.float32)}
    model = compact_model(arrays)
    image = np.random.default_rng(1).random((1, 20, 530, 3), dtype=np.float32)
    out = call(run, "ImageUpscaleWithModel", upscale_model=model, image=image)
    assert np.allclose(out, image.repeat(2, axis=1).repeat(2, axis=2), atol=1e-6)
    run.interrupt.set()
    with pytest.raises(Interrupted):
        call(run, "ImageUpscaleWithModel", upscale_model=model, image=image)


def test_a_model_of_another_architecture_is_refused() -> None:
    from fleet.engine.nodes.upscaling import compact_model

    with pytest.raises(NotImplementedError):
        compact_model({"model.0.weight": np.zeros((1, 1, 3, 3), np.float32)})


def test_an_upscale_model_computes_the_plain_sums(run: Run) -> None:
    from fleet.engine.nodes.upscaling import compact_model

    rng = np.random.default_rng(4)
    first, slopes, last = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4), rng.normal(size=(12, 4, 3, 3))
    biases = rng.normal(size=4), rng.normal(size=12)
    arrays = {"body.0.weight": first, "body.0.bias": biases[0], "body.1.weight": slopes, "body.2.weight": last, "body.2.bias": biases[1]}
    image = rng.random((1, 5, 6, 3), dtype=np.float32)

    def convolved(values: Any, weight: Any, bias: Any) -> Any:
        padded = np.pad(values, ((0, 0), (1, 1), (1, 1)))
        return bias[:, None, None] + sum(np.einsum("oc,chw->ohw", weight[:, :, y, x], padded[:, y : y + 5, x : x + 6]) for y in range(3) for x in range(3))

    hidden = convolved(image[0].transpose(2, 0, 1), first, biases[0])
    hidden = np.where(hidden > 0, hidden, hidden * slopes[:, None, None])
    raw = convolved(hidden, last, biases[1])
    expected = np.empty((10, 12, 3))
    for y in range(10):
        for x in range(12):
            for channel in range(3):
                expected[y, x, channel] = raw[channel * 4 + (y % 2) * 2 + x % 2, y // 2, x // 2] + image[0, y // 2, x // 2, channel]
    out = call(run, "ImageUpscaleWithModel", upscale_model=compact_model(arrays), image=image)
    assert np.allclose(out[0], np.clip(expected, 0, 1), atol=1e-4)
