"""What packs add to the canvas: setters and getters, values by name, scripts that only the browser knows."""

from __future__ import annotations

from typing import Any

import pytest
from canvas_samples import canvas, chain, classes, node, node_class, socket

from builds.conversion import Inexact, convert

PACK = {
    "PackLoader": node_class({"ckpt": [["a", "b"], {}], "seed": ["INT", {}]}, module="custom_nodes.pack"),
    "PackVideo": node_class(
        {"images": ["IMAGE", {}], "frame_rate": ["FLOAT", {"default": 8}], "format": [["gif", "mp4"], {}]}, output=(), module="custom_nodes.video"
    ),
}
INFO = classes() | PACK


def wired(getter: Any, *setters: Any) -> dict[str, Any]:
    ends = [node(1, "EmptyImage", [64, 32, 1, 0]), node(9, "SaveImage", ["p"], [socket("images", "IMAGE", 2)])]
    links = [[at, 1, 0, one["id"], 0, "IMAGE"] for at, one in enumerate(setters, 10)]
    return canvas([*ends, getter, *setters], [*links, [2, 5, 0, 9, 0, "IMAGE"]])


def setter(node_id: int, name: Any, link: int) -> dict[str, Any]:
    return node(node_id, "SetNode", [name], [socket("IMAGE", "IMAGE", link)], outputs=[{"name": "*", "type": "*"}])


@pytest.mark.parametrize(("getter", "set_type"), [("GetNode", "SetNode"), ("easy getNode", "easy setNode")])
def test_a_getter_stands_for_what_its_setter_was_given(getter: str, set_type: str) -> None:
    graph = convert(wired(node(5, getter, ["pic"]), setter(6, "pic", 10) | {"type": set_type}, setter(7, "other", 11)), INFO)
    assert graph["9"]["inputs"]["images"] == ["1", 0]
    assert set(graph) == {"1", "9"}


@pytest.mark.parametrize("setters", [[], [setter(6, "pic", 10), setter(7, "pic", 11)]])
def test_a_getter_without_exactly_one_setter_is_refused_by_name(setters: list[Any]) -> None:
    with pytest.raises(Inexact) as refusal:
        convert(wired(node(5, "GetNode", ["pic"]), *setters), INFO)
    problem = refusal.value.problems[0]
    assert (problem.code, problem.node) == ("getter_unclear", "5")
    assert "link" in problem.suggestion


@pytest.mark.parametrize("kind", ["Note", "MarkdownNote", "Fast Groups Muter (rgthree)", "Label (rgthree)", "Bookmark (rgthree)"])
def test_decoration_disappears(kind: str) -> None:
    graph = convert(canvas([node(1, "EmptyImage", [64, 32, 1, 0]), node(2, kind, ["text"])]), INFO)
    assert set(graph) == {"1"}


def test_values_saved_by_name_keep_their_names_and_the_fields_of_their_format() -> None:
    values = {"frame_rate": 24, "format": "mp4", "crf": 19, "save_metadata": True, "videopreview": {"hidden": False}, "choose video to upload": "image"}
    document = canvas([node(1, "EmptyImage", [64, 32, 1, 0]), node(2, "PackVideo", values, [socket("images", "IMAGE", 1)])], [[1, 1, 0, 2, 0, "IMAGE"]])
    assert convert(document, INFO)["2"]["inputs"] == {"frame_rate": 24, "format": "mp4", "crf": 19, "save_metadata": True, "images": ["1", 0]}


def test_values_that_only_a_packs_script_understands_are_refused_with_node_and_field() -> None:
    document = canvas([node(4, "PackLoader", ["a", 5, "fixed", {"on": True, "lora": "x.safetensors"}])])
    with pytest.raises(Inexact) as refusal:
        convert(document, INFO)
    problem = refusal.value.problems[0]
    assert (problem.code, problem.node, problem.field) == ("widget_values_unexplained", "4", "widgets_values[3]")


@pytest.mark.parametrize("rest", [[], ["fixed"], ["fixed", None], ["fixed", "image"], ["fixed", {"type": "button", "name": "x"}]])
def test_remains_of_buttons_and_controls_are_no_obstacle(rest: list[Any]) -> None:
    assert convert(canvas([node(4, "PackLoader", ["b", 5, *rest])]), INFO)["4"]["inputs"] == {"ckpt": "b", "seed": 5}


def test_an_unknown_node_passes_links_on_when_bypassed_and_is_refused_when_not() -> None:
    graph = convert(chain("NoSuchNode", mode=4), INFO)
    assert graph["3"]["inputs"]["images"] == ["1", 0]
    with pytest.raises(Inexact) as refusal:
        convert(chain("NoSuchNode"), INFO)
    assert (refusal.value.code, refusal.value.details["node"], refusal.value.details["class_type"]) == ("unknown_node_class", "2", "NoSuchNode")
    assert "import_object_info" in refusal.value.suggestion


def test_the_order_of_a_library_kept_by_a_database_does_not_matter_when_it_says_its_order() -> None:
    entry = node_class({"b": ["INT", {}], "a": ["INT", {}]})
    entry["input_order"] = {"required": ["b", "a"]}
    entry["input"]["required"] = dict(sorted(entry["input"]["required"].items()))
    assert convert(canvas([node(1, "X", [1, 2])]), {"X": entry})["1"]["inputs"] == {"b": 1, "a": 2}


def test_links_may_be_objects_and_ids_text() -> None:
    document = chain("ImageInvert")
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    document["links"] = [dict(zip(names, [link[0], str(link[1]), *link[2:]], strict=True)) for link in document["links"]]
    assert convert(document, INFO)["3"]["inputs"]["images"] == ["2", 0]


def test_pack_and_version_of_a_node_are_kept_beside_its_title() -> None:
    document = canvas([node(1, "EmptyImage", [64, 32, 1, 0], properties={"cnr_id": "comfy-core", "ver": "0.8.0", "aux_id": "a/b"}, title=" Blank ")])
    assert convert(document, INFO)["1"]["_meta"] == {"title": "Blank", "cnr_id": "comfy-core", "aux_id": "a/b", "ver": "0.8.0"}
