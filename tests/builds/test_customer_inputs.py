"""Exposing node inputs, the schema that says so, and the check that enforces exactly that schema."""

from __future__ import annotations

import math
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registry_samples import PROMPTS, object_info, prompt, version_of

from builds import exposing, graphs, inputs
from builds.exposed import ExposedInput, load_all
from builds.findings import errors_in, findings
from builds.nodespecs import read
from builds.schema import DIALECT
from controlplane.kernel.errors import Invalid

INFO = object_info()
FIELDS = [
    ExposedInput(name="width", node="1", input="width", type="integer", default=512, minimum=16, maximum=16384, step=8),
    ExposedInput(name="strength", node="1", input="strength", type="number", default=0.5, minimum=0.0, maximum=1.0, step=0.01),
    ExposedInput(name="prompt", node="2", input="text", type="string", required=True, multiline=True),
    ExposedInput(name="mode", node="3", input="mode", type="string", default="area", enum=["area", "lanczos"]),
    ExposedInput(name="seconds", node="3", input="seconds", type="integer", default=5, enum=[5, 10]),
    ExposedInput(name="flag", node="3", input="flag", type="boolean", default=True),
    ExposedInput(name="seed", node="3", input="seed", type="integer", default=7, minimum=0, maximum=2**64 - 1, randomize=True),
    ExposedInput(name="photo", node="4", input="image", type="string", kind="image", default="blob:" + "a" * 64),
]
VERSION = version_of(FIELDS)
FILE = "01890a5d-ac96-774b-bcce-b302099a8057"


def refused(values: Any, version: Any = VERSION) -> Invalid:
    with pytest.raises(Invalid) as refusal:
        inputs.validate(version, values)
    assert refusal.value.message
    assert refusal.value.suggestion
    return refusal.value


def test_defaults_are_filled_in_and_random_inputs_left_out_stay_out() -> None:
    assert inputs.validate(VERSION, {"prompt": "a cat"}) == {
        "width": 512,
        "strength": 0.5,
        "prompt": "a cat",
        "mode": "area",
        "seconds": 5,
        "flag": True,
        "photo": "blob:" + "a" * 64,
    }


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("width", True, "wrong_type"),
        ("width", 512.5, "wrong_type"),
        ("width", 513.0, "not_a_multiple"),
        ("width", math.inf, "wrong_type"),
        ("width", 1e300, "out_of_range"),
        ("seconds", 6.0, "not_in_list"),
        ("width", "512", "wrong_type"),
        ("width", None, "wrong_type"),
        ("width", 8, "out_of_range"),
        ("width", 16385, "out_of_range"),
        pytest.param("width", 10**5000, "out_of_range", id="huge"),
        ("width", 513, "not_a_multiple"),
        ("strength", True, "wrong_type"),
        ("strength", "0.5", "wrong_type"),
        ("strength", math.nan, "not_a_number"),
        ("strength", -math.inf, "not_a_number"),
        ("strength", 1.01, "out_of_range"),
        pytest.param("strength", 10**5000, "out_of_range", id="huge number"),
        ("prompt", 5, "wrong_type"),
        ("prompt", ["a"], "wrong_type"),
        pytest.param("prompt", "x" * 10_001, "too_long", id="long"),
        ("prompt", "a\x00b", "invalid_text"),
        pytest.param("prompt", "a\ud800b", "invalid_text", id="surrogate"),
        ("mode", "Area", "not_in_list"),
        ("mode", 1, "wrong_type"),
        ("seconds", 7, "not_in_list"),
        pytest.param("seconds", 10**5000, "not_in_list", id="huge choice"),
        ("seconds", 5.5, "wrong_type"),
        ("seconds", True, "wrong_type"),
        ("flag", 1, "wrong_type"),
        ("flag", "true", "wrong_type"),
        ("seed", -1, "out_of_range"),
        ("seed", 2**64, "out_of_range"),
        ("photo", 5, "wrong_type"),
        ("photo", "photo.png", "not_a_file"),
        ("photo", "../../etc/passwd", "not_a_file"),
        ("photo", "blob:" + "b" * 64, "not_a_file"),
        ("photo", "data:image/png;base64,%%%", "not_a_file"),
        ("photo", "data:text/plain;base64,aGk=", "wrong_media_type"),
        pytest.param("photo", "data:image/png;base64," + "A" * 12_000_000, "file_too_large", id="huge file"),
    ],
)
def test_each_kind_of_wrong_value_has_a_code_of_its_own(field: str, value: Any, code: str) -> None:
    refusal = refused({"prompt": "x", field: value})
    assert (refusal.code, refusal.details["field"]) == (code, field)


