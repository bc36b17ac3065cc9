"""The small pure parts: configuration, waiting, room, names, hardware, frames."""

import asyncio
import itertools
import json
import random
import struct
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleet.agent import backoff, config, control, events, fingerprint, inputs, installed, preflight, submission, waker, warmup
from fleet.agent.comfy import EngineUnreachable
from fleet.agent.config import EngineChoice

ENV = {"COMFYPLANE_URL": "http://plane/", "COMFYPLANE_POOL_TOKEN": "t"}


def test_the_environment_configures_and_flags_win():
    settings, _ = config.from_args(["--name", "w-1", "--poll-s", "3"], {**ENV, "COMFYPLANE_WORKER_NAME": "w-2", "COMFYPLANE_INSTANCE": "i-1"})
    assert (settings.control_url, settings.name, settings.instance, settings.patience.poll_s) == ("http://plane", "w-1", "i-1", 3.0)
    assert settings.engine.kind == "embedded" and "t" not in repr(settings).split()


@pytest.mark.parametrize(
    ("env", "kind"), [({}, "embedded"), ({"COMFYUI_DIR": "/srv/comfy"}, "comfyui"), ({"COMFYUI_URL": "http://127.0.0.1:8188/"}, "external")]
)
def test_the_engine_is_chosen_by_the_environment(env, kind):
    settings, _ = config.from_args([], {**ENV, **env, "COMFYUI_ARGS": "--cpu --note 'a b'"})
    assert settings.engine.kind == kind and settings.engine.args == ("--cpu", "--note", "a b")


@pytest.mark.parametrize(("argv", "env"), [([], {}), (["--poll-s", "soon"], ENV), (["--nonsense"], ENV)])
def test_nonsense_on_the_command_line_is_refused(argv, env, capsys):
    with pytest.raises(SystemExit) as stop:
        config.from_args(argv, env)
    assert stop.value.code == 2 and "usage" in capsys.readouterr().err


def test_waits_grow_with_jitter_up_to_a_cap():
    waits = list(itertools.islice(backoff.delays(first_s=1, factor=2, cap_s=8, rng=random.Random(1)), 6))
    for wait, step in zip(waits, [1, 2, 4, 8, 8, 8], strict=True):
        assert step / 2 <= wait <= step


@pytest.mark.parametrize(("disk", "ram", "short"), [(10, 10, []), (9, 10, ["disk"]), (10, 9, ["ram"]), (0, 0, ["disk", "ram"])])
def test_a_worker_is_short_below_its_limits(disk, ram, short):
    usage = preflight.Usage(1, 2, ram, disk, 0.0)
    assert preflight.shortages(usage, min_free_disk_bytes=10, min_free_ram_bytes=10) == short
    assert replace(usage).body(short)["short"] == short


def test_the_vram_of_a_cpu_is_none():
    assert preflight.vram_of({"devices": [{"type": "cpu", "vram_total": 9, "vram_free": 1}]}) == (0, 0)
    assert preflight.vram_of({"devices": [{"type": "cuda", "vram_total": 9, "vram_free": 1}]}) == (8, 9)
    assert preflight.vram_of({}) == (0, 0)


@pytest.mark.parametrize(
    ("text", "found"),
    [("NVIDIA GeForce RTX 4090, 24564\n", ("NVIDIA GeForce RTX 4090", 24564 * 1024**2)), ("", ("cpu", 0)), ("Failed to initialize NVML", ("cpu", 0))],
)
def test_the_gpu_is_read_from_nvidia_smi(text, found):
    assert fingerprint.parse_gpu(text) == found


@pytest.mark.parametrize(
    ("script", "found"),
    [('echo \'{"torch": "2.9"}\'', {"torch": "2.9"}), ("echo nonsense", {}), ("exit 1", {}), (None, {})],
    ids=["packages", "nonsense", "failure", "no such interpreter"],
)
def test_packages_are_those_of_comfyuis_interpreter(tmp_path, script, found):
    python = tmp_path / "python"
    if script is not None:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
    assert asyncio.run(fingerprint.packages(EngineChoice(directory=tmp_path, python=str(python)))) == found


