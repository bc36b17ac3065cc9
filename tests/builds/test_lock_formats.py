"""The field's lock formats: what each can hold survives writing and reading; what it cannot is said; what is hostile is refused."""

from __future__ import annotations

import io
import json
import string
import zipfile
from typing import Any

import lock_samples
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from builds.locking import checking, document, formats
from builds.locking.formats import comfy_pack
from controlplane.kernel.errors import WorkflowError

hexes = st.text("0123456789abcdef", min_size=40, max_size=40)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
words = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=12).map(lambda word: f"pk{word}")
versions = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)).map(lambda three: ".".join(map(str, three)))


@st.composite
def locks(draw: st.DrawFn) -> document.Lock:
    packs, packages, models = [], [], []
    for name in draw(st.lists(words, max_size=4, unique=True)):
        if draw(st.booleans()):
            packs.append({"key": f"https://github.com/people/{name}", "repository": f"https://github.com/people/{name}", "commit": draw(hexes), "folder": name})
        else:
            packs.append({"key": f"cnr:{name}", "registry_id": name, "version": draw(versions), "sha256": draw(digests), "folder": name})
    for name in draw(st.lists(words, max_size=5, unique=True)):
        packages.append({"name": name, "version": draw(versions), "hashes": [f"sha256:{draw(digests)}"]})
    for name in draw(st.lists(words, max_size=4, unique=True)):
        url = [f"https://models.example.org/{name}"] if draw(st.booleans()) else []
        model = {"directory": draw(st.sampled_from(["checkpoints", "loras", "vae"])), "filename": f"{name}.safetensors", "urls": url, "licence": ""}
        models.append({**model, "sha256": draw(digests), "size_bytes": draw(st.integers(1, 10**12))})
    lock = lock_samples.example(
        comfyui={"repository": "https://github.com/Comfy-Org/ComfyUI", "commit": draw(hexes), "version": ""},
        packs=packs, python_packages=packages, models=models,
    )  # fmt: skip
    return checking.check(lock)


def _packs(lock: document.Lock, *, git_only: bool = False) -> set[tuple[str, str]]:
    return {(one["repository"] or one["registry_id"], one["commit"] or one["version"]) for one in lock["packs"] if one["commit"] or not git_only}


def _read_packs(parts: formats.Parts) -> set[tuple[str, str]]:
    return {(one["repository"] or one["registry_id"], one["version"]) for one in parts.packs}


def _models(listed: list[dict[str, Any]], *fields: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(str(one[field]) for field in fields) for one in listed)


@given(locks())
def test_a_manager_snapshot_keeps_commits_registry_versions_and_the_freeze(lock: document.Lock) -> None:
    parts = formats.read(formats.write("manager", lock).data)
    assert parts.format == "manager" and parts.comfyui == lock["comfyui"]["commit"]
    assert _read_packs(parts) == _packs(lock)
    assert sorted(parts.pins) == sorted(f"{one['name']}=={one['version']}" for one in lock["python_packages"])


@given(locks())
def test_a_comfy_pack_snapshot_keeps_models_by_hash_too(lock: document.Lock) -> None:
    parts = formats.read(formats.write("comfy-pack", lock).data)
    assert parts.format == "comfy-pack" and parts.python == "3.11"
    assert _read_packs(parts) == _packs(lock)
    assert sorted(parts.pins) == sorted(f"{one['name']}=={one['version']}" for one in lock["python_packages"])
    fields = ("directory", "filename", "sha256", "size_bytes", "urls")
    assert _models(parts.models, *fields) == _models(lock["models"], *fields)


@given(locks())
def test_the_first_generation_of_comfy_pack_keeps_git_packs_and_models_and_says_what_it_lost(lock: document.Lock) -> None:
    written = formats.write("comfy-pack-1", lock)
    parts = formats.read(written.data)
    assert _read_packs(parts) == _packs(lock, git_only=True)
    assert _models(parts.models, "directory", "filename", "sha256") == _models(lock["models"], "directory", "filename", "sha256")
    said = " ".join(one["message"] for one in written.findings)
    assert ("packs that come from the registry" in said) == any(not one["commit"] for one in lock["packs"])
    assert ("Python package(s)" in said) == bool(lock["python_packages"])


