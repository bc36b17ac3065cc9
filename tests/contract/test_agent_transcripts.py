"""The agent against what a real ComfyUI said: every trap it is known for, from recordings."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import JSONResponse

from fleet.agent import outputs, prefixes, verdicts
from fleet.agent.classify import no_outputs
from fleet.agent.comfy import Comfy, EngineUnreachable
from fleet.agent.config import Patience
from fleet.agent.drive import Drive
from fleet.agent.events import EventSocket
from fleet.agent.order import Classes, Conclusion, Order
from tests.contract.replay_server import Replay, of_prompt, recorded_history, recorded_messages, recorded_prompts
from tests.contract.transcripts import load

QUICK = Patience(poll_s=0.1, quiet_socket_s=5.0, interrupt_grace_s=2.0, gone_s=0.4)
OUTPUT_CLASSES = frozenset({"SaveImage", "PreviewImage", "PreviewAny", "SaveAnimatedWEBP", "SaveAudio", "SaveLatent"})


class Seen:
    """What the agent concluded, and what it saw on the way."""

    def __init__(self, conclusion: Conclusion, drive: Drive, progress: list[float]) -> None:
        self.conclusion, self.drive, self.progress = conclusion, drive, progress
        found = outputs.collect(outputs.merge(conclusion.history, conclusion.executed), frames=conclusion.frames)
        self.files = [(f.node, f.filename or (f.data or b"").decode("latin-1")) for f in found.outputs]

    @property
    def code(self) -> str | None:
        return self.conclusion.failure.code if self.conclusion.failure else None


def drive(replay: Replay, graph: dict[str, Any], *, patience: Patience = QUICK, stop_at_interrupt: str | None = None, **order: Any) -> Seen:
    async def go() -> Seen:
        comfy, progress = Comfy(replay.url), []
        socket = EventSocket(comfy.socket_url)
        run = Drive(
            comfy,
            socket,
            Order(graph, **order),
            patience=patience,
            classes=Classes(outputs=OUTPUT_CLASSES),
            on_progress=lambda fraction, node: progress.append(fraction),
        )

        async def stop_when_held() -> None:
            while not progress:  # noqa: ASYNC110 - the agent has no event for it
                await asyncio.sleep(0.002)
            run.stop(str(stop_at_interrupt))

        stopper = asyncio.create_task(stop_when_held()) if stop_at_interrupt else None
        try:
            return Seen(await asyncio.wait_for(run.conclude(), 10), run, progress)
        finally:
            if stopper is not None:
                stopper.cancel()
            await socket.close()
            await comfy.close()

    with replay:
        return asyncio.run(go())


def replayed(name: str, position: int, **options: Any) -> tuple[Seen, Replay]:
    lines = load(name)
    replay = of_prompt(lines, position, **{k: v for k, v in options.items() if k not in ("order", "stop")})
    graph = recorded_prompts(lines)[position]["request_json"]["prompt"]
    return drive(replay, graph, stop_at_interrupt=options.get("stop"), **options.get("order", {})), replay


SUCCESSES = [
    ("02_success_cached_partial", 0, [("3", "out_00001_.png")]),
    ("02_success_cached_partial", 1, [("3", "out_00001_.png")]),
    ("02_success_cached_partial", 2, [("3", "other_00001_.png")]),
    ("02_success_cached_partial", 3, [("c", "renamed_00001_.png")]),
    ("02_success_cached_partial", 4, [("6", "blend_00001_.png")]),
    ("10_progress_previews_metadata", 0, [("7", "sampled_00001_.png")]),
    ("10_progress_previews_legacy", 0, [("7", "sampled_00002_.png")]),
    ("14_output_shapes", 0, [("6", "mask_00002_.png")]),
    ("14_output_shapes", 1, [("12", "inverted_00004_.png"), ("14", "40")]),
    ("14_output_shapes", 2, [("5", "HELLO, WORLD #")]),
    ("14_output_shapes", 3, [("3", "anim_00002_.webp")]),
    ("14_output_shapes", 4, [("3", "tone_00002_.flac")]),
    ("14_output_shapes", 5, [("3", f"batch_0000{n}_.png") for n in (5, 6, 7, 8)]),
    ("14_output_shapes", 6, [("2", "z_00002_.latent")]),
]


@pytest.mark.parametrize(("name", "position", "files"), SUCCESSES)
def test_every_recorded_success_is_concluded_with_all_its_outputs(name, position, files):
    seen, _ = replayed(name, position)
    assert (seen.code, seen.conclusion.stopped) == (None, None)
    assert seen.files == files
    assert seen.progress == sorted(seen.progress) and all(0 <= p < 1 for p in seen.progress)
    assert seen.progress[-1] > 0.9


def test_cached_nodes_are_told_apart_and_count_as_done():
    seen, _ = replayed("02_success_cached_partial", 2)
    assert {r["node"]: r["cached"] for r in seen.drive.clock.rows()} == {"1": True, "2": True, "3": False}
    assert seen.progress[0] > 0.6


@pytest.mark.parametrize("name", ["10_progress_previews_metadata", "10_progress_previews_legacy"])
def test_steps_inside_a_node_move_the_progress(name):
    seen, _ = replayed(name, 0)
    assert len(set(seen.progress)) > 9, "six sampler steps and seven nodes"
    assert seen.conclusion.frames == [], "previews are not outputs"


REFUSALS = [
    ("required_input_missing", "2", "height"),
    None,
    ("exception_during_validation", "2", None),
    ("return_type_mismatch", "2", "images"),
    ("value_not_in_list", "1", "ckpt_name"),
    ("value_smaller_than_min", "1", "width"),
    ("invalid_input_type", "1", "width"),
    None,
    ("bad_linked_input", "2", "images"),
    None,
    ("value_not_in_list", "1", "sampler_name"),
]
CODES = {1: "node_class_missing", 7: "no_output_node"}


@pytest.mark.parametrize("position", range(11))
def test_every_recorded_refusal_is_the_workflows_and_names_node_and_input(position):
    seen, _ = replayed("03_validation_failures", position)
    failure = seen.conclusion.failure
    assert failure is not None and failure.failure_class == "workflow"
    assert failure.code == CODES.get(position, "invalid_workflow")
    if REFUSALS[position] is not None:
        kind, node, name = REFUSALS[position]
        error = failure.details["node_errors"][node]["errors"][0]
        assert (error["type"], error["input"]) == (kind, name)
        assert f"node {node}" in failure.message


def test_a_200_from_prompt_may_still_carry_node_errors():
    lines = load("03_validation_failures")
    [position] = [n for n, line in enumerate(recorded_prompts(lines)) if line["status"] == 200 and line["response_json"]["node_errors"]][:1]
    seen, replay = replayed("03_validation_failures", position)
    failure = seen.conclusion.failure
    assert failure is not None and (failure.code, failure.failure_class) == ("node_errors", "workflow")
    assert failure.details["outputs"] == ["4"] and "4" in failure.message
    assert replay.interrupts == [{"prompt_id": replay.prompt_id}], "the half that runs is not let run"


@pytest.mark.parametrize(
    ("position", "code", "failure_class", "class_type"),
    [
        (0, "node_failed", "workflow", "RegexReplace"),
        (1, "out_of_memory", "capacity", "EmptyImage"),
    ],
)
def test_recorded_execution_errors_have_a_class_and_name_the_node(position, code, failure_class, class_type):
    seen, _ = replayed("04_execution_errors", position)
    failure = seen.conclusion.failure
    assert failure is not None and (failure.code, failure.failure_class) == (code, failure_class)
    assert (failure.details["node"], failure.details["class_type"]) == ("1", class_type)
    assert failure.details["traceback"]


def test_an_execution_error_is_found_in_history_when_the_socket_is_silent():
    lines = load("04_execution_errors")
    seen = drive(of_prompt(lines, 0, sessions=[[]]), recorded_prompts(lines)[0]["request_json"]["prompt"])
    assert seen.code == "node_failed"


def test_an_interrupt_acts_between_nodes_only_and_names_its_prompt():
    lines = load("05_interrupt")
    messages = next(iter(recorded_messages(lines, recorded_prompts(lines)[0]["response_json"]["prompt_id"]).values()))
    held = next(n for n, m in enumerate(messages) if m["type"] == "executing" and m["data"]["node"] == "10") + 1
    seen, replay = replayed("05_interrupt", 0, until_interrupt=held, stop="cancel")
    assert (seen.conclusion.stopped, seen.code, seen.conclusion.stuck) == ("cancel", None, False)
    assert replay.interrupts == [{"prompt_id": replay.prompt_id}]
    after = [m["data"]["node"] for m in messages[held:] if m["type"] == "executing" and m["data"]["node"]]
    assert after == ["11"], "the running node ended first"


def test_an_interrupt_that_nobody_of_us_sent_is_the_platforms_fault():
    seen, replay = replayed("05_interrupt", 0)
    failure = seen.conclusion.failure
    assert failure is not None and (failure.code, failure.failure_class) == ("run_interrupted", "platform")
    assert replay.interrupts == []


def test_a_broken_socket_is_reopened_with_the_same_client_id_and_the_job_is_not_lost():
    lines = load("07_ws_disconnect_reconnect")
    prompt_id = recorded_prompts(lines)[0]["response_json"]["prompt_id"]
    sessions = list(recorded_messages(lines, prompt_id).values())[:2]
    seen, replay = replayed("07_ws_disconnect_reconnect", 0, sessions=sessions)
    assert seen.code is None and seen.files
    assert len(replay.client_ids) >= 2 and len(set(replay.client_ids)) == 1
    assert len(replay.prompts) == 1, "the prompt is not sent again"
    # The events of the gap are not repeated, but the states of all nodes are.
    assert seen.progress == sorted(seen.progress)


def test_a_socket_that_the_server_forgot_does_not_hide_the_end():
    """The recording's third socket stays open and silent: the end is in history only."""
    lines = load("07_ws_disconnect_reconnect")
    prompt_id = recorded_prompts(lines)[0]["response_json"]["prompt_id"]
    sessions = list(recorded_messages(lines, prompt_id).values())
    assert len(sessions) == 3 and sessions[-1][-1]["data"].get("node") is not None
    seen, replay = replayed("07_ws_disconnect_reconnect", 0, sessions=sessions, late_history_s=0.2)
    assert seen.code is None and seen.files
    assert replay.most_open == 1, "the old socket is closed before the new one opens"


