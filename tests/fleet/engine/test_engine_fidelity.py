"""What a real server computed for the same inputs, measured once: the engine must give the same."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fleet.engine.nodes  # noqa: F401
from fleet.engine import noise, readable
from fleet.engine.directories import Directories
from fleet.engine.memory import MemoryBudget
from fleet.engine.run import Run
from fleet.engine.specs import NODES


@pytest.fixture
def call(tmp_path: Path) -> Any:
    names = ("input", "output", "temp", "models")
    for name in names:
        (tmp_path / name).mkdir()
    run = Run(
        node_id="1",
        prompt={"1": {}},
        extra_data={},
        memory=MemoryBudget(64 * 1024**2),
        interrupt=threading.Event(),
        directories=Directories(**{name: tmp_path / name for name in names}),
        report_progress=lambda value, maximum: None,
        report_text=lambda text: None,
    )

    def call(name: str, **inputs: Any) -> Any:
        body = NODES[name].run
        assert body is not None
        return body(run, **inputs)

    call.input = run.directories.input  # type: ignore[attr-defined]
    return call


@pytest.mark.parametrize(
    ("seed", "count", "at", "values"),
    [
        (7, 40, 0, [-0.820135, 0.395631, 0.898908, -1.388404]),
        (7, 40, 24, [-0.135437, 0.747118, 0.611816, 1.867784]),  # the cut block at the end is drawn anew
        (7, 40, 36, [-0.100734, 0.237015, 0.632682, -0.091677]),
        (2**64 - 1, 54, 0, [-2.664298]),
        (2**64 - 1, 54, 53, [-0.3636]),
    ],
)
def test_noise_of_a_seed_is_the_one_pytorch_draws(seed: int, count: int, at: int, values: list[float]) -> None:
    assert noise.normal(seed, (count,))[at : at + len(values)] == pytest.approx(values, abs=1e-4)


def test_noise_does_not_depend_on_how_much_is_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = noise.normal(3, (2, 11, 13, 3))
    monkeypatch.setattr(noise, "AT_ONCE", 64)
    assert np.allclose(noise.normal(3, (2, 11, 13, 3)), whole, atol=1e-6)
    assert noise.normal(1, (2, 2)).shape == (2, 2) and noise.normal(1, (0, 3)).size == 0


def test_the_far_side_of_a_feathered_mask_is_counted_from_minus_zero(call: Any) -> None:
    mask = call("FeatherMask", mask=np.ones((1, 1, 6), np.float32), left=0, top=0, right=4, bottom=0)
    assert mask[0, 0].tolist() == [0.25, 1.0, 1.0, 1.0, 0.75, 0.5]


@pytest.mark.parametrize(("order", "first_row"), [(2, [-0.375, 0.125]), (4, [-7.5 / 16, 0.5 / 16, -5.5 / 16, 2.5 / 16])])
def test_the_ordered_pattern_of_dithering(order: int, first_row: list[float]) -> None:
    from fleet.engine.nodes.effects import _bayer

    assert _bayer(order)[0].tolist() == pytest.approx(first_row)


@pytest.mark.parametrize("dither", ["none", "floyd-steinberg", "bayer-2", "bayer-16"])
def test_a_quantized_image_has_no_more_colours_than_asked(call: Any, dither: str) -> None:
    ramp = np.linspace(0, 1, 20 * 30 * 3, dtype=np.float32).reshape(1, 20, 30, 3)
    done = call("ImageQuantize", image=ramp, colors=8, dither=dither)
    assert done.shape == ramp.shape and len(np.unique(done.reshape(-1, 3), axis=0)) <= 8


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P"])
def test_the_alpha_of_an_opaque_image_masks_nothing_in_its_own_size(call: Any, mode: str) -> None:
    Image.new(mode, (3, 2)).save(call.input / "a.png")
    mask = call("LoadImageMask", image="a.png", channel="alpha")
    assert (mask.shape, mask.max()) == ((1, 2, 3), 0)


def test_an_image_without_alpha_has_no_alpha_to_mask_with(call: Any) -> None:
    with pytest.raises(IndexError, match="index 3 is out of bounds for dimension 3 with size 3"):
        call("ImageToMask", image=np.zeros((1, 2, 2, 3), np.float32), channel="alpha")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (
            np.array([[[[0.070588, 0.203922, 0.337255]], [[0.0, 1.0, 0.5]]]], np.float32),
            "tensor([[[[0.0706, 0.2039, 0.3373]],\n\n         [[0.0000, 1.0000, 0.5000]]]])",
        ),
        ({"samples": np.zeros((1, 2), np.float32), "n": "x"}, "{'samples': tensor([[0., 0.]]), 'n': 'x'}"),
        ([np.ones(1, np.float32), 2], "[tensor([1.]), 2]"),
    ],
)
def test_arrays_are_shown_as_tensors(value: Any, shown: str) -> None:
    assert readable.text(value) == shown