def test_unknown_and_missing_fields_are_named_with_a_way_out() -> None:
    misspelt = refused({"prompt": "x", "widht": 5})
    assert (misspelt.code, misspelt.details["field"], misspelt.suggestion) == ("unknown_field", "widht", "Did you mean width?")
    assert refused({}).code == "missing_field"
    assert refused({"\ud800\x00" * 200: 1, "prompt": "x"}).code == "unknown_field"
    assert "takes no inputs" in refused({"a": 1}, version_of([])).suggestion
    needs_file = version_of([ExposedInput(name="photo", node="4", input="image", type="string", kind="image", required=True)])
    assert refused({}, needs_file).code == "missing_file"
    for values in (None, [], "x", 5):
        assert refused(values).code == "inputs_not_object"


def test_every_fault_is_listed_when_there_are_several() -> None:
    errors = refused({"width": "a", "flag": 1, "nope": 1}).details["errors"]
    assert [one["field"] for one in errors] == ["width", "flag", "nope", "prompt"]
    assert len(refused({f"x{i}": 1 for i in range(10_000)}).details["errors"]) == 20


@pytest.mark.parametrize("value", [FILE, FILE.upper(), FILE.replace("-", ""), "data:image/png;base64,iVBORw0KGgo=", "blob:" + "a" * 64])
def test_a_file_is_an_id_a_data_url_or_the_default_itself(value: str) -> None:
    got = inputs.validate(VERSION, {"prompt": "x", "photo": value})["photo"]
    assert got == (FILE if value.lower().replace("-", "") == FILE.replace("-", "") else value)


def test_numbers_take_whole_numbers_and_normalise_them() -> None:
    got = inputs.validate(VERSION, {"prompt": "x", "strength": 1})["strength"]
    assert type(got) is float


def test_a_whole_number_may_be_written_with_a_point_and_is_kept_without() -> None:
    got = inputs.validate(VERSION, {"prompt": "x", "width": 64.0, "seconds": 10.0})
    assert (got["width"], got["seconds"]) == (64, 10)
    assert type(got["width"]) is int
    assert type(got["seconds"]) is int


def test_the_schema_says_what_the_check_enforces() -> None:
    said = inputs.schema(FIELDS)
    assert said["$schema"] == DIALECT
    assert said["additionalProperties"] is False
    assert said["required"] == ["prompt"]
    width, seed, photo = (said["properties"][name] for name in ("width", "seed", "photo"))
    assert width == {
        "type": "integer",
        "title": "width",
        "default": 512,
        "minimum": 16,
        "maximum": 16384,
        "multipleOf": 8,
        "examples": [512],
        "x-node": "1",
        "x-input": "width",
        "x-kind": "value",
        "x-order": 0,
    }
    assert "default" not in seed
    assert seed["x-randomize"] is True
    assert seed["maximum"] == 2**64 - 1
    assert (photo["type"], photo["x-kind"]) == ("string", "image")
    assert "multipleOf" not in said["properties"]["strength"]


def test_a_step_that_the_minimum_or_default_misses_is_not_enforced() -> None:
    for fields in ({"minimum": 1}, {"default": 13}, {"step": 1}, {"step": 0.5}):
        one = ExposedInput.load({"name": "x", "node": "1", "input": "x", "type": "integer", "minimum": 0, "step": 8, **fields})
        assert one.multiple_of is None


values_of = {
    "integer": st.integers(-(2**70), 2**70) | st.booleans() | st.floats() | st.integers(0, 600).map(float),
    "number": st.floats() | st.integers(),
    "string": st.text(max_size=20) | st.sampled_from(["area", FILE]),
    "boolean": st.booleans() | st.integers(0, 1),
}