@pytest.mark.parametrize("name", ["09_server_dies_SIGKILL", "09_server_dies_SIGINT"])
def test_a_server_that_dies_mid_run_fails_the_job_as_platform(name):
    seen, _ = replayed(name, 1, dies=True)
    failure = seen.conclusion.failure
    assert failure is not None and (failure.code, failure.failure_class) == ("engine_crashed", "platform")


@pytest.mark.parametrize("name", ["09_server_dies_SIGKILL", "09_server_dies_SIGINT"])
def test_a_killed_server_forgets_its_queue(name):
    lines = load(name)
    restarted = [line["response_json"] for line in lines if line["kind"] == "http" and line["path"] == "/queue" and line.get("status") == 200]
    assert restarted[-1] == {"queue_running": [], "queue_pending": []}
    seen, replay = replayed(name, 1, forgets=True)
    failure = seen.conclusion.failure
    assert failure is not None and (failure.code, failure.failure_class) == ("engine_crashed", "platform")
    assert "forgot" in failure.message and len(replay.prompts) == 1


def test_history_is_complete_only_after_executing_null():
    lines = load("02_success_cached_partial")
    messages = recorded_messages(lines, recorded_prompts(lines)[0]["response_json"]["prompt_id"])["client-a"]
    assert [m["type"] for m in messages[-2:]] == ["execution_success", "executing"]
    seen, _ = replayed("02_success_cached_partial", 0, late_history_s=0.25)
    assert seen.code is None and seen.files == [("3", "out_00001_.png")]