@given(locks())
def test_a_comfy_lock_keeps_packs_and_models(lock: document.Lock) -> None:
    parts = formats.read(formats.write("comfy-lock", lock).data)
    assert parts.format == "comfy-lock" and _read_packs(parts) == _packs(lock)
    assert _models(parts.models, "directory", "filename", "sha256", "urls") == _models(lock["models"], "directory", "filename", "sha256", "urls")


@given(locks())
def test_a_comfy_build_keeps_packs_pins_and_models_that_have_an_address(lock: document.Lock) -> None:
    written = formats.write("comfy-build", lock)
    parts = formats.read(written.data)
    assert parts.format == "comfy-build" and parts.comfyui == lock["comfyui"]["commit"] and parts.python == "3.11"
    assert _read_packs(parts) == _packs(lock)
    assert sorted(parts.pins) == sorted(f"{one['name']}=={one['version']}" for one in lock["python_packages"])
    with_address = [one for one in lock["models"] if one["urls"]]
    assert _models(parts.models, "directory", "filename", "sha256", "urls") == _models(with_address, "directory", "filename", "sha256", "urls")
    for one in lock["models"]:
        if not one["urls"]:
            assert any(one["filename"] in said["message"] for said in written.findings)


@given(locks())
def test_our_own_format_keeps_everything(lock: document.Lock) -> None:
    parts = formats.read(formats.write("comfyplane", lock).data)
    assert parts.lock == lock and document.sha256(parts.lock) == document.sha256(lock)


@pytest.mark.parametrize("name", sorted(formats.FORMATS))
def test_the_same_lock_is_the_same_file(name: str) -> None:
    lock = lock_samples.example()
    assert formats.write(name, lock).data == formats.write(name, json.loads(json.dumps(lock))).data


@pytest.mark.parametrize("name", [name for name in sorted(formats.FORMATS) if name != "comfyplane"])
def test_what_a_format_cannot_hold_is_said(name: str) -> None:
    messages = " ".join(one["message"] for one in formats.write(name, lock_samples.example()).findings)
    assert "the digest of the base image" in messages and "node classes" in messages


def test_packs_that_are_switched_off_are_not_taken_over() -> None:
    snapshot = {
        "comfyui": "a" * 40,
        "git_custom_nodes": {
            "https://github.com/People/On.git": {"hash": "b" * 40, "disabled": False},
            "https://github.com/People/Off": {"hash": "c" * 40, "disabled": True},
        },
        "cnr_custom_nodes": {"tones": "1.2.0", "dull": {"version": "1.0.0", "disabled": True}, "loose": "nightly"},
        "file_custom_nodes": [{"filename": "mine.py", "disabled": False}, {"filename": "old.py", "disabled": True}],
        "pips": {"numpy==2.3.3": "", "pillow": "11.3.0", "-e git+https://x/y": "", "lib @ file:///home/me/lib": ""},
    }
    parts = formats.read(json.dumps(snapshot).encode())
    assert _read_packs(parts) == {("https://github.com/People/On", "b" * 40), ("tones", "1.2.0"), ("loose", "")}
    assert parts.pins == ["numpy==2.3.3", "pillow==11.3.0"]
    off = next(one["message"] for one in parts.findings if one["code"] == "packs_disabled")
    assert "Off" in off and "dull" in off and "old.py" in off
    assert [one["code"] for one in parts.findings].count("pin_not_locked") == 2
    assert any("mine.py" in one["message"] for one in parts.findings if one["code"] == "file_node_not_locked")


