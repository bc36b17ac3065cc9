"""The embedded engine answers as the recorded server did, and says the same in the same order."""

from __future__ import annotations

import base64
import io
import re
import shutil
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.engine_process import EngineProcess, Socket, engine, wait_until
from tests.contract.transcripts import Line, load, shared, workflow

TIMES = {"timestamp", "create_time", "execution_start_time", "execution_end_time"}
NUMBERED = re.compile(r"^(?P<stem>.+)_(?P<number>\d{5})_(?P<suffix>\.\w+)$")
TEMPORARY = re.compile(r"^ComfyUI_temp_[a-z]{5}_")
EVENTS = {"progress_state", "execution_start", "executing", "executed", "execution_success", "execution_error", "execution_interrupted"}
# The recorder logged these requests after changing them; the notes say what was sent.
LOADED_IMAGES = {17: "tenant-a/job-1/photo.png", 44: "photo.png [temp]"}
SLOW = ("--fault", "slow=0.08")
SLOWER = ("--fault", "slow=0.15")

Prompts = dict[str, str]


class Plain:
    """Values without what differs from run to run: ids, times, counters, paths."""

    def __init__(self, everything: Any, ids: Prompts, known: set[str]) -> None:
        self.ids = ids
        self.known = known
        self.first: dict[str, int] = defaultdict(lambda: 99999)
        self._learn(everything)
        self.base = min((abs(n) for n in self._numbers(everything)), default=0)

    def _learn(self, value: Any) -> None:
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                self._learn(inner)
        elif isinstance(value, str) and (found := NUMBERED.match(value)):
            self.first[found["stem"]] = min(self.first[found["stem"]], int(found["number"]))

    def _numbers(self, value: Any) -> list[int]:
        found: list[int] = []
        if isinstance(value, dict):
            if isinstance(value.get("number"), int) and "node_errors" in value:
                found.append(value["number"])
            value = list(value.values())
        if isinstance(value, list):
            found += [number for inner in value for number in self._numbers(inner)]
        return found

    def of(self, value: Any, key: str = "") -> Any:
        if key in TIMES or key == "sid":
            return "<run>"
        if key == "traceback":
            return "<traceback>" if value and all(isinstance(line, str) for line in value) else value
        if key in ("number", "priority") and isinstance(value, int):
            return self._number(value)
        if key in ("executed", "current_outputs") and isinstance(value, list):
            return sorted(value)
        if key == "jobs":
            return [self.of(job) for job in value if self.ids.get(job["id"], job["id"]) in self.known]
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if k not in ("tooltip", "description")}
            return {self.ids.get(k, k): self.of(v, k) for k, v in kept.items()}
        if isinstance(value, list):
            if len(value) == 5 and isinstance(value[2], dict) and isinstance(value[0], int):
                # Outputs come from a set on the recorded server.
                value = [self._number(value[0]), *value[1:4], sorted(value[4])]
            return [self.of(inner) for inner in value]
        return self._text(value, key) if isinstance(value, str) else value

    def _number(self, value: int) -> int:
        return value + self.base if value < 0 else value - self.base

    def _text(self, value: str, key: str) -> str:
        if key == "exception_message" and "\n full_output_folder" in value:
            return value.split("\n")[0]
        value = re.sub(r"'[^']*/([^/']+)'", r"'\1'", value) if key == "exception_message" else value
        if value.startswith(("tensor(", "[[[")):
            return "<array>"
        value = TEMPORARY.sub("ComfyUI_temp_", value)
        if found := NUMBERED.match(value):
            return f"{found['stem']}_+{int(found['number']) - self.first[found['stem']]}_{found['suffix']}"
        return self.ids.get(value, value)


