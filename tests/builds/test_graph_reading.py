"""What is readable as a graph, and what is said about a readable but faulty one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_samples import PROMPTS, object_info, prompt

from builds import graphs
from builds.exposed import ExposedInput
from builds.findings import findings, missing_models
from builds.links import cycle, layers, models
from controlplane.kernel.errors import Invalid, Malformed, TooLarge, WorkflowError

VERDICTS = {
    "22_upscale_tiny_model_progress": {"model_missing"},
    "23_ksampler_tiny_model_previews": {"model_missing"},
    "40_partial_one_output_invalid": {"value_not_in_list"},
    "50_invalid_missing_required": {"missing_input"},
    "51_invalid_unknown_class": {"unknown_node"},
    "52_invalid_link_to_missing_node": {"missing_link_target"},
    "54_invalid_type_mismatch": {"type_mismatch"},
    "55_invalid_missing_model": {"model_missing"},
    "56_invalid_value_range": {"out_of_range"},
    "57_invalid_value_type": {"wrong_type"},
    "58_invalid_no_outputs": {"no_outputs"},
    "60_invalid_bad_link_shape": {"bad_link"},
    "62_invalid_missing_class_type": {"missing_class_type"},
    "64_many_combo_options_not_in_list": {"value_not_in_list"},
}


def node(class_type: str, **inputs: object) -> dict[str, object]:
    return {"class_type": class_type, "inputs": inputs}


@pytest.mark.parametrize("name", PROMPTS)
def test_every_shared_prompt_is_judged_as_the_real_server_judges_it(name: str) -> None:
    graph = graphs.parse(prompt(name))
    found = findings(graph, object_info())
    assert {one["code"] for one in found if one["level"] == "error"} == VERDICTS.get(name, set())
    assert all(one["message"] and one["suggestion"] and {"node", "field"} <= one.keys() for one in found)


def test_there_are_28_prompts() -> None:
    assert len(PROMPTS) == 28


@pytest.mark.parametrize(
    "wrap",
    [
        lambda g: {"prompt": g, "client_id": "x"},
        lambda g: {"input": {"workflow": g, "images": [], "comfy_org_api_key": "secret"}},
        lambda g: {"workflow": g},
        lambda g: {"output": g, "workflow": {"nodes": [], "links": []}},
    ],
)
def test_the_usual_envelopes_are_opened_and_nothing_else_of_them_is_kept(wrap) -> None:
    plain = graphs.parse(prompt("01_scale_save"))
    assert graphs.parse(wrap(prompt("01_scale_save"))) == plain
    assert "secret" not in str(graphs.parse(wrap(prompt("01_scale_save"))))


@pytest.mark.parametrize("document", [{"nodes": [], "links": []}, {"prompt": {"nodes": [], "links": []}}, {"input": {"workflow": {"nodes": []}}}])
def test_a_canvas_file_needs_a_node_library_and_says_the_way_around(document: object) -> None:
    with pytest.raises(Invalid) as refusal:
        graphs.parse(document)
    assert refusal.value.code == "no_node_library"
    assert "Export (API)" in refusal.value.suggestion


@pytest.mark.parametrize(
    "document", [None, [], {}, "text", 5, {"a": 1}, {"1": {"inputs": {}}}, {"1": node("A"), "2": 5}, {"1": {"class_type": "A", "inputs": []}}]
)
def test_anything_else_is_not_a_workflow(document: object) -> None:
    with pytest.raises(Invalid) as refusal:
        graphs.parse(document)
    assert refusal.value.code == "not_a_workflow"


def test_size_depth_and_unstorable_content_are_refused_before_work() -> None:
    deep: object = "x"
    for _ in range(100):
        deep = [deep]
    cases = [
        ({"1": node("A", x=deep)}, "graph_too_large"),
        ({str(i): node("A") for i in range(2001)}, "graph_too_large"),
        ({"1": node("A", **{f"x{i}": 1 for i in range(501)})}, "graph_too_large"),
        ({"1": node("A", x="y" * 500_001)}, "graph_too_large"),
        ({"1": node("A", x="\x00")}, "invalid_text"),
        ({"1": node("A", x="\ud800")}, "invalid_text"),
        ({"1": node("A", x=float("nan"))}, "not_a_number"),
        ({"1": node("A", x=2**70)}, "number_too_large"),
    ]
    for document, code in cases:
        with pytest.raises(WorkflowError) as refusal:
            graphs.parse(document)
        assert refusal.value.code == code


def test_bytes_that_are_no_json_are_malformed_and_never_crash() -> None:
    for data in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000):
        with pytest.raises(Malformed):
            graphs.load(data)
    with pytest.raises(TooLarge):
        graphs.load(b" " * 4_000_001)
    assert graphs.load(b'\xef\xbb\xbf{"a":1}') == {"a": 1}


def test_a_circle_is_refused_and_named_in_the_direction_data_flows() -> None:
    graph = graphs.parse({"1": node("A", x=["3", 0]), "2": node("B", x=["1", 0]), "3": node("C", x=["2", 0]), "4": node("D", x=["3", 0])})
    with pytest.raises(Invalid) as refusal:
        graphs.refuse_cycle(graph)
    assert refusal.value.code == "graph_cyclic"
    loop = refusal.value.details["cycle"]
    assert loop[0] == loop[-1]
    assert set(loop) == {"1", "2", "3"}
    assert all([after, "x"] and graph[after]["inputs"]["x"][0] == before for before, after in itertools.pairwise(loop))
    assert cycle(graphs.parse({"1": node("A", x=["1", 0])})) == ["1", "1"]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=20))
def test_a_graph_without_a_circle_has_layers_in_which_data_flows_forward(pairs: list[tuple[int, int]]) -> None:
    graph: dict[str, dict] = {str(i): {"class_type": "A", "inputs": {}} for i in range(9)}
    for index, (a, b) in enumerate(pairs):
        graph[str(b)]["inputs"][f"i{index}"] = [str(a), 0]
    loop = cycle(graph)
    if loop is None:
        layer = layers(graph)
        assert all(layer[str(a)] < layer[str(b)] for a, b in pairs)
    else:
        assert all((int(a), int(b)) in pairs for a, b in itertools.pairwise(loop))


def test_faults_of_a_branch_that_never_runs_are_only_warnings() -> None:
    graph = prompt("01_scale_save") | {"9": node("ImageScale", image=["1", 0], upscale_method="nope", width=5, height=5, crop="disabled")}
    (only,) = findings(graphs.parse(graph), object_info())
    assert (only["level"], only["code"], only["node"]) == ("warning", "value_not_in_list", "9")


def test_without_a_library_only_the_shape_is_checked() -> None:
    codes = {
        name: [one["code"] for one in findings(graphs.parse(prompt(name)), None)] for name in ("51_invalid_unknown_class", "52_invalid_link_to_missing_node")
    }
    assert codes["51_invalid_unknown_class"] == ["library_missing"]
    assert codes["52_invalid_link_to_missing_node"] == ["missing_link_target", "library_missing"]


def test_missing_models_are_kept_as_data_for_another_library() -> None:
    graph = graphs.parse(prompt("55_invalid_missing_model"))
    (missing,) = missing_models(findings(graph, object_info()))
    assert missing["model"] == "sd_xl_base_1.0.safetensors"
    assert [(one.node, one.name) for one in models(graph)] == [("1", "sd_xl_base_1.0.safetensors")]
    there = {
        **object_info(),
        "CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": [["sd_xl_base_1.0.safetensors"]]}}, "output": ["MODEL", "CLIP", "VAE"]},
    }
    assert findings(graph, there) == []


def test_a_misspelt_class_and_choice_come_with_the_right_word() -> None:
    graph = graphs.parse({"1": node("EmptyImag", width=8), "2": node("SaveImage", images=["1", 0], filename_prefix="x")})
    assert findings(graph, object_info())[0]["suggestion"] == "Did you mean EmptyImage?"


def test_an_unexposed_upload_is_pointed_out_and_an_exposed_one_is_not() -> None:
    graph = graphs.parse(prompt("04_upload_invert"))
    exposed = [ExposedInput(name="image", node="10", input="image", type="string", kind="image")]
    assert [one["code"] for one in findings(graph, object_info())] == ["file_not_included"]
    assert findings(graph, object_info(), exposed) == []


def test_binding_copies_and_leaves_the_rest_alone() -> None:
    graph = graphs.parse(prompt("01_scale_save"))
    before = str(graph)
    exposed = [{"name": "w", "node": "1", "input": "width", "type": "integer"}, {"name": "h", "node": "1", "input": "height", "type": "integer"}]
    bound = graphs.bind(graph, exposed, {"w": 99})
    assert (bound["1"]["inputs"]["width"], bound["1"]["inputs"]["height"]) == (99, 48)
    bound["2"]["inputs"]["image"].append("changed")
    assert str(graph) == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["1", "2", "class_type", "inputs", "prompt", "input", "workflow", "nodes", "x"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON)
def test_no_document_crashes_the_reader(document: object) -> None:
    try:
        graph = graphs.parse(document)
        graphs.refuse_cycle(graph)
    except WorkflowError as refusal:
        assert 400 <= refusal.status < 500
        return
    assert findings(graph, object_info())


@given(
    st.dictionaries(
        st.sampled_from("123"),
        st.builds(node, st.sampled_from(["EmptyImage", "SaveImage", "KSampler", "LoadImage"]), width=JSON, images=JSON, image=JSON, seed=JSON),
    )
)
def test_no_value_crashes_the_judgement(document: dict) -> None:
    try:
        graph = graphs.parse(document)
    except WorkflowError:
        return
    findings(graph, object_info())
    findings(graph, None)
    models(graph)