def test_an_interpreter_of_its_own_lists_its_packages():
    done = subprocess.run([sys.executable, installed.__file__], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == installed.packages()


def test_a_server_of_somebody_else_tells_what_it_can(tmp_path):
    stats = {"system": {"python_version": "3.12.1 (main) [GCC]", "pytorch_version": "2.9.1+cu130"}}
    assert asyncio.run(fingerprint.packages(EngineChoice(url="http://127.0.0.1:1"))) == {}
    told = fingerprint.describe(engine_kind="external", stats=stats, object_info={}, gpu_found=("cpu", 0), package_versions={}, work_dir=tmp_path)
    assert (told["python"], told["packages"]) == ("3.12.1", {"torch": "2.9.1+cu130"})


def test_a_prompt_that_ended_between_two_questions_is_not_sent_twice():
    class Server:
        submitted, asked = 0, 0

        async def submit(self, body):
            self.submitted += 1
            raise EngineUnreachable("the answer got lost")

        async def history(self, prompt_id):
            self.asked += 1
            return {} if self.asked > 1 else None

        async def queued(self, prompt_id):
            return None

    server = Server()
    handed = asyncio.run(submission.hand_over(server, {"prompt_id": "p"}, gone_s=1, given_up=lambda: False))
    assert (handed.prompt_id, handed.failure, server.submitted) == ("p", None, 1)


def test_the_fingerprint_of_classes_does_not_depend_on_order(tmp_path):
    def digest(names):
        info = {name: {} for name in names}
        told = fingerprint.describe(engine_kind="comfyui", stats={}, object_info=info, gpu_found=("cpu", 0), package_versions={}, work_dir=tmp_path)
        return told["node_classes_sha256"]

    assert digest(["A", "B"]) == digest(["B", "A"]) != digest(["A"])


@example(".")
@example("./")
@given(st.text(max_size=30))
def test_a_file_name_is_safe_or_refused(name):
    try:
        folder, base = inputs.safe_name(name)
    except ValueError:
        return
    assert base and "/" not in base and ".." not in (*folder.split("/"), base) and not folder.startswith("/")


def test_a_warm_up_needs_the_core_image_nodes():
    assert warmup.graph({"EmptyImage"}) is None
    assert set(warmup.graph({"EmptyImage", "PreviewImage"})) == {"1", "2"}


def test_binary_frames_of_each_type_are_read():
    metadata = json.dumps({"node_id": "4", "prompt_id": "p"}).encode()
    assert events.parse(struct.pack(">II", 1, 2) + b"PNG").payload == b"PNG"
    assert events.parse(struct.pack(">II", 4, len(metadata)) + metadata + b"JPG").data == {"node": "4", "prompt_id": "p"}
    text = events.parse(struct.pack(">II", 3, 2) + b"13hello")
    assert (text.kind, text.data["node"], text.payload) == ("text", "13", b"hello")


@given(st.one_of(st.binary(max_size=40), st.text(max_size=40)))
def test_any_socket_message_is_read_or_ignored(message):
    found = events.parse(message)
    assert found is None or isinstance(found.kind, str)


class FakeComfy:
    """Stores uploads under a name of its own choice."""

    def __init__(self, renames=None):
        self.renames, self.stored = renames or {}, []

    async def upload(self, name, data, media_type, subfolder=""):
        self.stored.append((subfolder, name, data))
        return self.renames.get(name, f"{subfolder}/{name}" if subfolder else name)


def place(files, *, comfy, data=b"x", max_bytes=100):
    async def fetch(sha256, limit):
        if isinstance(data, Exception):
            raise data
        return data

    graph = {"10": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}}}
    rows = [{"sha256": "0", "name": "photo.png", "size_bytes": 1, "media_type": "image/png", "node": "10", "input": "image", **f} for f in files]
    return asyncio.run(inputs.place(rows, graph, comfy=comfy, fetch=fetch, max_bytes=max_bytes)), graph


def test_a_name_that_comfyui_changed_is_put_into_the_graph():
    placed, graph = place([{}], comfy=FakeComfy({"photo.png": "photo (1).png"}))
    assert placed["10"]["inputs"]["image"] == "photo (1).png" and graph["10"]["inputs"]["image"] == "photo.png"


def test_an_input_in_a_folder_goes_to_that_folder():
    comfy = FakeComfy()
    place([{"name": "tenant/photo.png"}], comfy=comfy)
    assert comfy.stored == [("tenant", "photo.png", b"x")]


@pytest.mark.parametrize(
    ("file", "data", "code", "failure_class"),
    [
        ({"name": "../x.png"}, b"x", "input_name_unsafe", "platform"),
        ({"size_bytes": 101}, b"x", "input_too_large", "customer_input"),
        ({}, ValueError("wrong hash"), "input_corrupt", "platform"),
        ({}, control.Refused(404, "not_found", "gone"), "input_missing", "platform"),
    ],
)
def test_an_input_that_cannot_be_placed_fails_with_a_class(file, data, code, failure_class):
    comfy = FakeComfy()
    with pytest.raises(inputs.InputFailed) as failed:
        place([file], comfy=comfy, data=data)
    assert (failed.value.failure.code, failed.value.failure.failure_class) == (code, failure_class)
    assert comfy.stored == []


def test_a_wake_cuts_a_wait_short_and_work_that_is_done_counts():
    async def go():
        waiter = waker.Waker(lambda: False)
        asyncio.get_running_loop().call_soon(waiter.wake)
        woken = await waiter.unless_woken(asyncio.sleep(60))
        return woken, await waiter.unless_woken(asyncio.sleep(0)), await waker.Waker(lambda: True).unless_woken(asyncio.sleep(60))

    assert asyncio.run(go()) == (False, True, False)