def test_success_without_history_is_told_by_the_socket_when_somebody_cleared_it(monkeypatch):
    monkeypatch.setattr("fleet.agent.drive.LATE_HISTORY_S", 0.1)
    lines = load("02_success_cached_partial")
    replay = of_prompt(lines, 0)
    replay.history, replay.forgets = None, False
    original = replay._queue

    async def empty(request):
        answer = await original(request)
        if replay.ended_at is None:
            return answer
        return JSONResponse({"queue_running": [], "queue_pending": []})

    replay._queue = empty
    seen = drive(replay, recorded_prompts(lines)[0]["request_json"]["prompt"])
    assert seen.code is None and seen.files == [("3", "out_00001_.png")]


def test_success_with_empty_outputs_happens_and_is_not_a_success():
    lines = load("15_cache_traps")
    seen = drive(of_prompt(lines, 1), recorded_prompts(lines)[1]["request_json"]["prompt"])
    assert seen.code is None and seen.files == []
    assert no_outputs(False).failure_class == "workflow"


def test_with_a_client_id_cached_outputs_are_there():
    seen, _ = replayed("15_cache_traps", 2)
    assert seen.files == [("3", "trap_00001_.png")]


def test_cached_outputs_missing_from_history_are_taken_from_the_executed_message():
    lines = load("02_success_cached_partial")
    replay = of_prompt(lines, 1)
    replay.history = {**(replay.history or {}), "outputs": {}}
    seen = drive(replay, recorded_prompts(lines)[1]["request_json"]["prompt"])
    assert seen.files == [("3", "out_00001_.png")]


def test_a_prefix_unique_to_the_job_makes_the_output_node_run():
    lines = load("15_cache_traps")
    entries = [recorded_history(lines, line["response_json"]["prompt_id"]) for line in recorded_prompts(lines)]
    cached = [dict(e["status"]["messages"][1][1])["nodes"] for e in entries[:5]]
    assert cached[3] == ["1", "2", "3"] and cached[4] == ["1", "2"]
    unique = entries[4]["outputs"]["3"]["images"][0]["subfolder"]
    assert outputs.collect(entries[4]["outputs"], unique=unique).outputs[0].name == "trap_00001_.png"


