"""Model files of a graph: every place that names one, what is known of it, and LoRAs that do not fit their base."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import safetensors_samples as made
from dependency_samples import canvas, files, node
from django.core.management import call_command
from hypothesis import given, settings
from hypothesis import strategies as st

from builds import importing as workflow_importing
from builds import libraries, versions
from builds.dependencies import headers, importing, lists, model_facts, needs, of_document, of_graph, of_version
from builds.dependencies.model_needs import in_inputs
from builds.findings import errors_in
from builds.models import KnownModel
from controlplane.kernel.errors import Invalid, WorkflowError

NAMES = ["ink.safetensors", "mine.safetensors", "twice.safetensors", "who.safetensors"]
INFO: dict[str, Any] = {
    "CheckpointLoaderSimple": {
        "input": {"required": {"ckpt_name": [["base.safetensors", "who.safetensors"]]}},
        "output": ["MODEL", "CLIP", "VAE"],
        "python_module": "nodes",
    },
    "LoraLoaderModelOnly": {
        "input": {"required": {"model": ["MODEL"], "lora_name": [NAMES], "strength_model": ["FLOAT"]}},
        "output": ["MODEL"],
        "python_module": "nodes",
    },
    "OddLoader": {"input": {"required": {"thing": [["a.safetensors", "plain word"]], "colour": [["red"]]}}, "output": ["MODEL"], "python_module": "nodes"},
    "LoadImage": {"input": {"required": {"image": [["x.bin"], {"image_upload": True}]}}, "output": ["IMAGE"], "python_module": "nodes"},
    "SaveModel": {"input": {"required": {"model": ["MODEL"]}}, "output": [], "output_node": True, "python_module": "nodes"},
}


def named(kind: str, **inputs: Any) -> list[tuple[str, str]]:
    """(file, folder) of one node's inputs."""
    return [(one.name, one.directory) for one in in_inputs("1", kind, inputs, None)]


