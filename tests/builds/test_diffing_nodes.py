"""A diff says exactly what differs: it is empty for equals, turns one side into the other, and is not fooled by new numbers."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
from graph_strategies import applied, content, edited, graphs, renumbered
from hypothesis import given
from hypothesis import strategies as st
from registry_samples import PROMPTS, prompt

from builds.comparing import diff
from builds.comparing.content import same
from builds.comparing.telling import as_json, lines, summary
from builds.graphs import parse
from builds.links import as_link
from controlplane.kernel.errors import WorkflowError

GRAPH: dict[str, Any] = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a boat", "clip": ["4", 1]}, "_meta": {"title": "Positive"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}, "_meta": {"title": "Negative"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
    "3": {
        "class_type": "KSampler",
        "inputs": {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0], "seed": 1, "steps": 20, "cfg": 7.0},
    },
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "out"}},
}


def between(a: dict[str, Any], b: dict[str, Any], **fields: Any) -> Any:
    return diff(content(a, **fields), content(b, **fields))


def changed(**inputs: Any) -> dict[str, Any]:
    """GRAPH with inputs of nodes replaced: n3={"steps": 16}; None takes the node out."""
    graph = copy.deepcopy(GRAPH)
    for key, values in inputs.items():
        if values is None:
            del graph[key[1:]]
        else:
            graph[key[1:]]["inputs"].update(values)
    return graph


@given(graphs(dangling=True))
def test_nothing_differs_from_itself(graph: dict[str, Any]) -> None:
    found = between(graph, copy.deepcopy(graph))
    assert found.is_empty
    assert found.runs_alike
    assert found.unchanged["nodes"] == len(graph)


@given(graphs(dangling=True), graphs(dangling=True))
def test_applying_the_diff_of_any_two_graphs_gives_the_other(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert same(applied(between(a, b), a), b)


@given(st.data())
def test_applying_the_diff_of_an_edit_gives_the_edited(data: st.DataObject) -> None:
    a = data.draw(graphs())
    b = data.draw(edited(a))
    found = between(a, b)
    assert same(applied(found, a), b)
    back = between(b, a)
    assert same(applied(back, b), a)
    assert {(n.before, n.after) for n in found.nodes} == {(n.after, n.before) for n in back.nodes}


@given(graphs(), st.randoms(use_true_random=False))
def test_new_numbers_alone_change_no_node(graph: dict[str, Any], random: Any) -> None:
    numbers = [str(n) for n in range(100, 100 + len(graph))]
    random.shuffle(numbers)
    other = renumbered(graph, dict(zip(graph, numbers, strict=True)))
    found = between(graph, other)
    assert found.nodes == []
    assert len(found.renumbered) == len(graph)
    assert found.runs_alike
    assert not found.is_empty
    assert summary(found) == "API unchanged; only node numbers differ."


@given(graphs(), st.randoms(use_true_random=False))
def test_shuffling_the_same_numbers_changes_no_node(graph: dict[str, Any], random: Any) -> None:
    numbers = list(graph)
    random.shuffle(numbers)
    other = renumbered(graph, dict(zip(graph, numbers, strict=True)))
    assert between(graph, other).nodes == []


def test_a_renumbered_export_with_one_edit_shows_that_edit_alone() -> None:
    shifted = {node: str(int(node) + 1) for node in GRAPH}
    other = renumbered(changed(n3={"steps": 16}), shifted)
    [node] = between(GRAPH, other).nodes
    assert (node.status, node.before, node.after, node.class_type) == ("changed", "3", "4", "KSampler")
    [field] = node.fields
    assert (field.kind, field.field, field.before, field.after) == ("value", "steps", 20, 16)


def test_values_links_titles_and_classes_are_told_apart() -> None:
    other = changed(n3={"steps": 16, "cfg": ["5", 1]}, n8={"vae": ["4", 0]})
    other["6"]["_meta"] = {"title": "Prompt"}
    other["9"]["class_type"] = "PreviewImage"
    found = {node.after: node for node in between(GRAPH, other).nodes}
    assert [(f.kind, f.field) for f in found["3"].fields] == [("value", "steps"), ("link", "cfg")]
    assert [(f.kind, f.field, f.before, f.after) for f in found["8"].fields] == [("link", "vae", ["4", 2], ["4", 0])]
    assert [(f.kind, f.before, f.after) for f in found["6"].fields] == [("title", "Positive", "Prompt")]
    assert [(f.kind, f.before, f.after) for f in found["9"].fields] == [("class", "SaveImage", "PreviewImage")]
    assert set(found) == {"3", "6", "8", "9"}


def test_a_node_put_between_two_is_one_new_node_and_one_new_link() -> None:
    other = changed(n9={"images": ["10", 0]}) | {"10": {"class_type": "ImageInvert", "inputs": {"image": ["8", 0]}}}
    found = between(GRAPH, other)
    assert [(n.status, n.id) for n in found.nodes] == [("changed", "9"), ("added", "10")]
    assert found.counts() == {"added": 1, "removed": 0, "changed": 1}


def test_another_class_under_a_reused_number_is_not_the_same_node() -> None:
    other = changed(n5=None, n3={"latent_image": ["6", 0]}) | {"5": {"class_type": "Note", "inputs": {}}}
    assert {(n.status, n.id) for n in between(GRAPH, other).nodes} >= {("added", "5"), ("removed", "5")}


def test_true_is_not_one_and_a_whole_float_is_its_integer() -> None:
    assert between(GRAPH, changed(n3={"cfg": 7})).is_empty
    [node] = between(changed(n3={"seed": 1}), changed(n3={"seed": True})).nodes
    assert node.fields[0].after is True


def test_models_packs_and_limits_are_named() -> None:
    def canvas(**vers: str) -> dict[str, Any]:
        return {"nodes": [{"id": 1, "type": "X", "properties": {"cnr_id": name, "ver": ver}} for name, ver in vers.items()]}

    a = content(GRAPH, ui_graph=canvas(impact="1.0", gone="2", **{"comfy-core": "0.3"}), timeout_s=300)
    b = content(changed(n4={"ckpt_name": "xl.safetensors"}), ui_graph=canvas(impact="1.1", new="3", **{"comfy-core": "0.4"}), timeout_s=60)
    said = as_json(diff(a, b))
    assert [one["name"] for one in said["models"]["added"]] == ["xl.safetensors"]
    assert [one["name"] for one in said["models"]["removed"]] == ["sd15.safetensors"]
    assert said["packs"]["changed"] == [{"name": "impact", "before": "1.0", "after": "1.1"}]
    assert ([p["name"] for p in said["packs"]["added"]], [p["name"] for p in said["packs"]["removed"]]) == (["new"], ["gone"])
    assert said["pack_source"] == "canvas"
    assert said["limits"] == {"timeout_s": {"before": 300, "after": 60}}
    bare = as_json(diff(a, content(GRAPH)))
    assert (bare["pack_source"], bare["packs"]["removed"]) == ("none", [])


def test_locks_say_packs_packages_and_model_bytes_exactly() -> None:
    def lock(commit: str, numpy: str, sha: str) -> dict[str, Any]:
        return {
            "comfyui": {"commit": "c" * 40},
            "packs": [{"key": "cnr:impact", "commit": commit}],
            "python_packages": [{"name": "numpy", "version": numpy}],
            "models": [{"filename": "sd15.safetensors", "sha256": sha}],
        }

    said = as_json(diff(content(GRAPH, resolved=lock("a" * 40, "2.0", "1" * 64)), content(GRAPH, resolved=lock("b" * 40, "2.1", "2" * 64))))
    assert said["packs"]["changed"] == [{"name": "cnr:impact", "before": "a" * 40, "after": "b" * 40}]
    assert said["python_packages"]["changed"] == [{"name": "numpy", "before": "2.0", "after": "2.1"}]
    assert [one["name"] for one in said["models"]["changed"]] == ["sd15.safetensors"]
    assert said["pack_source"] == "lock"


def test_a_node_that_was_muted_says_so() -> None:
    a, b = changed(), changed(n9=None)
    found = diff(content(a, ui_graph={"nodes": [{"id": 9, "mode": 0}]}), content(b, ui_graph={"nodes": [{"id": 9, "mode": 2}]}))
    assert [(n.status, n.id, n.mode) for n in found.nodes] == [("removed", "9", "muted")]


@pytest.mark.parametrize("name", PROMPTS)
def test_shared_prompts_against_each_other_apply(name: str) -> None:
    try:
        graph = parse(prompt(name))
    except WorkflowError:
        pytest.skip("not a readable graph")
    for other in (GRAPH, {}):
        assert same(applied(between(graph, other), graph), other)
        assert same(applied(between(other, graph), other), graph)


def test_graphs_that_run_in_a_circle_are_compared_too() -> None:
    circle = {"1": {"class_type": "A", "inputs": {"x": ["2", 0]}}, "2": {"class_type": "A", "inputs": {"x": ["1", 0]}}}
    assert between(circle, circle).is_empty
    other = renumbered(circle, {"1": "8", "2": "9"})
    assert same(applied(between(circle, other), circle), other)


def chain(length: int, *, start: int = 1) -> dict[str, Any]:
    graph: dict[str, Any] = {str(start): {"class_type": "EmptyImage", "inputs": {"width": 8}}}
    for at in range(start + 1, start + length):
        graph[str(at)] = {"class_type": "ImageBlur", "inputs": {"image": [str(at - 1), 0], "sigma": 1.0}}
    return graph


@pytest.mark.parametrize("shift", [0, 1])
def test_ten_thousand_nodes_are_compared_in_seconds(shift: int) -> None:
    a, b = chain(10_000), chain(10_000, start=1 + shift)
    b[str(5_000 + shift)]["inputs"]["sigma"] = 2.0
    started = time.thread_time()
    found = between(a, b)
    assert time.thread_time() - started < 10
    assert [(n.before, n.after) for n in found.nodes] == [("5000", str(5_000 + shift))]


def test_what_differs_everywhere_is_cut_and_says_so() -> None:
    a, b = chain(3_000), {node: {**one, "class_type": "Other"} for node, one in chain(3_000, start=5_000).items()}
    said = as_json(between(a, b))
    assert (len(said["nodes"]), said["nodes_left_out"]) == (500, 5_500)
    text = lines(between(a, b))
    assert len(text) < 1_000
    assert any("5,500 more nodes" in line for line in text)


def test_hostile_titles_and_long_values_are_cut_and_kept_on_one_line() -> None:
    other = changed(n6={"text": "x" * 500_000})
    other["7"]["_meta"]["title"] = "\x1b[2J\n<script>alert(1)</script>"
    found = between(GRAPH, other)
    assert max(len(line) for line in lines(found)) < 1_200
    assert all(line.isprintable() for line in lines(found))
    assert len(str(as_json(found))) < 5_000


def test_links_into_the_graph_are_links_in_the_diff() -> None:
    assert as_link(between(GRAPH, changed(n8={"vae": ["4", 0]})).nodes[0].fields[0].after)