def test_both_generations_of_comfy_pack_say_the_same() -> None:
    model = {
        "filename": "models/checkpoints/x.safetensors", "size": 5, "atime": 1.0, "ctime": 1.0, "disabled": False, "sha256": "d" * 64,
        "source": {"source": "huggingface", "repo": "a/b", "commit": "c", "path": "x", "download_url": "https://hub.example.org/x", "url": "https://hub.example.org/page"},
    }  # fmt: skip
    off = model | {"filename": "models/loras/off.safetensors", "disabled": True}
    first = {
        "python": "3.12.4", "comfyui": "a" * 40, "models": [model, off],
        "custom_nodes": [
            {"url": "https://github.com/p/q.git", "commit_hash": "b" * 40, "disabled": False},
            {"url": "https://github.com/p/off", "commit_hash": "c" * 40, "disabled": True},
        ],
    }  # fmt: skip
    later = {
        "python": "3.12.4", "comfyui": "a" * 40, "models": [model, off], "pips": {"numpy==2.3.3": ""}, "file_custom_nodes": [],
        "git_custom_nodes": {
            "https://github.com/p/q.git": {"hash": "b" * 40, "disabled": False},
            "https://github.com/p/off": {"hash": "c" * 40, "disabled": True},
        },
    }  # fmt: skip
    one, two = (formats.read(json.dumps(said).encode()) for said in (first, later))
    assert (one.comfyui, one.python, one.packs, one.models) == (two.comfyui, two.python, two.packs, two.models)
    assert one.models[0]["urls"] == ["https://hub.example.org/x"] and len(one.models) == 1
    assert (one.pins, two.pins) == ([], ["numpy==2.3.3"])


def test_an_archive_of_comfy_pack_is_written_and_read_with_its_freeze() -> None:
    lock = lock_samples.example()
    written = comfy_pack.archive(lock, graph={"1": {"class_type": "SaveImage", "inputs": {}}}, ui_graph={"nodes": []})
    assert written.data == comfy_pack.archive(lock, graph={"1": {"class_type": "SaveImage", "inputs": {}}}, ui_graph={"nodes": []}).data
    with zipfile.ZipFile(io.BytesIO(written.data)) as packed:
        assert sorted(packed.namelist()) == ["requirements.txt", "snapshot.json", "workflow.json", "workflow_api.json"]
        assert "--hash=sha256:" in packed.read("requirements.txt").decode()
        snapshot = json.loads(packed.read("snapshot.json"))
    assert "pips" in snapshot
    parts = formats.read(written.data)
    assert parts.comfyui == lock["comfyui"]["commit"] and "torch==2.8.0" in parts.pins
    del snapshot["pips"]
    again = io.BytesIO()
    with zipfile.ZipFile(again, "w") as packed:
        packed.writestr("snapshot.json", json.dumps(snapshot))
        packed.writestr("requirements.txt", "--index-url https://x/simple\ntorch==2.8.0 \\\n    --hash=sha256:00\nnumpy==2.3.3\n")
    assert formats.read(again.getvalue()).pins == ["torch==2.8.0", "numpy==2.3.3"]


def test_a_comfy_lock_names_hashes_it_cannot_use() -> None:
    text = f"""
basic:
models:
  - model: x.safetensors
    url: https://hub.example.org/x
    paths:
      - path: models/checkpoints/x.safetensors
      - path: models/checkpoints/again/x.safetensors
    hashes:
      - hash: 0123456789
        type: AutoV2
      - hash: {"d" * 64}
        type: SHA256
    type: checkpoint
  - model: y.safetensors
    url: https://hub.example.org/y
    hashes:
      - hash: 11223344
        type: CRC32
    type: loras
custom_nodes:
  comfyui: {"1" * 40}
  git_custom_nodes:
    https://github.com/p/q.git:
      disabled: false
      hash: {"2" * 40}
    https://github.com/p/off:
      disabled: true
      hash: {"3" * 40}
"""
    parts = formats.read(text.encode())
    assert parts.comfyui == "1" * 40 and _read_packs(parts) == {("https://github.com/p/q", "2" * 40)}
    assert _models(parts.models, "directory", "filename", "sha256") == [
        ("checkpoints", "again/x.safetensors", "d" * 64), ("checkpoints", "x.safetensors", "d" * 64), ("loras", "y.safetensors", ""),
    ]  # fmt: skip
    assert [one["code"] for one in parts.findings].count("hash_not_used") == 2