class Replay:
    """A transcript played against an engine; collects what came back."""

    def __init__(self, process: EngineProcess, lines: list[Line]) -> None:
        self.engine = process
        self.lines = lines
        self.sockets: dict[str, Socket] = {}
        self.ids: Prompts = {}
        self.recorded_ids = {line["response_json"]["prompt_id"] for line in lines if _queued(line)}
        self.answers: list[tuple[Line, httpx.Response]] = []

    def play(self) -> None:
        for index, line in enumerate(self.lines):
            kind = line["kind"]
            if kind == "ws_open":
                self.sockets[line["ws"]] = self.engine.socket(line["path"])
            elif kind == "ws_send":
                self.sockets[line["ws"]].send(line["data"])
            elif kind == "note" and "deleted on disk" in line["text"]:
                for path in (self.engine.root / "output").iterdir():
                    path.unlink()
            elif kind == "http":
                self._catch_up(index)
                self.answers.append((line, self._request(line)))
        self._catch_up(len(self.lines))

    def _catch_up(self, index: int) -> None:
        """Wait until the sockets saw what they had seen at this line of the recording."""
        for name, socket in self.sockets.items():
            expected = sum(1 for line in self.lines[:index] if _is_event(line, name))
            wait_until(lambda: sum(_is_event_message(m) for m in list(socket.messages)) >= expected, f"{expected} events on {name} at line {index}")  # noqa: B023
        if not self.sockets and index < len(self.lines) and self.lines[index]["path"].startswith("/history/"):
            wanted = self._path(self.lines[index])
            wait_until(lambda: self.engine.http.get(wanted).json(), wanted)

    def _path(self, line: Line) -> str:
        path: str = line["path"]
        for actual, recorded in self.ids.items():
            if path.endswith(recorded) and recorded:
                path = path[: -len(recorded)] + actual
        return path

    def _request(self, line: Line) -> httpx.Response:
        actual = {recorded: ours for ours, recorded in self.ids.items()}
        body: dict[str, Any] = {}
        if "request_form" in line:
            body = _form(line["request_form"])
        elif "request_raw" in line:
            body = {"content": line["request_raw"]}
        elif "request_json" in line:
            body = {"json": _renamed(line["request_json"], actual)}
        answer = self.engine.http.request(line["method"], self._path(line), **body)
        if _queued(line) and answer.status_code == 200:
            self.ids[answer.json()["prompt_id"]] = line["response_json"]["prompt_id"]
        return answer

    def check(self, *, statuses: bool = True) -> None:
        ours = [answer.json() if _is_json(answer) else None for _, answer in self.answers]
        theirs = [line.get("response_json") for line, _ in self.answers]
        spoken = {name: list(socket.messages) for name, socket in self.sockets.items()}
        heard = {name: [_message(line) for line in self.lines if line["kind"] == "ws_recv" and line["ws"] == name] for name in self.sockets}
        plain_ours = Plain([ours, spoken], self.ids, self.recorded_ids)
        plain_theirs = Plain([theirs, heard], {}, self.recorded_ids)
        for (line, answer), our, their in zip(self.answers, ours, theirs, strict=True):
            where = f"{line['method']} {line['path']}"
            assert answer.status_code == line["status"], f"{where}: {answer.text[:300]}"
            assert answer.headers.get("content-type", "") == line["content_type"], where
            assert plain_ours.of(our) == plain_theirs.of(_ours_only(their, self.recorded_ids)), where
            if "response_text" in line:
                assert answer.text == line["response_text"], where
            if "response_head_hex" in line:
                assert answer.content.hex().startswith(line["response_head_hex"][:16]), where
            if "content_disposition" in line:
                assert answer.headers["content-disposition"] == line["content_disposition"], where
        for name in self.sockets:
            assert _sequence(plain_ours, spoken[name], statuses) == _sequence(plain_theirs, heard[name], statuses), name


def _queued(line: Line) -> bool:
    return line.get("path") == "/prompt" and line.get("method") == "POST" and line.get("status") == 200


def _is_json(answer: httpx.Response) -> bool:
    return answer.headers.get("content-type", "").startswith("application/json")


def _message(line: Line) -> Any:
    return line["data"] if line["type"] == "text" else base64.b64decode(line["base64"])


def _is_event_message(message: Any) -> bool:
    return isinstance(message, dict) and message["type"] in EVENTS


def _is_event(line: Line, name: str) -> bool:
    return line["kind"] == "ws_recv" and line["ws"] == name and line["type"] == "text" and line["data"]["type"] in EVENTS


def _sequence(plain: Plain, messages: list[Any], statuses: bool) -> list[Any]:
    """Messages to compare: repeated statuses count once, or not at all when they race."""
    found: list[Any] = []
    for message in messages:
        if isinstance(message, dict) and message["type"] == "status":
            if not statuses and "sid" not in message["data"]:
                continue
            if found and found[-1] == message:
                continue
        found.append(message if isinstance(message, bytes) else plain.of(message))
    return found


