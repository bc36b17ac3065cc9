"""Generated smoke inputs: always legal, as small as still runs, the same every time; kept ones are checked as a job's are."""

from __future__ import annotations

import base64
import io

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from builds import inputs as input_rules
from builds import smoke_inputs, smoke_keeping
from builds.exposed import ExposedInput
from builds.models import SmokeInput
from builds.validation import Validator
from controlplane.kernel.errors import Invalid
from controlplane.kernel.models import AuditEntry
from fleet.agent import measure
from tests import factories


def exposed(name, type_="integer", **fields):
    return ExposedInput(name=name, node="1", input=name, type=type_, **fields)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (exposed("width", default=1024, minimum=16, maximum=8192, step=8), 256),
        (exposed("width", default=64, minimum=1, maximum=4096), 64),
        (exposed("width", default=1024, minimum=512, maximum=8192, step=64), 512),
        (exposed("height", default=768, minimum=16, maximum=100), 100),
        (exposed("steps", default=30, minimum=1, maximum=100), 4),
        (exposed("steps", default=1, minimum=1, maximum=100), 1),
        (exposed("batch_size", default=8, minimum=1, maximum=64), 1),
        (exposed("length", default=97, minimum=1, maximum=1000, step=4), 5),
        (exposed("length", default=97, minimum=9, maximum=1000, step=8), 9),
        (exposed("seconds", "number", default=30.0, minimum=0.5, maximum=90.0), 1.0),
        (exposed("seed", minimum=0, maximum=2**64 - 1, randomize=True), 42),
        (exposed("seed", minimum=100, maximum=200, randomize=True), 100),
        (exposed("cfg", "number", default=7.5, minimum=0.0, maximum=100.0), 7.5),
        (exposed("denoise", "number", minimum=0.1, maximum=1.0), 0.1),
        (exposed("tile", "boolean", default=True), True),
        (exposed("sampler", "string", default="euler", enum=["ddim", "euler"]), "euler"),
        (exposed("sampler", "string", default="gone", enum=["ddim", "euler"]), "ddim"),
        (exposed("prompt", "string", default="a boat"), "a boat"),
        (exposed("prompt", "string", required=True, max_length=7), "a small"),
        (exposed("negative", "string"), ""),
    ],
)
def test_each_rule_gives_the_least_that_runs(one, expected):
    made = smoke_inputs.generate([one])
    assert made.inputs == {one.name: expected}
    assert type(made.inputs[one.name]) is type(expected)
    assert made.why[one.name]


def test_a_picture_and_a_sound_are_generated_and_show_something():
    made = smoke_inputs.generate([exposed("photo", "string", kind="image", required=True), exposed("song", "string", kind="audio", required=True)])
    assert made.missing == ()
    picture = base64.b64decode(made.inputs["photo"].partition(",")[2])
    assert Image.open(io.BytesIO(picture)).size == smoke_inputs.PICTURE and len(picture) < 30_000
    assert {k: measure.measure(picture, "image/png")[k] for k in ("decodes", "blank", "flat")} == {"decodes": True, "blank": False, "flat": False}
    sound = measure.measure(base64.b64decode(made.inputs["song"].partition(",")[2]), "audio/wav")
    assert (sound["decodes"], sound["blank"]) == (True, False)
    Validator([exposed("photo", "string", kind="image", required=True)])({"photo": made.inputs["photo"]})


def test_a_file_nobody_can_make_up_is_named_unless_the_version_brings_one():
    film = exposed("film", "string", kind="video", required=True)
    assert smoke_inputs.generate([film]).missing == ("film",)
    held = exposed("film", "string", kind="video", default="blob:" + "0" * 64)
    assert smoke_inputs.generate([held]).inputs == {"film": held.default}
    assert smoke_inputs.generate([exposed("film", "string", kind="video")]) == smoke_inputs.Generated({}, {}, ())


names = st.sampled_from(["width", "steps", "batch_size", "frames", "seconds", "megapixels", "cfg", "seed", "anything"])


@st.composite
def numbers(draw):
    kind = draw(st.sampled_from(["integer", "number"]))
    value = st.integers(-(2**53), 2**53) if kind == "integer" else st.floats(-1e9, 1e9, allow_nan=False)
    low, high = sorted([draw(value), draw(value)])
    default = draw(st.none() | (st.integers(low, high) if kind == "integer" else st.floats(low, high)))
    return ExposedInput(
        name=draw(names), node="1", input="x", type=kind, default=default, minimum=draw(st.sampled_from([low, None])),
        maximum=draw(st.sampled_from([high, None])), step=draw(st.none() | st.integers(1, 64)), required=draw(st.booleans()),
        randomize=kind == "integer" and draw(st.booleans()),
    )  # fmt: skip


@given(numbers())
def test_every_generated_number_is_one_the_version_accepts(one):
    made = smoke_inputs.generate([one])
    step, low, high = one.multiple_of, one.minimum, one.maximum
    assume(not step or high is None or (low is not None and low + -low % step <= high))  # else no multiple lies in the range
    checked = Validator([one])(made.inputs)
    assert checked == made.inputs == smoke_inputs.generate([one]).inputs


@given(st.lists(st.text(min_size=1, max_size=9), unique=True, min_size=1), st.booleans())
def test_every_generated_choice_is_offered(options, has_default):
    one = ExposedInput(name="mode", node="1", input="mode", type="string", enum=options, default=options[-1] if has_default else None)
    assert smoke_inputs.generate([one]).inputs["mode"] in options


@pytest.mark.django_db
def test_inputs_are_generated_once_and_kept(now):
    version = factories.make_version(factories.make_workflow(now=now), now=now)
    kept = smoke_keeping.of_version(version, now=now)
    assert (kept.origin, kept.inputs) == ("generated", {"width": 64, "color": 3368652})
    assert smoke_keeping.of_version(version, now=now).pk == kept.pk
    assert input_rules.validate(version, kept.inputs) == kept.inputs


@pytest.mark.django_db
def test_written_inputs_are_checked_as_a_jobs_are_audited_and_can_be_taken_back(now):
    version = factories.make_version(factories.make_workflow(now=now), now=now)
    with pytest.raises(Invalid) as refused:
        smoke_keeping.write(version=version, inputs={"width": 9999}, actor="ada", now=now)
    assert refused.value.code == "out_of_range"
    assert not SmokeInput.objects.exists()
    kept = smoke_keeping.write(version=version, inputs={"width": 100}, actor="ada", now=now)
    assert (kept.origin, kept.author, kept.inputs["width"]) == ("written", "ada", 100)
    assert smoke_keeping.of_version(version, now=now).inputs["width"] == 100
    assert AuditEntry.objects.filter(action="smoke.inputs", actor="ada").count() == 1
    again = smoke_keeping.regenerate(version=version, actor="ada", now=now)
    assert (again.origin, again.inputs["width"]) == ("generated", 64)


@pytest.mark.django_db
def test_a_version_that_needs_a_film_says_what_a_person_must_do(now):
    film = {"name": "film", "node": "1", "input": "film", "type": "string", "kind": "video", "required": True}
    version = factories.make_version(factories.make_workflow(now=now), now=now, inputs=[film])
    with pytest.raises(Invalid) as refused:
        smoke_keeping.of_version(version, now=now)
    assert (refused.value.code, refused.value.details) == ("smoke_input_needed", {"fields": ["film"]})