def value_for(one: ExposedInput) -> st.SearchStrategy[Any]:
    """Values near the edges of what an input takes, and values of the wrong type."""
    edges = [value for value in (one.minimum, one.maximum, one.default, *(one.enum or ())) if value is not None]
    numeric = [value for value in edges if isinstance(value, int | float) and not isinstance(value, bool)]
    near = st.sampled_from([value + step for value in numeric for step in (-8, -1, 0, 1, 8)]) if numeric else st.nothing()
    return values_of[one.type] | near | (st.sampled_from(edges) if edges else st.nothing())


@settings(max_examples=300)
@given(st.sampled_from(FIELDS).flatmap(lambda one: value_for(one).map(lambda value: {one.name: value})))
def test_the_check_and_the_schema_agree_on_every_value(one_value: dict[str, Any]) -> None:
    values = {"prompt": "x", **one_value}
    try:
        inputs.validate(VERSION, values)
        accepted = True
    except Invalid as refusal:
        # JSON has neither NaN nor infinity, and a schema cannot say what is a file or storable text.
        if refusal.code in ("not_a_number", "not_a_file", "invalid_text"):
            return
        accepted = False
    if any(isinstance(value, float) and not math.isfinite(value) for value in values.values()):
        assert not accepted
        return
    assert accepted == jsonschema.Draft202012Validator(inputs.schema(FIELDS)).is_valid(values)


@settings(max_examples=150)
@given(st.data())
def test_what_is_accepted_binds_and_stays_inside_the_nodes_ranges(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in PROMPTS if not errors_in(findings(graphs.parse(prompt(name)), INFO))]))
    graph = graphs.parse(prompt(name))
    items = exposing.choose(graph, INFO)
    version = version_of(items)
    values = {one.name: FILE if one.is_file else one.default for one in items if one.required}
    for one in data.draw(st.lists(st.sampled_from(items), max_size=2)) if items else ():
        values[one.name] = data.draw(value_for(one))
    try:
        accepted = inputs.fill_random(version, inputs.validate(version, values))
    except Invalid:
        return
    bound = graphs.bind(graph, items, accepted)
    assert errors_in(findings(bound, INFO, items)) == []
    for one in items:
        if one.name in accepted:
            assert bound[one.node]["inputs"][one.input] == accepted[one.name]


WIDGETS = [
    (class_type, name)
    for class_type in sorted(INFO)
    for name, spec in (read(INFO, class_type).inputs.items() if read(INFO, class_type) else ())
    if spec.is_widget and not spec.meta.get("multiselect")
]


@settings(max_examples=300)
@given(st.sampled_from(WIDGETS), st.data())
def test_every_widget_of_every_class_can_be_exposed_and_accepts_only_what_its_node_does(widget: tuple[str, str], data: st.DataObject) -> None:
    class_type, name = widget
    spec = read(INFO, class_type).inputs[name]
    start = spec.meta.get("default", {"INT": 1, "FLOAT": 1.0, "STRING": "x", "BOOLEAN": True, "COMBO": (spec.options or ("x",))[0]}[spec.type])
    graph = {"1": {"class_type": class_type, "inputs": {name: start}}}
    one = exposing.describe(graph, INFO, node="1", input=name)
    version = version_of([one])
    inputs.schema([one])
    choices = st.sampled_from(list(spec.options)) if spec.options else st.nothing()
    value = data.draw(values_of[one.type] | choices)
    try:
        accepted = inputs.validate(version, {one.name: value})
    except Invalid:
        return
    codes = {found["code"] for found in findings(graphs.bind(graph, [one], accepted), INFO, [one]) if found["node"] == "1" and found["field"] == name}
    assert codes <= {"model_missing"} if not spec.options else codes == set()


def test_random_inputs_are_filled_within_their_range_and_readable_by_browsers() -> None:
    for low, high, step in ((0, 2**64 - 1, None), (5, 5, None), (-(2**63), 2**63, None), (-10, -5, None), (3, 100, None), (0, 64, 8), (2**60, 2**61, None)):
        one = ExposedInput(name="seed", node="1", input="seed", type="integer", minimum=low, maximum=high, step=step, randomize=True)
        version = version_of([one])
        for _ in range(50):
            filled = inputs.fill_random(version, {})
            assert inputs.validate(version, filled) == filled
            assert filled["seed"] < 2**53 or low >= 2**53
    assert inputs.fill_random(VERSION, {"seed": 3})["seed"] == 3


