"""Canvas files, pictures, archives and payloads on their way to a version, and the convert command."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from canvas_samples import chain, classes
from django.core.management import call_command

from builds import graphs, importing, libraries
from builds.conversion import convert
from controlplane.kernel.errors import WorkflowError

REPOSITORY = Path(__file__).resolve().parents[2]
API = {"1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 32, "batch_size": 1, "color": 0}}}
API["2"] = {"class_type": "SaveImage", "inputs": {"filename_prefix": "p", "images": ["1", 0]}}


def png(kind: bytes = b"tEXt", **texts: Any) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    chunks = b""
    for key, value in texts.items():
        text = json.dumps(value).encode()
        head = {b"tEXt": b"", b"zTXt": b"\x00", b"iTXt": b"\x00\x00\x00\x00"}[kind]
        chunks += chunk(kind, key.encode() + b"\x00" + head + (zlib.compress(text) if kind == b"zTXt" else text))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\x00" * 13) + chunks + chunk(b"IEND", b"")


def archive(**files: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, value in files.items():
            # A member of its own date: the bytes are part of a test's name, which every test process must agree on.
            member = zipfile.ZipInfo(name.replace("__", "."), date_time=(2026, 1, 1, 0, 0, 0))
            packed.writestr(member, value if isinstance(value, bytes) else json.dumps(value), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


@pytest.mark.django_db
def test_a_canvas_file_becomes_a_version_that_keeps_its_canvas(now: datetime) -> None:
    libraries.store(name="small", document=classes(), current=True, now=now)
    document = chain("ImageInvert")
    result = importing.import_graph(document=document, slug="drawn", name="Drawn", author="test", now=now)
    assert result.created and result.version.runnable, result.findings
    result.version.refresh_from_db()
    assert result.version.graph["2"]["class_type"] == "ImageInvert"
    assert result.version.ui_graph == document
    assert not importing.import_graph(document=document, slug="drawn", name=None, author="test", now=now).created


@pytest.mark.django_db
def test_a_canvas_file_that_is_not_exact_keeps_nothing(now: datetime) -> None:
    libraries.store(name="small", document=classes(), current=True, now=now)
    with pytest.raises(WorkflowError) as refusal:
        importing.import_graph(document=chain("NoSuchNode"), slug="drawn", name="Drawn", author="test", draft=True, now=now)
    assert refusal.value.code == "unknown_node_class"
    assert refusal.value.details["node"] == "2"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda api, ui: {"prompt": api, "extra_data": {"extra_pnginfo": {"workflow": ui}}},
        lambda api, ui: {"input": {"workflow": api}},
        lambda api, ui: {"input": {"workflow_json": json.dumps(api)}},
        lambda api, ui: {"workflow_api": api, "workflow": ui},
        lambda api, ui: {"prompt": json.dumps(api), "workflow": json.dumps(ui)},
        lambda api, ui: graphs.load(png(prompt=api, workflow=ui)),
        lambda api, ui: graphs.load(png(b"zTXt", prompt=api, workflow=ui)),
        lambda api, ui: graphs.load(png(b"iTXt", prompt=api, workflow=ui)),
        lambda api, ui: graphs.load(archive(workflow_api__json=api, workflow__json=ui, snapshot__json={})),
    ],
)
def test_the_graph_is_found_in_what_people_have(wrap: Any) -> None:
    ui = chain("ImageInvert")
    document = wrap(API, ui)
    assert graphs.parse(document, library=classes()) == API
    assert graphs.canvas(document) in (ui, None)


@pytest.mark.parametrize(
    "data",
    [png(workflow=chain("ImageInvert")), archive(workflow__json=chain("ImageInvert")), json.dumps({"input": {"workflow": chain("ImageInvert")}}).encode()],
)
def test_a_canvas_alone_is_converted_wherever_it_was(data: bytes) -> None:
    document = graphs.load(data)
    assert graphs.parse(document, library=classes())["3"]["inputs"]["images"] == ["2", 0]
    assert graphs.canvas(document) == chain("ImageInvert")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (png(), "picture_without_workflow"),
        (png(parameters="steps: 20"), "picture_without_workflow"),
        (b"\x89PNG\r\n\x1a\n" + b"\xff" * 40, "picture_without_workflow"),
        (png(b"zTXt", workflow=1)[:-30], "picture_without_workflow"),
        (b"\xff\xd8\xff\xe0JFIF", "container_not_supported"),
        (b"RIFF1234WEBP", "container_not_supported"),
        (archive(readme__txt=b"x"), "archive_without_workflow"),
        (archive(workflow__json=b"{"), "invalid_json"),
        (archive(workflow__json=b" " * 5_000_000), "graph_too_large"),
        (archive(workflow__json={})[:60], "archive_damaged"),
        (b'{"1": {"class_type": "KSampler", "inputs": {"seed": {{seed}}, "steps": 20}}}', "placeholders_in_graph"),
    ],
)
def test_other_files_are_refused_with_a_plain_reason(data: bytes, code: str) -> None:
    with pytest.raises(WorkflowError) as refusal:
        graphs.load(data)
    assert refusal.value.code == code
    assert refusal.value.suggestion


def test_a_template_with_placeholders_is_refused_with_node_and_field() -> None:
    with pytest.raises(WorkflowError) as refusal:
        graphs.parse({"6": {"class_type": "CLIPTextEncode", "inputs": {"text": "{{positive_prompt}}", "clip": ["4", 1]}}})
    assert (refusal.value.code, refusal.value.details["node"], refusal.value.details["field"]) == ("placeholders_in_graph", "6", "text")
    assert graphs.parse({"6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a {{curly}} prompt"}}})


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "manage.py", "convert", *arguments], cwd=REPOSITORY, input=stdin, capture_output=True, check=False, timeout=60)


@pytest.fixture
def info_file(tmp_path: Path) -> str:
    path = tmp_path / "info.json"
    path.write_text(json.dumps(classes()))
    return str(path)


def test_the_command_prints_the_graph_without_a_database(info_file: str) -> None:
    done = run("-", "--object-info", info_file, stdin=json.dumps(chain("ImageInvert")).encode())
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {key: one["inputs"] for key, one in said.items()} == {key: one["inputs"] for key, one in convert(chain("ImageInvert"), classes()).items()}


@pytest.mark.parametrize(("text", "code"), [(json.dumps(chain("NoSuchNode")), "unknown_node_class"), ("{", "invalid_json"), ("[]", "not_a_workflow")])
def test_the_command_leaves_with_two_and_a_json_error(text: str, code: str, tmp_path: Path, info_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "it.json").write_text(text)
    with pytest.raises(SystemExit) as left:
        call_command("convert", str(tmp_path / "it.json"), object_info=info_file)
    assert left.value.code == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == code
    assert error["message"] and error["suggestion"]
    if code == "unknown_node_class":
        assert error["details"]["problems"][0]["node"] == "2"


@pytest.mark.django_db
def test_a_stored_library_says_the_order_of_its_inputs_at_every_depth(now: datetime) -> None:
    table = {name: classes()[name] for name in ("T_dyn", "T_grow_two", "EmptyImage")}
    stored = libraries.store(name="ordered", document=table, now=now).object_info
    # What a database that sorts keys would give back.
    shuffled = json.loads(json.dumps(stored, sort_keys=True))
    for kind, values in (("T_dyn", ["x", 1, "qa", 2, 3, 9]), ("T_grow_two", [1, "p", 2, "q", 3]), ("EmptyImage", [1, 2, 3, 4])):
        document = {"nodes": [{"id": 1, "type": kind, "widgets_values": values}]}
        assert convert(document, shuffled) == convert(document, table)