def test_a_prefix_that_leaves_the_output_directory_stays_an_error():
    seen, _ = replayed("15_cache_traps", 5)
    assert seen.code == "node_failed"
    graph = recorded_prompts(load("15_cache_traps"))[5]["request_json"]["prompt"]
    assert prefixes.make_unique(graph, "cpjob-x-1")["3"]["inputs"]["filename_prefix"] == "../../evil"


def test_a_client_id_is_always_sent_and_is_fresh_for_each_job():
    sent = set()
    for _ in range(3):
        _, replay = replayed("02_success_cached_partial", 0)
        [prompt] = replay.prompts
        assert prompt["client_id"] == replay.client_ids[0]
        sent.add((prompt["client_id"], prompt["prompt_id"]))
    assert len({c for c, _ in sent}) == len({p for _, p in sent}) == 3


def test_history_is_polled_slowly_as_the_truth_beside_the_websocket():
    """The recording without client_id: the socket says nothing of the prompt."""
    lines = load("02_success_cached_partial")
    seen = drive(of_prompt(lines, 0, sessions=[[]], late_history_s=0.3), recorded_prompts(lines)[0]["request_json"]["prompt"])
    assert seen.code is None and seen.files == [("3", "out_00001_.png")]


def test_a_silent_engine_is_stalled_and_interrupted():
    lines = load("05_interrupt")
    replay = of_prompt(lines, 0, until_interrupt=8)
    seen = drive(replay, recorded_prompts(lines)[0]["request_json"]["prompt"], stall_s=0.3)
    failure = seen.conclusion.failure
    assert failure is not None and (failure.code, failure.failure_class) == ("engine_stalled", "platform")
    assert replay.interrupts and not seen.conclusion.stuck


def test_an_engine_that_ignores_the_interrupt_is_called_stuck():
    lines = load("02_success_cached_partial")
    replay = of_prompt(lines, 0, sessions=[[]], late_history_s=60.0)
    patience = Patience(poll_s=0.1, interrupt_grace_s=0.2)
    seen = drive(replay, recorded_prompts(lines)[0]["request_json"]["prompt"], patience=patience, timeout_s=0.2)
    assert seen.code == "run_timeout" and seen.conclusion.stuck


@pytest.mark.parametrize("name", ["02_success_cached_partial", "04_execution_errors", "05_interrupt", "14_output_shapes", "15_cache_traps"])
def test_the_verdict_of_every_recorded_history_entry_agrees_with_its_status(name):
    lines = load(name)
    entries = [e for line in recorded_prompts(lines) if (e := recorded_history(lines, line["response_json"].get("prompt_id", "-")))]
    assert entries
    for entry in entries:
        verdict = verdicts.from_history(entry)
        assert verdict.success == (entry["status"]["status_str"] == "success")
        assert verdict.success or verdict.data


def test_images_that_only_the_socket_carries_are_outputs():
    """SaveImageWebsocket writes no file: its picture is a binary frame while the node runs."""
    graph = {"1": {"class_type": "EmptyImage", "inputs": {}}, "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}}
    own = {"prompt_id": "p"}
    session = [
        {"type": "execution_start", "data": own},
        {"type": "executing", "data": {"node": "1", **own}},
        (1).to_bytes(4, "big") + (1).to_bytes(4, "big") + b"a preview",
        {"type": "executing", "data": {"node": "2", **own}},
        (1).to_bytes(4, "big") + (2).to_bytes(4, "big") + b"the picture",
        {"type": "execution_success", "data": own},
        {"type": "executing", "data": {"node": None, **own}},
    ]
    entry = {"outputs": {}, "status": {"status_str": "success", "completed": True, "messages": []}}
    seen = drive(Replay({"prompt_id": "p", "node_errors": {}}, sessions=[session], history=entry), graph)
    assert (seen.code, seen.files) == (None, [("2", "the picture")])


def test_the_answer_of_an_accepted_prompt_may_get_lost_and_it_is_not_sent_twice(monkeypatch):
    lines = load("02_success_cached_partial")
    replay = of_prompt(lines, 0)
    submit = Comfy.submit
    calls = []

    async def lossy(self, body):
        calls.append(body)
        await submit(self, body)
        replay.history, replay.prompt_id = dict(replay.history), body["prompt_id"]
        raise EngineUnreachable("connection reset")

    monkeypatch.setattr(Comfy, "submit", lossy)
    seen = drive(replay, recorded_prompts(lines)[0]["request_json"]["prompt"])
    assert seen.code is None and len(calls) == 1