def test_form_text_becomes_typed_values_and_nonsense_stays_to_be_refused() -> None:
    typed = inputs.from_text(VERSION, {"width": "64", "strength": "0.25", "flag": "on", "prompt": "5", "seed": "", "mode": "area", "photo": "", "x": "1"})
    assert typed == {"width": 64, "strength": 0.25, "flag": True, "prompt": "5", "mode": "area", "x": "1"}
    assert inputs.from_text(VERSION, {"width": "a" * 50, "flag": "maybe"}) == {"width": "a" * 50, "flag": "maybe"}


def names(name: str, library: Any = INFO) -> list[str]:
    return [one.name for one in exposing.choose(graphs.parse(prompt(name)), library)]


def test_a_handful_of_sensible_inputs_is_chosen_with_plain_names() -> None:
    assert names("01_scale_save") == ["width", "height", "batch_size"]
    assert names("04_upload_invert") == ["image"]
    assert names("05_text_ops") == ["value", "string_b"]
    assert names("07_animated_webp")[:4] == ["seed", "width", "height", "batch_size"]
    assert names("20_slow_chain") == ["seed", "width", "height", "batch_size", "strength"]
    assert names("23_ksampler_tiny_model_previews") == ["seed", "width", "height", "batch_size", "steps", "cfg", "denoise"]


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("library", [INFO, None])
def test_chosen_inputs_are_few_unique_never_a_file_name_prefix_and_their_defaults_valid(name: str, library: Any) -> None:
    items = exposing.choose(graphs.parse(prompt(name)), library)
    assert len(items) <= exposing.HANDFUL
    assert len({one.name for one in items}) == len(items)
    assert all(exposing.NAME.fullmatch(one.name) and one.input != "filename_prefix" for one in items)
    version = version_of(items)
    given_values = {one.name: FILE if one.is_file else 64 for one in items if one.required}
    inputs.validate(version, given_values)


def test_prompts_are_told_from_negative_prompts_by_what_they_feed() -> None:
    graph = graphs.parse(
        {
            "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["9", 1]}},
            "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["9", 1]}},
            "3": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["1", 0]}},
            "4": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "negative": ["3", 0], "seed": 1, "steps": 20}},
        }
    )
    by_node = {one.node: one.name for one in exposing.choose(graph, INFO) if one.input == "text"}
    assert by_node == {"1": "negative_prompt", "2": "prompt"}


def test_twins_are_named_by_title_then_class_then_id() -> None:
    def text(title: str | None) -> dict[str, Any]:
        return {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "x"}, **({"_meta": {"title": title}} if title else {})}

    titled = graphs.parse({"1": text("Scene"), "2": text("Style guide")})
    assert [one.name for one in exposing.choose(titled, INFO)] == ["scene_value", "style_guide_value"]
    alike = graphs.parse({"1": text(None), "2:5": text(None)})
    assert [one.name for one in exposing.choose(alike, INFO)] == ["primitive_string_multiline_1_value", "primitive_string_multiline_2_5_value"]


GRAPH = graphs.parse(prompt("01_scale_save"))


def chosen(*items: Any) -> list[ExposedInput]:
    return exposing.chosen(GRAPH, INFO, items)


def test_an_editor_may_narrow_and_describe() -> None:
    (one,) = chosen({"node": "1", "input": "width", "name": "w", "title": "Breadth", "minimum": 32, "maximum": 64, "default": 48, "step": 16})
    assert (one.name, one.title, one.minimum, one.maximum, one.default, one.multiple_of) == ("w", "Breadth", 32, 64, 48, 16)
    (short,) = chosen("1.width=breadth")
    assert (short.name, short.maximum, short.default) == ("breadth", 16384, 64)
    (choice,) = chosen({"node": "2", "input": "upscale_method", "enum": ["area", "lanczos"], "default": "area"})
    assert choice.enum == ["area", "lanczos"]
    assert chosen(one, choice) == [one, choice]