@pytest.mark.parametrize(
    ("kind", "inputs", "found"),
    [
        ("CheckpointLoaderSimple", {"ckpt_name": "a.safetensors"}, [("a.safetensors", "checkpoints")]),
        ("DualCLIPLoader", {"clip_name1": "l.pt", "clip_name2": "t5.pt", "type": "flux"}, [("l.pt", "text_encoders"), ("t5.pt", "text_encoders")]),
        ("CLIPVisionLoader", {"clip_name": "v.safetensors"}, [("v.safetensors", "clip_vision")]),
        ("UpscaleModelLoader", {"model_name": "4x.pth"}, [("4x.pth", "upscale_models")]),
        ("UNETLoader", {"unet_name": "SDXL\\sub\\u.safetensors", "weight_dtype": "default"}, [("SDXL/sub/u.safetensors", "diffusion_models")]),
        ("VAELoader", {"vae_name": "taesd"}, [("taesd_encoder", "vae_approx"), ("taesd_decoder", "vae_approx")]),
        ("VAELoader", {"vae_name": "pixel_space"}, []),
        ("LoraLoader", {"lora_name": "None"}, []),
        ("LoraLoader", {"lora_name": ["4", 0]}, []),
        ("Power Lora Loader (rgthree)", {"lora_1": {"on": True, "lora": "x.pt"}, "lora_2": {"on": False, "lora": "y.pt"}}, [("x.pt", "loras")]),
        ("Stack", {"loras": {"__value__": [["deep", ["a.pt", 1.0]], {"file": "b.gguf"}]}}, [("a.pt", "loras"), ("b.gguf", "loras")]),
        ("CLIPTextEncode", {"text": "a (embedding:bad-hands:1.2), embedding:sub/eps.pt cat"}, [("bad-hands", "embeddings"), ("sub/eps.pt", "embeddings")]),
        ("Wildcards", {"text": "hi <lora:inks:0.8> <lora:deep/x.safetensors>"}, [("inks", "loras"), ("deep/x.safetensors", "loras")]),
        ("WanVideoModelLoader", {"model": "w.safetensors"}, [("w.safetensors", "diffusion_models")]),
        ("SaveImage", {"filename_prefix": "out.safetensors"}, []),
        ("Text", {"text": "a story that ends in .safetensors\nand goes on"}, []),
    ],
)  # fmt: skip
def test_every_place_that_names_a_model_is_read(kind: str, inputs: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert named(kind, **inputs) == found


def test_an_input_that_lists_files_is_a_loader_whatever_its_name_and_uploads_are_none() -> None:
    graph = {
        "1": {"class_type": "OddLoader", "inputs": {"thing": "b.safetensors", "colour": "red"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "x.bin"}},
    }
    assert [one.name for one in needs.of(graph=graph, info=INFO).models] == ["b.safetensors"]
    graph["1"]["inputs"]["thing"] = "plain word"
    assert needs.of(graph=graph, info=INFO).models == []


def test_what_the_canvas_declares_is_laid_over_what_the_loader_names() -> None:
    entry = {"name": "a.safetensors", "url": "https://x.example.com/a.safetensors", "directory": "checkpoints", "hash": "A" * 64, "hash_type": "SHA256"}
    drawn = canvas(
        node(1, "CheckpointLoaderSimple", values=["a.safetensors"], models=[entry, {"name": "b.safetensors", "url": "javascript:x", "directory": "../etc"}, 3])
    )
    found = needs.of(graph=None, ui_graph=drawn, info=INFO).models
    assert [(one.name, one.input, one.directory, one.url, one.sha256) for one in found] == [
        ("a.safetensors", "ckpt_name", "checkpoints", "https://x.example.com/a.safetensors", "a" * 64),
        ("b.safetensors", "properties.models", "", "", ""),
    ]


def test_what_only_a_muted_loader_names_is_told_apart(known: None) -> None:
    entry = {"name": "ink.safetensors", "url": "https://x.example.com/a", "directory": "loras"}
    nodes = [
        node(1, "CheckpointLoaderSimple", values=["base.safetensors"]),
        node(2, "LoraLoaderModelOnly", mode=2, values=["who.safetensors", 1.0], models=[entry]),
    ]
    report = of_graph(graph=None, ui_graph=canvas(*nodes))
    assert [(one.name, one.asleep) for one in report.models] == [("base.safetensors", False), ("who.safetensors", True), ("ink.safetensors", True)]
    assert report.counts["models"] == 1
    assert not {one["field"] for one in report.findings} & {"lora_name", "properties.models"}


def test_an_embedding_is_known_by_its_file_once_the_file_is_known(known: None, now: datetime) -> None:
    graph = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "embedding:neg/eps:0.8"}}}
    assert of_graph(graph=graph).models[0].name == "neg/eps"
    model_facts.remember(filename="eps.pt", directory="embeddings", url="https://x.example.com/eps.pt", actor="ada", now=now)
    assert [(one.name, one.status, one.directory) for one in of_graph(graph=graph).models] == [("neg/eps.pt", "known", "embeddings")]


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=40) | st.sampled_from(["x.safetensors", "embedding:y", "<lora:z>"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@given(inputs=st.dictionaries(st.text(max_size=12), json_values, max_size=5))
def test_no_value_breaks_the_reading(inputs: dict[str, Any]) -> None:
    for one in in_inputs("1", "Anything", inputs, None):
        assert one.name and "\\" not in one.name


@pytest.fixture
def known(now: datetime, db: None) -> None:
    libraries.store(name="ComfyUI 9", document=INFO, comfyui_version="9", current=True, now=now)
    importing.keep(lists.read(files()), source="test", actor="test", now=now)


def loaders(base: str, *loras: str) -> dict[str, Any]:
    """A base model with a chain of LoRAs."""
    graph: dict[str, Any] = {"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": base}}}
    before = ["1", 0]
    for at, name in enumerate(loras, 2):
        graph[str(at)] = {"class_type": "LoraLoaderModelOnly", "inputs": {"model": before, "lora_name": name, "strength_model": 1.0}}
        before = [str(at), 0]
    graph["99"] = {"class_type": "SaveModel", "inputs": {"model": before}}
    return graph


def test_a_listed_model_has_its_address_and_what_is_unknown_is_said(known: None) -> None:
    use = of_graph(graph=loaders("SDXL/base.safetensors")).models[0]
    assert (use.status, use.url, use.family, use.size_about) == ("known", "https://models.example.com/base.safetensors", "sdxl", "6.9GB")
    assert use.size_bytes is None
    assert set(use.unknown) == {"size", "sha256", "licence"} and use.fix