def _ours_only(answer: Any, known: set[str]) -> Any:
    """A recorded job list without the jobs of earlier recordings."""
    if isinstance(answer, dict) and "jobs" in answer and "pagination" in answer:
        count = sum(job["id"] in known for job in answer["jobs"])
        return {**answer, "pagination": {**answer["pagination"], "total": count}}
    return answer


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def _form(fields: dict[str, Any]) -> dict[str, Any]:
    """A multipart body; the recorded size stands for the content, as equal as that was."""
    files: list[tuple[str, Any]] = []
    for name, value in fields.items():
        if isinstance(value, dict):
            # The recorder's client escaped the slash of a file name.
            content = b"not an image at all"[: value["bytes"]] if "not_an" in value["filename"] else _png(value["bytes"])
            files.append((name, (value["filename"].replace("/", "%2F"), content, value["content_type"])))
        else:
            files.append((name, (None, value)))
    return {"files": files}


def _png(shade: int) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (40, 30), (shade, 0, 0)).save(out, format="PNG")
    return out.getvalue()


def _small(value: Any) -> Any:
    """The same exchange about small images: where nodes are slowed down, size only costs time."""
    if isinstance(value, list):
        return [_small(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_type") == "EmptyImage" and value["inputs"]["width"] >= 1024:
        side = value["inputs"]["width"] // 16
        return {**value, "inputs": {**value["inputs"], "width": side, "height": side}}
    return {key: _small(inner) for key, inner in value.items()}


def _models(root: Path) -> Path:
    """A models directory like the recorded server's."""
    for folder, name in (("upscale_models", "tiny_compact_2x.safetensors"), ("diffusion_models", "tiny_random_unet.safetensors")):
        (root / "models" / folder).mkdir(parents=True)
        if folder == "upscale_models":
            shutil.copy(shared("tiny-models", name), root / "models" / folder / name)
        else:
            (root / "models" / folder / name).touch()
    return root


# transcript -> (engine options, whether statuses arrive in a fixed order)
REPLAYED = {
    "02_success_cached_partial": ((), True),
    "03_validation_failures": ((), False),
    "04_execution_errors": ((), True),
    "05_interrupt": (SLOW, False),
    "06_queue_order_delete_clear": (SLOWER, False),
    "08_prompt_without_client_id": (SLOW, True),
    "11_prompt_id_and_extra_data": (SLOW, False),
    "12_upload_image": ((), True),
    "13_free_and_history_maintenance": ((), True),
    "14_output_shapes": ((), True),
    "15_cache_traps": ((), True),
}


@pytest.mark.parametrize("name", REPLAYED)
def test_the_engine_repeats_the_recorded_exchange(name: str, tmp_path: Path) -> None:
    options, statuses = REPLAYED[name]
    lines = _small(load(name)) if options else load(name)
    if name.startswith("12"):
        for index, image in LOADED_IMAGES.items():
            lines[index]["request_json"]["prompt"]["10"]["inputs"]["image"] = image
    with engine(tmp_path, *options) as process:
        if name.startswith("08"):
            # The recorded server had this image in its cache from the prompt before.
            first = lines[3]["request_json"]["prompt"]["1"]
            process.result(process.post({"1": first, "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}))
        replay = Replay(process, lines)
        replay.play()
        replay.check(statuses=statuses)


@pytest.mark.parametrize("name", ["10_progress_previews_legacy", "10_progress_previews_metadata"])
def test_a_node_that_reports_progress_repeats_the_recorded_steps(name: str, tmp_path: Path) -> None:
    lines = load(name)
    sampled = next(line["response_json"]["prompt_id"] for line in lines if _queued(line))
    # The sampler's prompt needs weights that are not shared; the upscaler's does not.
    with engine(_models(tmp_path)) as process:
        shared_part = [line for line in lines if sampled not in str(line) and not (line.get("type") == "binary" and "base64" not in line)]
        replay = Replay(process, shared_part)
        replay.play()
        replay.check(statuses=False)


def test_read_only_endpoints_have_the_recorded_status_type_and_shape(tmp_path: Path) -> None:
    lines = [line for line in load("01_read_only_endpoints") if line["kind"] == "http"]
    with engine(_models(tmp_path)) as process:
        for line in lines:
            headers = {"origin": "http://elsewhere.example"} if line["status"] == 403 else {}
            answer = process.http.request(line["method"], line["path"], headers=headers)
            assert (answer.status_code, answer.headers.get("content-type", "")) == (line["status"], line["content_type"]), line["path"]
            if "response_json" in line:
                assert _shape(answer.json()) == _shape(line["response_json"]), line["path"]


# What the engine has no equivalent of, or says more about.
OWN_FACTS = {"required_frontend_version", "required_templates_version", "pytorch_version", "engine", "machine"}


def _shape(value: Any, key: str = "") -> Any:
    """Keys and types; plain lists of names are compared as they are, paths are not."""
    if isinstance(value, list) and value and all(isinstance(inner, str) and "/" in inner for inner in value):
        # The web client's own scripts have no counterpart here.
        return [] if str(value[0]).startswith("/extensions/") else "paths"
    if isinstance(value, dict):
        return {k: _shape(v, k) for k, v in value.items() if k not in OWN_FACTS | {"tooltip", "description"}}
    if isinstance(value, list) and key not in ("argv", "folders"):
        # Without its tooltip an input may have no options left at all.
        kept = value[:1] if len(value) == 2 and isinstance(value[1], dict) and set(value[1]) <= {"tooltip"} else value
        return [_shape(inner) for inner in kept]
    return type(value).__name__ if isinstance(value, float | int) or key in ("modified", "created", "os", "python_version") else key or str(value)


def test_an_anonymous_socket_gets_an_id_from_the_engine(tmp_path: Path) -> None:
    with engine(tmp_path) as process:
        socket = process.socket("/ws")
        wait_until(lambda: socket.messages, "the first status")
        assert re.fullmatch(r"[0-9a-f]{32}", socket.messages[0]["data"]["sid"])


def test_a_reconnected_client_gets_the_current_node_and_a_late_close_silences_it(tmp_path: Path) -> None:
    with engine(tmp_path, "--fault", "slow=0.05", "--allow-faults") as process:
        first = process.socket("/ws?clientId=client-a")
        prompt_id = process.post(_small(workflow("20_slow_chain")), client_id="client-a")
        wait_until(lambda: len(first.of_type("executing")) >= 3, "three nodes")
        first.close()
        second = process.socket("/ws?clientId=client-a")
        wait_until(lambda: len(second.messages) >= 3, "messages on the second socket")
        assert second.messages[0]["data"]["sid"] == "client-a"
        assert second.messages[1]["type"] == "executing"
        assert list(second.messages[1]["data"]) == ["node"]
        third = process.socket("/ws?clientId=client-a")
        wait_until(lambda: len(third.of_type("executing")) >= 2, "messages on the third socket")
        heard_by_second = len(second.messages)
        second.close()
        wait_until(lambda: second.closed, "the second socket to close")
        wait_until(lambda: _is_quiet(third), "the third socket to fall silent")
        heard_by_third = len(third.messages)
        process.http.post("/_fault", json={"slow": None})
        assert process.result(prompt_id)["status"]["status_str"] == "success"
        assert (len(second.messages), len(third.messages), third.closed) == (heard_by_second, heard_by_third, False)


def _is_quiet(socket: Socket) -> bool:
    """Whether two more nodes ran without a word on this socket."""
    before = len(socket.messages)
    time.sleep(0.15)
    return len(socket.messages) == before


def test_a_killed_engine_forgets_its_queue_and_keeps_its_files(tmp_path: Path) -> None:
    saved = workflow("01_scale_save")
    with engine(tmp_path, "--fault", "slow=0.05") as process:
        process.result(process.post(saved))
        running = process.post(_small(workflow("20_slow_chain")))
        waiting = process.post(saved)
        wait_until(lambda: process.http.get("/queue").json()["queue_running"], "a running prompt")
        process.process.kill()
        process.process.wait()
        with pytest.raises(httpx.TransportError):
            process.http.get("/queue")
    with engine(tmp_path) as process:
        assert process.http.get("/queue").json() == {"queue_running": [], "queue_pending": []}
        assert process.http.get("/history").json() == {}
        assert process.http.get(f"/history/{running}").json() == {}
        assert process.http.get(f"/api/jobs/{waiting}").status_code == 404
        assert process.http.get("/view?filename=out_00001_.png&subfolder=scale&type=output").status_code == 200
        entry = process.result(process.post(saved))
        assert entry["prompt"][0] == 0
        assert entry["outputs"]["3"]["images"][0]["filename"] == "out_00002_.png"