def test_a_default_that_the_narrower_range_loses_makes_the_input_required() -> None:
    (one,) = chosen({"node": "1", "input": "width", "minimum": 100})
    assert (one.default, one.required) == (None, True)


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ("99.width", "expose_unknown_node"),
        ("1.nope", "expose_unknown_input"),
        ("2.image", "expose_linked_input"),
        ("1.width=Width!", "expose_bad_name"),
        (5, "expose_malformed"),
        ({"node": "1", "input": "width", "minimum": 0}, "range_wider_than_node"),
        ({"node": "1", "input": "width", "maximum": 99_999}, "range_wider_than_node"),
        ({"node": "1", "input": "width", "minimum": 9, "maximum": 8}, "range_empty"),
        ({"node": "1", "input": "width", "minimum": "a"}, "expose_malformed"),
        ({"node": "1", "input": "width", "minimum": 1.5}, "expose_malformed"),
        ({"node": "1", "input": "width", "step": 0}, "expose_malformed"),
        ({"node": "1", "input": "width", "default": 0}, "default_out_of_range"),
        ({"node": "1", "input": "width", "default": "a"}, "default_wrong_type"),
        ({"node": "1", "input": "width", "type": "string"}, "expose_wrong_type"),
        ({"node": "1", "input": "width", "kind": "image"}, "expose_wrong_kind"),
        ({"node": "1", "input": "width", "title": 5}, "expose_malformed"),
        ({"node": "2", "input": "upscale_method", "enum": ["area", "magic"]}, "range_wider_than_node"),
        ({"node": "2", "input": "upscale_method", "enum": []}, "expose_malformed"),
        ({"node": "2", "input": "upscale_method", "default": "magic"}, "default_not_in_list"),
    ],
)
def test_what_an_editor_may_not_do_has_a_code(item: Any, code: str) -> None:
    with pytest.raises(Invalid) as refusal:
        chosen(item)
    assert refusal.value.code == code


def test_names_and_places_are_exposed_once() -> None:
    for items, code in ((("1.width=a", "1.height=a"), "expose_duplicate_name"), (("1.width=a", "1.width=b"), "expose_duplicate_input")):
        with pytest.raises(Invalid) as refusal:
            chosen(*items)
        assert refusal.value.code == code


def test_a_file_input_never_becomes_free_text_and_takes_only_a_blob_as_default() -> None:
    graph = graphs.parse(prompt("04_upload_invert"))
    for wish, code in (({"kind": "value"}, "expose_wrong_kind"), ({"default": "photo.png"}, "default_not_a_blob"), ({"enum": ["a"]}, "expose_malformed")):
        with pytest.raises(Invalid) as refusal:
            exposing.chosen(graph, INFO, [{"node": "10", "input": "image", **wish}])
        assert refusal.value.code == code
    (one,) = exposing.chosen(graph, INFO, [{"node": "10", "input": "image", "default": "blob:" + "0" * 64}])
    assert (one.kind, one.required) == ("image", False)


def test_without_a_library_types_follow_the_values() -> None:
    graph = graphs.parse({"1": {"class_type": "Mystery", "inputs": {"a": 1, "b": 1.5, "c": "x", "d": True, "e": None}}})
    kinds = {name: exposing.describe(graph, None, node="1", input=name).type for name in "abcd"}
    assert kinds == {"a": "integer", "b": "number", "c": "string", "d": "boolean"}
    with pytest.raises(Invalid) as refusal:
        exposing.describe(graph, None, node="1", input="e")
    assert refusal.value.code == "expose_type_unsupported"
    (wider,) = exposing.chosen(graph, None, [{"node": "1", "input": "a", "type": "number"}])
    assert wider.type == "number"


def test_stored_inputs_of_other_releases_load() -> None:
    assert load_all([{"name": "a", "node": "1", "input": "a", "type": "integer", "later": 1}])[0].name == "a"


def test_validation_of_a_kept_version_takes_microseconds() -> None:
    values = {"prompt": "a cat on a mat", "width": 640, "strength": 0.3, "mode": "lanczos", "seed": 12}
    inputs.validate(VERSION, values)
    start = time.perf_counter()
    for _ in range(2_000):
        inputs.validate(VERSION, values)
    assert (time.perf_counter() - start) / 2_000 < 0.0005