def _build(**definition: Any) -> bytes:
    body = {"schema": "distribution-definition/0", "baseComfyVersion": "v0.3.40", "models": [], "customNodes": [], **definition}
    said = {"schema": "comfy-build/1", "id": None, "name": "x", "description": "", "syncedRevision": None, "definition": body}
    return yaml.safe_dump(said, sort_keys=False).encode()


def test_a_comfy_build_is_read_as_its_builder_means_it() -> None:
    nodes = [
        {"name": "Tones", "id": "tones", "registryVersion": "1.2.0"},
        {"name": "Frames", "repository": "https://github.com/p/frames", "gitRef": "main"},
        {"name": "Mine", "blobId": "blob-1"},
    ]
    models = [{"type": "loras", "sourceUri": "https://hub.example.org/a/b.safetensors?x=1"}, {"type": "vae", "filename": "v.safetensors", "blobId": "blob-2"}]
    parts = formats.read(
        _build(customNodes=nodes, models=models, baseComfyVersion="0.3.40", baseImage="cuda130-py312", modelPolicy={"mode": "allowlist", "list": []})
    )
    assert parts.comfyui == "v0.3.40"
    assert _read_packs(parts) == {("tones", "1.2.0"), ("https://github.com/p/frames", "main")}
    assert _models(parts.models, "directory", "filename") == [("loras", "b.safetensors"), ("vae", "v.safetensors")]
    codes = [one["code"] for one in parts.findings]
    assert codes.count("upload_not_locked") == 2 and {"pack_by_name", "base_image_not_taken", "policy_not_taken"} <= set(codes)


