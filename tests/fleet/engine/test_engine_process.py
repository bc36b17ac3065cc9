"""The engine as a process: prompts end to end, faults on purpose, names that try to get out."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.contract.engine_process import EngineProcess, engine, wait_until
from tests.contract.transcripts import REPOSITORY, shared

EMPTY = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 6, "batch_size": 1, "color": 255}}
CHAIN: dict[str, Any] = {
    "1": EMPTY,
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
}


def prompt(colour: int) -> dict[str, Any]:
    return {**CHAIN, "1": {"class_type": "EmptyImage", "inputs": {**EMPTY["inputs"], "color": colour}}}  # type: ignore[dict-item]


@pytest.fixture(scope="module")
def shared_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    root = tmp_path_factory.mktemp("engine")
    with engine(root) as process:
        yield process


# file -> node -> media shown; 21 runs where the server must answer meanwhile, 30 and 31 fail on purpose
SHOWN = {
    "01_scale_save.json": {"3": ["images"]},
    "02_blend_blur_two_outputs.json": {"5": ["images"], "6": ["images"]},
    "03_mask_composite.json": {"6": ["images"]},
    "04_upload_invert.json": {"12": ["images"], "14": ["text"]},
    "05_text_ops.json": {"5": ["text"]},
    "07_animated_webp.json": {"3": ["images", "animated"]},
    "10_audio_flac.json": {"3": ["audio"]},
    "13_batch_of_four.json": {"3": ["images"]},
    "14_latent_save.json": {"2": ["latents"]},
    "20_slow_chain.json": {"52": ["images"]},
    "22_upscale_tiny_model_progress.json": {"6": ["images"]},
    "40_partial_one_output_invalid.json": {"2": ["images"]},
    "70_ok_extra_unknown_input_ignored.json": {"2": ["images"]},
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_shared_prompt_ends_with_its_outputs(name: str, shared_engine: EngineProcess) -> None:
    models = shared_engine.root / "models" / "upscale_models"
    models.mkdir(parents=True, exist_ok=True)
    shutil.copy(shared("tiny-models", "tiny_compact_2x.safetensors"), models)
    Image.new("RGB", (40, 30), "red").save(shared_engine.root / "input" / "input_photo.png")
    nodes = json.loads(shared("workflows", name).read_text())
    if name.startswith("20"):
        # Its many nodes matter here, not how long each takes.
        nodes["1"]["inputs"] |= {"width": 128, "height": 128}
    entry = shared_engine.result(shared_engine.post(nodes, client_id="c"))
    assert entry["status"]["status_str"] == "success"
    assert {node_id: list(shown) for node_id, shown in entry["outputs"].items()} == SHOWN[name]


def test_every_converted_graph_succeeds(shared_engine: EngineProcess) -> None:
    for path in sorted(shared("workflows").glob("*.expected-api.json")):
        entry = shared_engine.result(shared_engine.post(json.loads(path.read_text()), client_id="c"))
        assert entry["status"]["status_str"] == "success", path.name
        assert entry["outputs"], path.name


def test_the_blend_of_red_and_blue_is_purple(shared_engine: EngineProcess) -> None:
    blend = {**json.loads(shared("workflows", "02_blend_blur_two_outputs.json").read_text())}
    shown = shared_engine.result(shared_engine.post(blend, client_id="c"))["outputs"]["6"]["images"][0]
    answer = shared_engine.http.get("/view", params=shown)
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (96, 96)
        assert image.getpixel((48, 48)) == (127, 0, 127)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"filename": "secret.txt", "subfolder": ".."}, 403),
        ({"filename": "../secret.txt"}, 400),
        ({"filename": "secret.txt", "subfolder": "link"}, 403),
        ({"filename": "out.txt"}, 403),
        ({"filename": "/etc/passwd"}, 400),
        ({"filename": "secret.txt", "type": "models"}, 400),
        ({"filename": "secret.txt [input]"}, 404),
        ({"filename": "a\0b"}, 403),
    ],
)
def test_view_does_not_leave_its_directory(query: dict[str, str], status: int, shared_engine: EngineProcess) -> None:
    root = shared_engine.root
    (root / "secret.txt").write_text("secret")
    for name, target in (("link", root), ("out.txt", root / "secret.txt")):
        link = root / "output" / name
        if not link.is_symlink():
            link.symlink_to(target)
    assert shared_engine.http.get("/view", params=query).status_code == status


def test_active_content_is_not_served_as_such(shared_engine: EngineProcess) -> None:
    for name in ("a.html", "a.svg", "a.js", "a.css"):
        (shared_engine.root / "output" / name).write_text("x")
        assert shared_engine.http.get("/view", params={"filename": name}).headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("fields", [{"subfolder": "../.."}, {"subfolder": "/etc"}])
def test_an_upload_does_not_leave_the_input_directory(fields: dict[str, str], shared_engine: EngineProcess) -> None:
    answer = shared_engine.http.post("/upload/image", files={"image": ("a.png", b"x")}, data=fields)
    assert answer.status_code == 400


@pytest.mark.parametrize("image", ["../../secret.txt", "missing.png", "secret.txt [nowhere]"])
def test_an_image_that_is_not_an_input_is_refused_before_it_runs(image: str, shared_engine: EngineProcess) -> None:
    body = {"prompt": {"1": {"class_type": "LoadImage", "inputs": {"image": image}}, "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}}
    answer = shared_engine.http.post("/prompt", json=body)
    assert answer.status_code == 400
    problem = answer.json()["node_errors"]["1"]["errors"][0]
    assert problem["type"] == "custom_validation_failed"
    assert problem["details"] == f"image - Invalid image file: {image}"


def test_a_growing_input_misses_its_second_member(shared_engine: EngineProcess) -> None:
    nodes = {"1": EMPTY, "2": {"class_type": "BatchImagesNode", "inputs": {"images.image0": ["1", 0]}}}
    answer = shared_engine.http.post("/prompt", json={"prompt": {**nodes, "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}}})
    assert answer.json()["node_errors"]["2"]["errors"][0]["details"] == "images.image1"


def test_an_output_takes_the_type_of_its_matching_input(shared_engine: EngineProcess) -> None:
    mask = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 4, "height": 4}}
    resize = {"class_type": "ResizeImageMaskNode", "inputs": {"input": ["1", 0], "resize_type": "scale width", "resize_type.width": 8, "scale_method": "area"}}
    wrong = {"1": mask, "2": resize, "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}}
    assert shared_engine.http.post("/prompt", json={"prompt": wrong}).json()["node_errors"]["3"]["errors"][0]["type"] == "return_type_mismatch"
    right = {**wrong, "3": {"class_type": "MaskPreview", "inputs": {"mask": ["2", 0]}}}
    shown = shared_engine.result(shared_engine.post(right))["outputs"]["3"]["images"][0]
    with Image.open(io.BytesIO(shared_engine.http.get("/view", params=shown).content)) as image:
        assert image.size == (8, 8)


def test_a_node_of_models_says_that_it_cannot_run(shared_engine: EngineProcess) -> None:
    (shared_engine.root / "models" / "vae").mkdir(parents=True, exist_ok=True)
    nodes = {"1": {"class_type": "VAELoader", "inputs": {"vae_name": "pixel_space"}}, "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}
    kind, data = shared_engine.result(shared_engine.post(nodes))["status"]["messages"][-1]
    assert (kind, data["exception_type"]) == ("execution_error", "NotImplementedError")


def test_a_prompt_that_breaks_the_engine_still_ends(shared_engine: EngineProcess) -> None:
    broken = shared_engine.post({**CHAIN, "9": {"class_type": "ImageInvert", "inputs": []}})
    assert shared_engine.result(broken)["status"]["status_str"] == "error"
    assert shared_engine.result(shared_engine.post(CHAIN))["status"]["status_str"] == "success"


def test_the_server_answers_while_a_node_computes(shared_engine: EngineProcess) -> None:
    slow = json.loads(shared("workflows", "21_slow_single_node.json").read_text())
    prompt_id = shared_engine.post(slow)
    started = time.monotonic()
    for _ in range(5):
        assert shared_engine.http.get("/system_stats").status_code == 200
    assert time.monotonic() - started < 2
    assert shared_engine.http.get("/queue").json()["queue_running"]
    assert list(shared_engine.result(prompt_id)["outputs"]["5"]) == ["images"]


def test_faults_cannot_be_set_unless_allowed(shared_engine: EngineProcess) -> None:
    assert shared_engine.http.post("/_fault", json={"slow": 1}).status_code == 404


def test_a_full_memory_fails_the_prompt_and_not_the_engine(tmp_path: Path) -> None:
    with engine(tmp_path, "--fault", "oom-after=1", "--allow-faults") as process:
        assert process.result(process.post(prompt(1)))["status"]["status_str"] == "success"
        message = process.result(process.post(prompt(2)))["status"]["messages"][-1][1]["exception_message"]
        assert "can't allocate memory: you tried to allocate" in message
        assert process.http.post("/_fault", json={"oom-after": None}).status_code == 200
        assert process.result(process.post(prompt(3)))["status"]["status_str"] == "success"
        assert process.http.post("/_fault", json={"no-such": 1}).status_code == 400


def test_a_crash_ends_the_process_in_the_middle_of_a_prompt(tmp_path: Path) -> None:
    with engine(tmp_path, "--fault", "crash-after=1") as process:
        process.result(process.post(prompt(1)))
        socket = process.socket("/ws?clientId=c")
        process.post(prompt(2), client_id="c")
        assert process.process.wait(10) == 70
        wait_until(lambda: socket.closed, "the socket to close")
        assert [data["node"] for data in socket.of_type("executing")] == ["1"]


def test_a_hanging_node_ignores_an_interrupt_until_the_fault_is_lifted(tmp_path: Path) -> None:
    with engine(tmp_path, "--fault", "hang", "--allow-faults") as process:
        socket = process.socket("/ws?clientId=c")
        prompt_id = process.post(prompt(1), client_id="c")
        wait_until(lambda: socket.of_type("executing"), "the first node")
        process.http.post("/interrupt", json={"prompt_id": prompt_id})
        assert process.http.get(f"/history/{prompt_id}").json() == {}
        assert process.http.get("/queue").json()["queue_running"]
        process.http.post("/_fault", json={"hang": None})
        assert process.result(prompt_id)["status"]["messages"][-1][0] == "execution_interrupted"


def test_a_socket_drops_after_some_messages(tmp_path: Path) -> None:
    with engine(tmp_path, "--fault", "drop-socket=4") as process:
        socket = process.socket("/ws?clientId=c")
        prompt_id = process.post(prompt(1), client_id="c")
        wait_until(lambda: socket.closed, "the socket to close")
        assert len(socket.messages) == 4
        assert process.result(prompt_id)["status"]["status_str"] == "success"


def test_the_environment_sets_faults_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_ENGINE_FAULTS", "slow=0.1")
    with engine(tmp_path) as process:
        started = time.monotonic()
        process.result(process.post(prompt(1)))
        assert time.monotonic() - started > 0.3


def test_a_terminated_engine_leaves_no_scratch_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    words = [sys.executable, "-m", "fleet.engine", "--port", "0"]
    with subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"] is True
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_engine_imports_nothing_of_the_control_plane() -> None:
    code = "import sys, fleet.engine.__main__; print([m for m in sys.modules if m.split('.')[0] in {'django', 'controlplane', 'builds', 'billing'}])"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip() == "[]"