def test_two_addresses_for_one_name_are_shown_until_one_is_chosen(known: None, now: datetime) -> None:
    use = of_graph(graph=loaders("base.safetensors", "twice.safetensors")).models[1]
    assert (use.status, use.url, len(use.candidates)) == ("ambiguous", "", 2)


def test_a_lora_for_another_base_is_an_error_that_keeps_the_version_from_running(known: None, now: datetime) -> None:
    kept = workflow_importing.import_graph(
        document=loaders("base.safetensors", "twice.safetensors", "ink.safetensors"), slug="mixed", author="ada", draft=True, now=now
    )
    wrong = [one for one in errors_in(kept.findings) if one["code"] == "lora_base_mismatch"]
    assert [(one["node"], one["field"]) for one in wrong] == [("3", "lora_name")]
    assert "Stable Diffusion 1.x" in wrong[0]["message"] and "SDXL" in wrong[0]["message"]
    assert not kept.version.runnable
    with pytest.raises(Invalid, match="lora_base_mismatch"):
        workflow_importing.import_graph(document=loaders("base.safetensors", "ink.safetensors"), slug="strict", author="ada", now=now)


def test_an_unknown_base_or_lora_is_no_error(known: None) -> None:
    for graph in (loaders("who.safetensors", "ink.safetensors"), loaders("base.safetensors", "who.safetensors")):
        assert "lora_base_mismatch" not in {one["code"] for one in of_graph(graph=graph).findings}


def test_what_a_header_says_goes_before_what_a_list_says(known: None, now: datetime, tmp_path: Path) -> None:
    path = made.write(tmp_path / "ink.safetensors", made.LORA_SDXL)
    model_facts.remember(filename="ink.safetensors", directory="loras", header=headers.from_file(path), actor="ada", now=now)
    report = of_graph(graph=loaders("base.safetensors", "ink.safetensors"))
    assert report.models[1].family == "sdxl"
    assert "lora_base_mismatch" not in {one["code"] for one in report.findings}


def test_a_version_is_judged_again_when_a_header_is_read(known: None, now: datetime, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = workflow_importing.import_graph(document=loaders("base.safetensors", "mine.safetensors"), slug="mine", author="ada", draft=True, now=now).version
    assert version.runnable
    path = made.write(tmp_path / "mine.safetensors", made.LORA_FLUX, metadata={"modelspec.license": "CC-BY"})
    call_command("inspect_model", str(path), "--keep", "--hash", "--json")
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["family"], said["directory"], said["licence"], len(said["sha256"])) == ("lora", "flux", "loras", "CC-BY", 64)
    version.refresh_from_db()
    assert not version.runnable
    report = of_version(version)
    assert [one["code"] for one in report.findings if one["level"] == "error"] == ["lora_base_mismatch"]
    assert versions.recheck(version=version, library=libraries.current()).runnable is False


@pytest.mark.parametrize(
    ("name", "reason"),
    [("../../etc/x.safetensors", "climbs"), ("/etc/x.ckpt", "absolute"), ("C:\\x.pt", "absolute"), ("CON.safetensors", "device"), ("a/lpt1.pt", "device")],
)
def test_a_name_that_must_never_become_a_path_is_an_error(known: None, name: str, reason: str) -> None:
    found = {one["code"]: one for one in of_graph(graph=loaders(name)).findings}
    assert found["model_path_unsafe"]["level"] == "error" and reason in found["model_path_unsafe"]["message"]


