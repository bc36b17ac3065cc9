"""A three-way merge keeps what one side changed, asks about what both changed, and always gives a valid graph."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
from graph_strategies import content, edited, graphs, renumbered
from hypothesis import given
from hypothesis import strategies as st
from test_diffing_nodes import GRAPH, chain, changed

from builds.ancestry import nearest
from builds.comparing import Content, diff
from builds.comparing.content import same
from builds.links import as_link, cycle
from builds.merging import Merged, merge
from controlplane.kernel.errors import Invalid


def merged(base: Any, ours: Any, theirs: Any, **choices: str) -> Merged:
    return merge(content(base), content(ours), content(theirs), {key.replace("__", ".").removeprefix("n"): value for key, value in choices.items()})


def dangling(graph: dict[str, Any]) -> list[Any]:
    return [value for node in graph.values() for value in node["inputs"].values() if (link := as_link(value)) and link[0] not in graph]


@given(st.data())
def test_a_merge_with_no_change_on_one_side_is_the_other_side(data: st.DataObject) -> None:
    base = data.draw(graphs())
    side = data.draw(edited(base))
    ours = merged(base, side, base)
    assert (ours.clashes, same(ours.content.graph, side)) == ([], True)
    theirs = merged(base, base, side)
    assert theirs.clashes == []
    assert diff(theirs.content, content(side)).nodes == []
    both = merged(base, side, side)
    assert (both.clashes, same(both.content.graph, side)) == ([], True)


@given(st.data())
def test_every_merge_is_valid_and_settles_by_choices_alone(data: st.DataObject) -> None:
    base = data.draw(graphs())
    ours, theirs = data.draw(edited(base)), data.draw(edited(base))
    choices: dict[str, str] = {}
    for _ in range(12):
        found = merge(content(base), content(ours), content(theirs), choices)
        assert not dangling(found.content.graph)
        assert cycle(found.content.graph) is None
        if not found.open:
            break
        choices |= {clash.key: data.draw(st.sampled_from(["ours", "theirs"])) for clash in found.open}
    assert not found.open


@given(st.data())
def test_sides_may_be_swapped(data: st.DataObject) -> None:
    base = data.draw(graphs())
    one, two = data.draw(edited(base)), data.draw(edited(base))
    left, right = merge(content(base), content(one), content(two)), merge(content(base), content(two), content(one))
    assert bool(left.clashes) == bool(right.clashes)
    if not left.clashes:
        assert diff(left.content, right.content).nodes == []


def test_changes_of_different_fields_go_together() -> None:
    ours = changed(n3={"steps": 16}, n6={"text": "a ship"})
    theirs = changed(n3={"cfg": 5.5}, n4={"ckpt_name": "xl.safetensors"})
    found = merged(GRAPH, ours, theirs)
    assert found.clashes == []
    assert found.content.graph == changed(n3={"steps": 16, "cfg": 5.5}, n6={"text": "a ship"}, n4={"ckpt_name": "xl.safetensors"})


def test_the_same_field_changed_twice_names_node_field_and_all_three_values() -> None:
    found = merged(GRAPH, changed(n3={"steps": 16}), changed(n3={"steps": 30}))
    [clash] = found.clashes
    assert (clash.key, clash.base, clash.ours, clash.theirs, clash.chosen) == ("3.steps", 20, 16, 30, "")
    assert found.open == [clash]
    for side, value in (("ours", 16), ("theirs", 30)):
        settled = merged(GRAPH, changed(n3={"steps": 16}), changed(n3={"steps": 30}), n3__steps=side)
        assert (settled.open, settled.content.graph["3"]["inputs"]["steps"]) == ([], value)


def test_both_renumbered_their_export_and_still_merge() -> None:
    theirs = renumbered(changed(n3={"steps": 16}), {node: str(int(node) + 20) for node in GRAPH})
    found = merged(GRAPH, changed(n6={"text": "a ship"}), theirs)
    assert found.clashes == []
    assert found.content.graph == changed(n6={"text": "a ship"}, n3={"steps": 16})


def test_new_nodes_under_one_number_are_two_nodes() -> None:
    lora = {"class_type": "LoraLoader", "inputs": {"model": ["4", 0], "lora_name": "a.safetensors"}}
    other = {"class_type": "ImageInvert", "inputs": {"image": ["8", 0]}}
    found = merged(GRAPH, changed(n3={"model": ["10", 0]}) | {"10": lora}, changed(n9={"images": ["10", 0]}) | {"10": other})
    assert found.clashes == []
    graph = found.content.graph
    assert (graph["10"]["class_type"], graph["11"]["class_type"]) == ("LoraLoader", "ImageInvert")
    assert (graph["3"]["inputs"]["model"], graph["9"]["inputs"]["images"]) == (["10", 0], ["11", 0])
    assert found.renumbered == {"10": "11"}
    assert merged(GRAPH, changed() | {"10": lora}, changed() | {"10": lora}).content.graph == GRAPH | {"10": lora}


def test_a_removed_node_that_the_other_side_changed_is_asked_about() -> None:
    ours, theirs = changed(n7={"text": "ugly"}), changed(n7=None)
    del theirs["3"]["inputs"]["negative"]
    found = merged(GRAPH, ours, theirs)
    assert [clash.key for clash in found.clashes] == ["7.@node"]
    assert "7" in found.content.graph
    gone = merge(content(GRAPH), content(ours), content(theirs), {"7.@node": "theirs"})
    assert "7" not in gone.content.graph
    assert not dangling(gone.content.graph)


def test_a_link_to_a_node_the_other_side_removed_is_a_conflict_and_never_dangles() -> None:
    ours = changed() | {"10": {"class_type": "PreviewAny", "inputs": {"source": ["7", 0]}}}
    theirs = changed(n7=None)
    theirs["3"]["inputs"]["negative"] = ["6", 0]
    found = merged(GRAPH, ours, theirs)
    [clash] = found.clashes
    assert (clash.key, clash.ours, clash.why) == ("10.source", ["7", 0], "It is fed by node 7, which they removed.")
    kept = merge(content(GRAPH), content(ours), content(theirs), {"10.source": "ours"}).content.graph
    assert kept["7"] == GRAPH["7"]
    assert kept["3"]["inputs"]["negative"] == ["6", 0]
    cut = merge(content(GRAPH), content(ours), content(theirs), {"10.source": "theirs"}).content.graph
    assert "7" not in cut
    assert cut["10"]["inputs"] == {}


def test_links_that_together_make_a_circle_are_a_conflict() -> None:
    base = {node: {"class_type": "Mix", "inputs": {"a": 1}} for node in ("1", "2")}
    ours, theirs = copy.deepcopy(base), copy.deepcopy(base)
    ours["1"]["inputs"]["a"] = ["2", 0]
    theirs["2"]["inputs"]["a"] = ["1", 0]
    found = merged(base, ours, theirs)
    assert ([clash.key for clash in found.clashes], found.content.graph) == (["2.a"], ours)
    assert merge(content(base), content(ours), content(theirs), {"2.a": "theirs"}).content.graph == theirs


def test_a_class_changed_on_both_sides_is_chosen_as_a_whole() -> None:
    ours, theirs = changed(n9={"quality": 80}), changed()
    ours["9"]["class_type"], theirs["9"]["class_type"] = "SaveWebp", "PreviewImage"
    found = merged(GRAPH, ours, theirs)
    assert [clash.key for clash in found.clashes] == ["9.@node"]
    assert merge(content(GRAPH), content(ours), content(theirs), {"9.@node": "theirs"}).content.graph["9"] == theirs["9"]
    assert merged(GRAPH, changed(), theirs).content.graph == theirs


def test_what_a_choice_leaves_without_use_is_taken_out_and_said() -> None:
    def with_lora(name: str, node: str) -> dict[str, Any]:
        return changed(n3={"model": [node, 0]}) | {node: {"class_type": "LoraLoader", "inputs": {"model": ["4", 0], "lora_name": name}}}

    found = merge(content(GRAPH), content(with_lora("a", "10")), content(with_lora("b", "10")), {"3.model": "theirs"})
    assert found.content.graph["3"]["inputs"]["model"] == ["11", 0]
    assert "10" not in found.content.graph
    assert [note["code"] for note in found.notes] == ["merge_left_out"]


def test_a_link_that_leads_nowhere_is_not_attached_to_a_node_that_comes() -> None:
    theirs = changed() | {"50": {"class_type": "ImageInvert", "inputs": {"image": ["8", 0]}}}
    graph = merged(GRAPH, changed(n9={"images": ["50", 0]}), theirs).content.graph
    assert (graph["9"]["inputs"]["images"], "50" in graph, graph["51"]["class_type"]) == (["50", 0], False, "ImageInvert")


def test_limits_merge_and_clash_by_name() -> None:
    base = content(GRAPH)
    found = merge(base, Content(graph=GRAPH, timeout_s=60), Content(graph=GRAPH, stall_s=30))
    assert (found.content.timeout_s, found.content.stall_s, found.clashes) == (60, 30, [])
    found = merge(base, Content(graph=GRAPH, timeout_s=60), Content(graph=GRAPH, timeout_s=90), {"@version.timeout_s": "theirs"})
    assert found.content.timeout_s == 90


def test_a_choice_of_neither_side_is_refused_and_one_that_settles_nothing_does_nothing() -> None:
    with pytest.raises(Invalid) as refusal:
        merge(content(GRAPH), content(GRAPH), content(GRAPH), {"3.steps": "mine"})
    assert refusal.value.code == "unknown_choice"
    assert merge(content(GRAPH), content(GRAPH), content(GRAPH), {"3.nothing": "ours"}).clashes == []


STEPS = {"name": "steps", "node": "3", "input": "steps", "type": "integer", "default": 20, "minimum": 1, "maximum": 50}
SEED = {"name": "seed", "node": "3", "input": "seed", "type": "integer", "default": 1}


def exposing(ours: Any, theirs: Any, *, base: Any = (STEPS,), choices: Any = None, graphs: Any = (GRAPH, GRAPH, GRAPH)) -> Merged:
    sides = [content(graph, inputs=inputs) for graph, inputs in zip(graphs, (base, ours, theirs), strict=True)]
    return merge(*sides, choices or {})


def test_exposed_inputs_merge_attribute_by_attribute() -> None:
    found = exposing([{**STEPS, "title": "Steps"}, SEED], [{**STEPS, "maximum": 40}])
    assert found.clashes == []
    assert [(one.name, one.title, one.maximum) for one in found.content.inputs] == [("steps", "Steps", 40), ("seed", "", None)]
    found = exposing([{**STEPS, "name": "rounds"}], [{**STEPS, "name": "quality"}], choices={"@inputs.rounds.name": "theirs"})
    assert [one.name for one in found.content.inputs] == ["quality"]
    assert exposing([], [STEPS]).content.inputs == []
    found = exposing([], [{**STEPS, "maximum": 40}])
    assert [clash.key for clash in found.open] == ["@inputs.steps"]


def test_a_default_follows_the_graph_and_is_asked_once() -> None:
    ours, theirs = changed(n3={"steps": 16}), changed(n3={"steps": 30})
    found = exposing([{**STEPS, "default": 16}], [{**STEPS, "default": 30}], graphs=(GRAPH, ours, theirs), choices={"3.steps": "theirs"})
    assert [clash.key for clash in found.clashes] == ["3.steps"]
    assert found.content.inputs[0].default == 30


def test_an_input_exposed_on_a_node_the_other_side_removed_is_asked_about() -> None:
    theirs = changed(n5=None)
    del theirs["3"]["inputs"]["latent_image"]
    width = {"name": "width", "node": "5", "input": "width", "type": "integer", "default": 512}
    found = exposing([width], [], base=(), graphs=(GRAPH, GRAPH, theirs))
    assert [clash.key for clash in found.clashes] == ["@inputs.width"]
    kept = exposing([width], [], base=(), graphs=(GRAPH, GRAPH, theirs), choices={"@inputs.width": "ours"})
    assert ("5" in kept.content.graph, [one.name for one in kept.content.inputs]) == (True, ["width"])
    gone = exposing([width], [], base=(), graphs=(GRAPH, GRAPH, theirs), choices={"@inputs.width": "theirs"})
    assert ("5" in gone.content.graph, gone.content.inputs) == (False, [])


def test_one_name_for_two_places_is_asked_about() -> None:
    found = exposing([STEPS, {**SEED, "name": "x"}], [STEPS, {"name": "x", "node": "3", "input": "cfg", "type": "number"}], choices={"@inputs.x": "theirs"})
    assert [(one.name, one.input) for one in found.content.inputs] == [("steps", "steps"), ("x", "cfg")]


def test_a_canvas_is_kept_only_where_it_shows_the_merged_graph() -> None:
    drawn = {"nodes": [{"id": 3, "pos": [0, 0]}], "links": []}
    moved = {"nodes": [{"id": 3, "pos": [9, 9]}], "links": []}
    base, same_graph = content(GRAPH, ui_graph=drawn), content(GRAPH, ui_graph=moved)
    assert merge(base, base, same_graph).content.ui_graph == moved
    assert merge(base, same_graph, base).content.ui_graph == moved
    theirs = content(changed(n3={"steps": 16}), ui_graph=moved)
    assert merge(base, base, theirs).content.ui_graph == moved
    assert merge(base, theirs, base).content.ui_graph == moved
    found = merge(base, content(changed(n6={"text": "x"}), ui_graph=drawn), theirs)
    assert (found.content.ui_graph, [note["code"] for note in found.notes]) == (None, ["canvas_not_merged"])


def test_graphs_of_thousands_of_nodes_merge_in_seconds() -> None:
    base, ours, theirs = chain(2_000), chain(2_000), chain(2_000)
    ours["700"]["inputs"]["sigma"] = 3.0
    theirs["900"]["inputs"]["sigma"] = 4.0
    started = time.thread_time()
    found = merged(base, ours, theirs)
    assert time.thread_time() - started < 5
    assert (found.clashes, found.content.graph["700"]["inputs"]["sigma"], found.content.graph["900"]["inputs"]["sigma"]) == ([], 3.0, 4.0)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("e", "e", ["e"]), ("c", "e", ["b"]), ("e", "a", ["a"]), ("m", "e", ["e"]), ("x", "a", []), ("m", "n", ["c", "e"])],
)
def test_the_nearest_common_ancestor_follows_both_parents_of_a_merge(a: str, b: str, expected: list[str]) -> None:
    parents = {"b": ["a"], "c": ["b"], "e": ["b"], "m": ["c", "e"], "n": ["e", "c"], "x": []}
    assert sorted(nearest(parents, a, b)) == expected