@pytest.mark.parametrize(
    ("definition", "code"),
    [
        ({"baseImage": None}, "base_image_null"),
        ({"models": [{"type": "checkpoints", "filename": "CON.safetensors", "sourceUri": "https://x.example.org/c"}]}, "model_path_refused"),
        ({"models": [{"type": "checkpoints", "filename": "com1", "sourceUri": "https://x.example.org/c"}]}, "model_path_refused"),
        ({"models": [{"type": "checkpoints", "filename": "../x.safetensors", "sourceUri": "https://x.example.org/c"}]}, "model_path_refused"),
        ({"models": [{"type": "custom_nodes", "filename": "x.safetensors", "sourceUri": "https://x.example.org/c"}]}, "model_path_refused"),
        ({"models": [{"type": "configs", "filename": "x.yaml", "sourceUri": "https://x.example.org/c"}]}, "model_path_refused"),
        ({"models": [{"type": "Checkpoints", "filename": "x.safetensors", "sourceUri": "https://x.example.org/c"}]}, "model_path_refused"),
        ({"models": [{"type": "vae", "filename": "x.safetensors", "sourceUri": "https://x.example.org/c", "blobId": "b"}]}, "lock_file_malformed"),
        ({"models": [{"type": "vae", "filename": "x.safetensors", "sourceUri": "http://x.example.org/c"}]}, "lock_file_malformed"),
        ({"models": [{"type": "vae", "filename": "x.safetensors", "sourceUri": "https://x.example.org/c", "sha256": "abc"}]}, "lock_file_malformed"),
        ({"customNodes": [{"name": "x"}]}, "lock_file_malformed"),
        ({"customNodes": [{"name": "x", "repository": "https://github.com/a/b", "commit": "abc"}]}, "lock_file_malformed"),
        ({"customNodes": [{"name": "x", "repository": "file:///etc"}]}, "lock_file_malformed"),
        ({"customNodes": [{"name": "x", "repository": "https://github.com/a/b", "gitRef": "--upload-pack=x"}]}, "lock_file_malformed"),
        ({"customNodes": [{"name": str(n), "repository": "https://github.com/a/b"} for n in range(513)]}, "lock_file_malformed"),
        ({"pipDependencies": "x==1\n" * 20_000}, "lock_file_malformed"),
        ({"pipDependencies": ["numpy"]}, "lock_file_malformed"),
        ({"schema": "distribution-definition/9"}, "lock_file_malformed"),
        ({"models": "none"}, "lock_file_malformed"),
    ],
)  # fmt: skip
def test_a_comfy_build_its_builder_would_refuse_is_refused(definition: dict[str, Any], code: str) -> None:
    with pytest.raises(WorkflowError) as refused:
        formats.read(_build(**definition))
    assert refused.value.code == code


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\ncustom_nodes: {comfyui: *c}\n"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (BOMB, "yaml_refused"),
        (b"schema: comfy-build/1\ndefinition: {models: " + b"[" * 60 + b"]" * 60 + b"}\n", "yaml_refused"),
        (b"a: " + b"[" * 1_000_000, "yaml_refused"),
        (b"x: [" + b"1," * 200_000 + b"]", "yaml_refused"),
        (b"x: !!python/object/apply:os.system ['touch /tmp/owned']\n", "format_not_recognised"),
        (b"custom_nodes: " + b" " * 3_000_000, "lock_file_too_large"),
        (b"\xff\xfe\x00", "invalid_yaml"),
        (b"a: b: c\n", "invalid_yaml"),
        (b"{", "invalid_json"),
        (b"[1, 2]", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b"", "invalid_yaml"),
        (b"PK\x03\x04 not a zip", "archive_damaged"),
        (b'{"hello": 1}', "format_not_recognised"),
        (b'{"schema": "comfyplane-lock/1", "comfyui": []}', "lock_malformed"),
        (b'{"schema": "comfyplane-lock/1", "packs": [7]}', "lock_malformed"),
        (b'{"comfyui": "a", "git_custom_nodes": [1]}', "lock_file_malformed"),
        (b'{"comfyui": "../..", "git_custom_nodes": {}}', "lock_file_malformed"),
        (b'{"git_custom_nodes": {"ext::sh -c x": {"hash": "a"}}}', "lock_file_malformed"),
        (b'{"cnr_custom_nodes": {"../../x": "1.0.0"}}', "lock_file_malformed"),
        (b'{"python": "3.11", "comfyui": "a", "models": [{"filename": "models/checkpoints/../../x", "sha256": ""}]}', "model_path_refused"),
        (b'{"python": "3.11", "comfyui": "a", "models": [{"filename": "C:\\\\models\\\\x", "sha256": ""}]}', "model_path_refused"),
    ],
)  # fmt: skip
def test_hostile_and_broken_files_end_in_a_reason(data: bytes, code: str) -> None:
    with pytest.raises(WorkflowError) as refused:
        formats.read(data)
    assert refused.value.code == code
    assert refused.value.message and len(refused.value.message) < 600


def test_an_archive_without_a_snapshot_is_refused() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as out:
        out.writestr("workflow.json", "{}")
    with pytest.raises(WorkflowError) as refused:
        formats.read(packed.getvalue())
    assert refused.value.code == "archive_without_snapshot"


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_end_in_anything_but_a_reason(data: bytes) -> None:
    try:
        formats.read(data)
    except WorkflowError as error:
        assert error.code and error.message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=12,
    ),
    st.sampled_from(["comfyui", "git_custom_nodes", "cnr_custom_nodes", "file_custom_nodes", "pips", "models", "custom_nodes", "python", "definition"]),
)
def test_any_value_in_a_known_place_is_taken_or_refused(value: Any, key: str) -> None:
    for base in ({"git_custom_nodes": {}}, {"python": "3.11", "comfyui": ""}, {"basic": {}, "custom_nodes": {}}, {"schema": "comfy-build/1", "definition": {}}):
        try:
            formats.read(json.dumps(base | {key: value}).encode())
        except WorkflowError as error:
            assert error.code and error.message