@pytest.mark.parametrize(
    ("tensors", "kind", "family"),
    [
        (made.SDXL, "checkpoint", "sdxl"),
        (made.SD15, "checkpoint", "sd15"),
        (made.FLUX, "diffusion_model", "flux"),
        ({**made.FLUX, "distilled_guidance_layer.norms.0.scale": (1,)}, "diffusion_model", "chroma"),
        ({"model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight": (3, 3)}, "diffusion_model", "sd3"),
        ({"head.modulation": (1, 2, 8)}, "diffusion_model", "wan"),
        ({"down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (320, 1024)}, "diffusion_model", "sd2"),
        (made.LORA_SDXL, "lora", "sdxl"),
        (made.LORA_SD15, "lora", "sd15"),
        (made.LORA_FLUX, "lora", "flux"),
        (made.LORA_WAN, "lora", "wan"),
        (made.LORA_QWEN, "lora", "qwen_image"),
        ({"clip_g": (2, 1280), "clip_l": (2, 768)}, "embedding", "sdxl"),
        ({"emb_params": (4, 768)}, "embedding", "sd15"),
        ({"decoder.conv_in.weight": (512, 16, 3, 3)}, "vae", ""),
        ({"control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768)}, "controlnet", "sd15"),
        ({"odd.weight": (3, 3)}, "", ""),
    ],
)
def test_a_header_tells_kind_and_family(tmp_path: Path, tensors: dict[str, tuple[int, ...]], kind: str, family: str) -> None:
    header = headers.from_file(made.write(tmp_path / "x.safetensors", tensors, dtype="BF16"))
    assert (header.kind, header.family, header.precision) == (kind, family, "bf16")


def test_a_trainers_word_counts_where_the_tensors_tell_nothing(tmp_path: Path) -> None:
    path = made.write(tmp_path / "x.safetensors", {"lora_unet_odd.lora_down.weight": (4, 4)}, metadata={"ss_base_model_version": "sdxl_base_v1-0"})
    assert headers.from_file(path).family == "sdxl"


def test_the_real_small_model_of_the_shared_data_reads_as_it_is() -> None:
    path = Path(__file__).resolve().parents[3] / "shared" / "data" / "comfyui" / "tiny-models" / "tiny_compact_2x.safetensors"
    if not path.exists():
        pytest.skip("the shared data is not here")
    header = headers.from_file(path)
    assert (header.tensors, header.precision, header.size_bytes) == (11, "fp32", path.stat().st_size)


def write_raw(path: Path, said: bytes, *, length: int | None = None, room: int = 0) -> Path:
    path.write_bytes((len(said) if length is None else length).to_bytes(8, "little") + said + b"\0" * room)
    return path


@pytest.mark.parametrize(
    ("said", "length", "room"),
    [
        (b"", None, 0),
        (b"{}", 1 << 62, 0),
        (b"{}", 3, 0),
        (b"[]", None, 0),
        (b"{", None, 0),
        (b'{"__metadata__": {"a": 3}}', None, 0),
        (b'{"__metadata__": 3}', None, 0),
        (b'{"a": 3}', None, 0),
        (b'{"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}', None, 3),
        (b'{"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}', None, 5),
        (b'{"a": {"dtype": "F16", "shape": [2], "data_offsets": [4, 8]}}', None, 8),
        (b'{"a": {"dtype": "F16", "shape": [-2], "data_offsets": [0, 4]}}', None, 4),
        (b'{"a": {"dtype": "F16", "shape": [true], "data_offsets": [0, 2]}}', None, 2),
        (b'{"a": {"dtype": "EVIL", "shape": [2], "data_offsets": [0, 4]}}', None, 4),
        (b'{"a": {"dtype": "F16", "shape": [9007199254740991, 9007199254740991], "data_offsets": [0, 4]}}', None, 4),
        (b'{"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}, "b": {"dtype": "F16", "shape": [2], "data_offsets": [2, 6]}}', None, 6),
        (b'{"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}, "a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}', None, 4),
        (b'{"a":' + b"[" * 200_000 + b"}", None, 0),
    ],
)
def test_a_hostile_header_is_refused(tmp_path: Path, said: bytes, length: int | None, room: int) -> None:
    with pytest.raises(Invalid, match="not_safetensors"):
        headers.from_file(write_raw(tmp_path / "x.safetensors", said, length=length, room=room))


def test_a_header_said_to_be_huge_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as stream:
        stream.write((1 << 33).to_bytes(8, "little"))
        stream.truncate(1 << 34)
    with pytest.raises(Invalid, match="longer than 25,000,000"):
        headers.from_file(path)


@given(said=st.binary(max_size=200), length=st.integers(0, 300))
@settings(max_examples=60)
def test_no_bytes_break_the_header_reader(said: bytes, length: int) -> None:
    try:
        headers.read(length.to_bytes(8, "little"), said[:length], size_bytes=8 + len(said))
    except Invalid as refused:
        assert refused.code == "not_safetensors"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def run(name: str, *args: str) -> Any:
        code = 0
        try:
            call_command(name, *args, "--json")
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.mark.django_db
def test_the_commands_answer_in_json_and_refuse_with_exit_2(command: Callable[..., Any], known: None, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(canvas(node(1, "AlphaOne"), node(2, "Shared"), node(3, "Note"))))
    code, said = command("dependencies", str(path))
    assert code == 0
    assert {one["class"]: one["status"] for one in said["classes"]} == {"AlphaOne": "resolved", "Shared": "ambiguous", "Note": "ui_only"}
    assert command("pin", "Shared", "beta/comfyui-beta", "--reason", "tested")[0] == 0
    assert {one["class"]: one["status"] for one in command("dependencies", str(path))[1]["classes"]}["Shared"] == "pinned"
    assert [one["reason"] for one in command("pin")[1]] == ["tested"]
    assert command("pin", "Shared", "--remove") == (0, [])
    for args in (("pin", "Shared", "beta/comfyui-beta"), ("pin", "Shared"), ("pin", "Shared", "--remove"), ("pin", "X", "not a pack!", "--reason", "x")):
        code, said = command(*args)
        assert code == 2 and said["error"]["code"]
    for text in ("", "[]", '{"nodes": 3}', "{}", '{"nodes": [{"id": 1}], "links": []}', '{"1": {"class_type": "A", "inputs": {"x": "{{hi}}"}}}'):
        path.write_text(text)
        code, said = command("dependencies", str(path))
        assert code == 2 and said["error"]["code"] and said["error"]["suggestion"]
    assert command("dependencies", str(tmp_path / "none.json"))[0] == 2
    assert command("inspect_model", str(path))[1]["error"]["code"] == "not_safetensors"


@pytest.mark.django_db
def test_the_plain_report_obeys_no_terminal_codes(known: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps({"1": {"class_type": "Evil\x1b[2J", "inputs": {"ckpt_name": "\x1b]0;x\x07.safetensors"}}}))
    call_command("dependencies", str(path))
    said = capsys.readouterr().out
    assert "\x1b" not in said and "Evil?[2J" in said


def test_a_graph_of_many_nodes_with_hostile_titles_is_reported_in_time(known: None) -> None:
    nodes = [node(at, f"<script>{at}", title="<b>") for at in range(1_500)]
    try:
        report = of_document(document=canvas(*nodes))
    except WorkflowError as refused:
        assert refused.suggestion
    else:
        assert len(report.classes) == 1_500
        assert len(report.findings) <= 200 + 1_500


def test_known_models_are_kept_with_who_said_so(known: None, now: datetime) -> None:
    model_facts.remember(filename="ink.safetensors", directory="loras", url="https://models.example.com/ink.safetensors", licence="mit", actor="ada", now=now)
    row = KnownModel.objects.get(filename="ink.safetensors")
    assert (row.licence, row.family, row.source) == ("mit", "sd15", "ada")


@pytest.mark.parametrize(
    "drawn",
    [
        canvas(*(node(at, f"Class {at} of many") for at in range(10_000))),
        canvas(*(node(at, f"C{at}", cnr_id=f"pack-{at}", aux_id=f"owner/pack-{at}", ver="1.0.0") for at in range(5_000))),
        {str(at): {"class_type": "LoraLoader", "inputs": {"lora_name": f"l{at}.safetensors", "model": [str(at - 1), 0]}} for at in range(2_000)},
        {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "(embedding:a " * 30_000}}},
    ],
    ids=["ten thousand classes", "five thousand packs", "a chain of two thousand LoRAs", "thirty thousand embeddings"],
)
def test_a_graph_as_large_as_is_accepted_is_reported_in_seconds(known: None, drawn: dict[str, Any]) -> None:
    started = time.process_time()
    report = of_document(document=drawn)
    assert time.process_time() - started < 10
    assert report.classes and len(report.findings) <= 400
