"""Which outputs a prompt has, under which names, and of which type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.agent import mediatypes, outputs, prefixes


def file(name, subfolder="", kind="output"):
    return {"filename": name, "subfolder": subfolder, "type": kind}


def names(reported, **kwargs):
    return [(f.node, f.name) for f in outputs.collect(reported, **kwargs).outputs]


def test_every_kind_of_reported_file_is_collected():
    reported = {
        "10": {"images": [file("a.png"), file("b.png")], "animated": [True]},
        "2": {"audio": [file("c.flac")]},
        "3": {"latents": [file("d.latent")]},
        "4": {"gifs": [{**file("e.mp4"), "format": "video/h264-mp4", "frame_rate": 8}]},
        "5": {"something_new": [[file("f.xyz")]]},
        "6": {"text": ["40"]},
        "7": {"result": [{"camera": 1}, 3.5]},
    }
    found = outputs.collect(reported)
    assert [f.name for f in found.outputs] == ["c.flac", "d.latent", "e.mp4", "f.xyz", "a.png", "b.png", "text_6_00001.txt"]
    assert found.outputs[-1].data == b"40"
    assert found.ignored == ("7.result",)


def test_previews_are_outputs_only_when_nothing_was_saved():
    previews = {"5": {"images": [file("p.png", kind="temp")]}}
    assert names(previews) == [("5", "p.png")]
    found = outputs.collect({**previews, "6": {"images": [file("s.png")]}})
    assert [f.name for f in found.outputs] == ["s.png"]
    assert found.skipped_previews == 1


def test_a_preview_stays_when_the_only_other_result_is_text():
    assert names({"5": {"images": [file("p.png", kind="temp")]}, "6": {"text": ["x"]}}) == [("5", "p.png"), ("6", "text_6_00001.txt")]


def test_images_that_came_over_the_socket_are_outputs():
    assert names({}, frames=[("4", b"\x89PNG")]) == [("4", "frame_4_00001.png")]


def test_the_customers_own_name_is_restored():
    unique = prefixes.folder("3d9a-b", 2)
    graph = prefixes.make_unique({"3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "scale/out"}}}, unique)
    assert graph["3"]["inputs"]["filename_prefix"] == f"{unique}/scale/out"
    assert names({"3": {"images": [file("out_00001_.png", f"{unique}/scale")]}}, unique=unique) == [("3", "out_00001_.png")]


def test_equal_names_of_two_nodes_are_told_apart_by_the_customers_folder():
    reported = {"1": {"images": [file("x.png", "u/a")]}, "2": {"images": [file("x.png", "u/b")]}, "3": {"images": [file("x.png", "u/b/c")]}}
    assert [n for _, n in names(reported, unique="u")] == ["x.png", "b-x.png", "b-c-x.png"]


def test_the_same_file_reported_twice_is_stored_once():
    assert names({"1": {"images": [file("x.png")], "ui_images": [file("x.png")]}}) == [("1", "x.png")]


def test_history_wins_over_events_and_events_fill_what_history_lacks():
    assert outputs.merge({"1": {"text": ["new"]}}, {"1": {"text": ["old"]}, "2": {"text": ["cached"]}}) == {
        "1": {"text": ["new"]},
        "2": {"text": ["cached"]},
    }


def test_filename_prefix_is_unique_per_job_and_attempt_in_every_node_that_has_one():
    graph = {
        "1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a"}},
        "2": {"class_type": "SaveVideo", "inputs": {"filename_prefix": "%date%/b"}},
        "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": ["9", 0]}},
        "4": {"class_type": "Other", "inputs": {}},
        "5": {"class_type": "SaveImage", "inputs": {"filename_prefix": "../../evil"}},
    }
    once, again = (prefixes.make_unique(graph, prefixes.folder("job", n)) for n in (1, 2))
    assert once["1"]["inputs"]["filename_prefix"] != again["1"]["inputs"]["filename_prefix"]
    assert once["2"]["inputs"]["filename_prefix"].endswith("/%date%/b")
    assert once["3"] == graph["3"] and once["4"] == graph["4"]
    assert once["5"] == graph["5"], "what ComfyUI would refuse must stay refused"
    assert graph["1"]["inputs"]["filename_prefix"] == "a", "the assignment is not changed"


@given(
    st.dictionaries(
        st.text(max_size=4),
        st.dictionaries(
            st.text(max_size=4),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.fixed_dictionaries({"filename": st.text(max_size=8)})),
                lambda inner: st.lists(inner, max_size=3),
                max_leaves=8,
            ),
            max_size=3,
        ),
        max_size=4,
    )
)
def test_collecting_never_raises_and_names_are_distinct(reported):
    found = outputs.collect(reported, unique="u").outputs
    assert len({f.name for f in found}) == len(found)


@pytest.mark.parametrize(
    ("data", "media_type", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n....", "image/png", "image"),
        (b"\xff\xd8\xff\xe0", "image/jpeg", "image"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp", "image"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav", "audio"),
        (b"fLaC\x00", "audio/flac", "audio"),
        (b"OggS" + b"\0" * 24 + b"OpusHead", "audio/ogg", "audio"),
        (b"\x00\x00\x00\x20ftypisom", "video/mp4", "video"),
        (b"\x00\x00\x00\x20ftypavif", "image/avif", "image"),
        (b"\x1a\x45\xdf\xa3\x01\x42\x82\x84webm", "video/webm", "video"),
        (b"glTF\x02\0\0\0", "model/gltf-binary", "file"),
        (b"<svg xmlns='x'/>", "image/svg+xml", "image"),
        (b'{"a": 1}', "application/json", "text"),
        (b'{"a": 1', "text/plain", "text"),
        ("grüße".encode(), "text/plain", "text"),
        (b"\x00\x01\x02\x03", "application/octet-stream", "file"),
        (b"", "application/octet-stream", "file"),
        ((2).to_bytes(8, "little") + b"{}", "application/x-safetensors", "file"),
    ],
)
def test_media_types_are_told_by_content(data, media_type, kind):
    assert mediatypes.sniff(data) == media_type
    assert mediatypes.kind(media_type) == kind


@given(st.binary(max_size=64))
def test_sniffing_never_raises(data):
    assert "/" in mediatypes.sniff(data)


def test_a_long_text_cut_inside_a_character_is_text():
    assert mediatypes.sniff("ü".encode() * 5000 + b"x") == "text/plain"
    assert mediatypes.sniff(b"a" + "ü".encode() * 5000) == "text/plain"
