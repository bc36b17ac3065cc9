"""A real agent process and a real embedded engine, one job after another."""

import base64
import io
import itertools
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import httpx
import psutil
import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("shared_agent")

counter = itertools.count(1)


def scale(prefix="scale/out", color=None, **save):
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": color or next(counter)}},
        "2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "upscale_method": "nearest-exact", "width": 128, "height": 96, "crop": "disabled"}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": prefix, **save}, "_meta": {"title": "Save result"}},
    }


def chain(steps=60):
    """Short nodes in a row, so that an interrupt acts soon."""
    graph = scale(prefix="chain")
    for n in range(10, steps + 10):
        graph[str(n)] = {"class_type": "ImageInvert", "inputs": {"image": [str(n - 1) if n > 10 else "2", 0]}}
    graph["3"]["inputs"]["images"] = [str(steps + 9), 0]
    return graph


@pytest.fixture
def slow(shared_agent, shared_plane, wait_until):
    """Every node sleeps a moment: time passes, processors rest."""
    wait_until(lambda: shared_plane.claims, what="first claim")
    set_fault(shared_agent, slow=0.05)
    yield chain
    set_fault(shared_agent, slow=None)


def png(width=40, height=30):
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 50).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def test_registration_tells_what_the_worker_is(shared_plane, wait_until):
    wait_until(lambda: shared_plane.claims, what="first claim")
    [said] = shared_plane.registrations
    found = said["fingerprint"]
    assert said["protocol"] == 1 and said["instance"] and said["name"] and said["pid"]
    assert found["engine"] == "embedded" and found["comfyui_version"] and found["ram_bytes"] > 0
    assert "SaveImage" in found["node_classes"] and len(found["node_classes_sha256"]) == 64 and "numpy" in found["packages"]


def test_the_engine_does_not_see_the_agents_secrets(shared_agent, shared_plane, wait_until):
    wait_until(lambda: shared_plane.claims, what="first claim")
    engine = engine_of(shared_agent)
    assert engine.environ() and not [name for name in engine.environ() if name.startswith("COMFYPLANE_")]


def test_readiness_is_a_warm_up_job_that_passed(shared_agent, shared_plane, wait_until):
    wait_until(lambda: shared_plane.claims, what="first claim")
    events = [line["event"] for line in shared_agent.log()]
    assert "engine ready" in events
    assert shared_plane.heartbeats[0]["state"] in ("starting", "idle")


def test_a_job_is_run_measured_stored_and_completed(shared_plane):
    job = shared_plane.submit(scale())
    done = shared_plane.completion(job)
    assert (done["outcome"], done["error"]) == ("succeeded", None)
    [row] = done["outputs"]
    assert (row["name"], row["kind"], row["node"], row["media_type"]) == ("out_00001_.png", "image", "3", "image/png")
    assert (row["measurements"]["width"], row["measurements"]["height"], row["measurements"]["blank"]) == (128, 96, True)
    headers, data = shared_plane.output(job)
    assert headers["name"] == "out_00001_.png" and headers["node"] == "3" and data.startswith(b"\x89PNG")
    assert {n["class_type"] for n in done["nodes"]} == {"EmptyImage", "ImageScale", "SaveImage"}
    assert set(done["timings"]) == {"models_s", "inputs_s", "submit_s", "queue_s", "load_s", "run_s", "upload_s", "busy_s"}
    assert done["warm"] == ["k1"]


def test_filename_prefix_is_made_unique_so_the_cache_never_returns_an_old_file(shared_plane):
    first, second = (shared_plane.submit(scale(color=4242)) for _ in range(2))
    assert shared_plane.completion(first)["outcome"] == "succeeded"
    done = shared_plane.completion(second)
    assert [row["name"] for row in done["outputs"]] == ["out_00001_.png"]
    assert {n["node"]: n["cached"] for n in done["nodes"]} == {"1": True, "2": True, "3": False}


def test_a_cached_preview_is_found_though_no_node_ran(shared_plane):
    graph = scale(color=777)
    graph["3"] = {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}
    for _ in range(2):
        done = shared_plane.completion(shared_plane.submit(graph))
        assert done["outcome"] == "succeeded" and len(done["outputs"]) == 1
    assert all(n["cached"] for n in done["nodes"])


def test_input_files_are_checked_and_placed(shared_plane):
    data = png()
    graph = {
        "10": {"class_type": "LoadImage", "inputs": {"image": "job-photo.png"}},
        "11": {"class_type": "SaveImage", "inputs": {"images": ["10", 0], "filename_prefix": "copy"}},
        "13": {"class_type": "GetImageSize", "inputs": {"image": ["10", 0]}},
        "14": {"class_type": "PreviewAny", "inputs": {"source": ["13", 0]}},
    }
    file = {"sha256": shared_plane.add_file(data), "name": "job-photo.png", "size_bytes": len(data), "media_type": "image/png", "node": "10", "input": "image"}
    done = shared_plane.completion(shared_plane.submit(graph, files=[file]))
    assert [(r["kind"], r["node"]) for r in done["outputs"]] == [("image", "11"), ("text", "14")]
    assert done["outputs"][0]["measurements"]["width"] == 40


def test_an_input_with_the_wrong_hash_fails_the_job_and_nothing_runs(shared_plane):
    wrong = "0" * 64
    shared_plane.files[wrong] = b"not those bytes"
    file = {"sha256": wrong, "name": "x.png", "size_bytes": 15, "media_type": "image/png", "node": "1", "input": "image"}
    done = shared_plane.completion(shared_plane.submit(scale(), files=[file]))
    assert (done["error"]["code"], done["error"]["class"], done["nodes"]) == ("input_corrupt", "platform", [])


def test_a_broken_picture_is_the_customers_input(shared_plane):
    data = b"\x89PNG\r\n\x1a\nnot really"
    graph = {
        "10": {"class_type": "LoadImage", "inputs": {"image": "bad.png"}},
        "11": {"class_type": "SaveImage", "inputs": {"images": ["10", 0], "filename_prefix": "copy"}},
    }
    file = {"sha256": shared_plane.add_file(data), "name": "bad.png", "size_bytes": len(data), "media_type": "image/png", "node": "10", "input": "image"}
    done = shared_plane.completion(shared_plane.submit(graph, files=[file]))
    assert done["outcome"] == "failed" and done["error"]["class"] == "customer_input"


def test_a_200_with_node_errors_fails_and_names_the_outputs_that_cannot_run(shared_plane):
    graph = scale()
    graph["4"] = {"class_type": "ImageScale", "inputs": {**graph["2"]["inputs"], "upscale_method": "no-such-method"}}
    graph["5"] = {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "q"}}
    error = shared_plane.completion(shared_plane.submit(graph))["error"]
    assert (error["code"], error["class"], error["details"]["outputs"]) == ("node_errors", "workflow", ["5"])
    assert "5" in error["message"] and "4" in error["details"]["node_errors"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"3": {"class_type": "NoSuchNode", "inputs": {}}}, "node_class_missing"),
        ({"2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0]}}}, "invalid_workflow"),
    ],
)
def test_a_refused_prompt_is_the_workflows_fault(shared_plane, change, code):
    error = shared_plane.completion(shared_plane.submit({**scale(), **change}))["error"]
    assert (error["code"], error["class"]) == (code, "workflow")


def test_an_exception_in_a_node_names_the_node(shared_plane):
    regex = {"string": "abc", "regex_pattern": "(unclosed", "replace": "x", "case_insensitive": False, "multiline": False, "dotall": False, "count": 0}
    graph = {"1": {"class_type": "RegexReplace", "inputs": regex}, "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}
    error = shared_plane.completion(shared_plane.submit(graph))["error"]
    assert (error["code"], error["class"]) == ("node_failed", "workflow")
    assert (error["details"]["node"], error["details"]["class_type"], error["details"]["exception_type"]) == ("1", "RegexReplace", "re.error")


def test_out_of_memory_is_a_matter_of_capacity_and_the_worker_goes_on(shared_plane):
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16384, "height": 16384, "batch_size": 4096, "color": 0}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "oom"}},
    }
    error = shared_plane.completion(shared_plane.submit(graph))["error"]
    assert (error["code"], error["class"]) == ("out_of_memory", "capacity")
    done = shared_plane.completion(shared_plane.submit(scale()))
    assert done["outcome"] == "succeeded" and done["warm"] == ["k1"]


def test_progress_rises_and_heartbeats_go_on_while_a_job_runs(shared_plane, slow):
    job = shared_plane.submit(slow(steps=30), weights={str(n): 0.05 for n in range(10, 40)})
    assert shared_plane.completion(job, timeout_s=30)["outcome"] == "succeeded"
    seen = shared_plane.progress_of(job)
    assert seen == sorted(seen) and len(seen) >= 2
    assert all(p < 1 for p in seen[:-1])
    titles = {r["node_title"] for b in shared_plane.heartbeats for r in b["jobs"] if r["job"] == job}
    assert "ImageInvert" in titles


def test_a_cancel_interrupts_the_job_and_is_reported(shared_plane, wait_until, slow):
    job = shared_plane.submit(slow())
    wait_until(lambda: shared_plane.running(job), what="running")
    shared_plane.verdicts[job] = "cancel"
    done = shared_plane.completion(job)
    assert (done["outcome"], done["error"], done["outputs"]) == ("canceled", None, [])
    assert shared_plane.completion(shared_plane.submit(scale()))["outcome"] == "succeeded"


def test_a_lost_job_is_dropped_without_a_word(shared_plane, shared_agent, wait_until, slow):
    job = shared_plane.submit(slow())
    wait_until(lambda: shared_plane.running(job), what="running")
    shared_plane.verdicts[job] = "lost"
    wait_until(lambda: any(e["job"] == job for e in shared_agent.events("job dropped")), what="dropped")
    assert (job, 1) not in shared_plane.completions
    assert shared_plane.completion(shared_plane.submit(scale()))["outcome"] == "succeeded"


def engine_of(agent):
    [engine] = psutil.Process(agent.process.pid).children()
    return engine


def set_fault(agent, **faults):
    answer = httpx.post(agent.events("engine answers")[-1]["url"] + "/_fault", json=faults)
    assert answer.status_code == 200, answer.text


def test_a_killed_engine_fails_the_job_as_platform_and_comes_back_warm(shared_plane, shared_agent, wait_until, slow):
    warm_ups = len(shared_agent.events("engine ready"))
    job = shared_plane.submit(slow())
    wait_until(lambda: shared_plane.running(job), what="running")
    engine_of(shared_agent).kill()
    error = shared_plane.completion(job)["error"]
    assert (error["code"], error["class"]) == ("engine_crashed", "platform")
    assert shared_plane.completion(shared_plane.submit(scale()))["outcome"] == "succeeded"
    assert len(shared_agent.events("engine ready")) == warm_ups + 1, "a warm-up passed again before the next job"


def test_an_engine_that_dies_while_idle_is_restarted_before_the_next_job(shared_plane, shared_agent, wait_until):
    deaths = len(shared_agent.events("engine died"))
    engine_of(shared_agent).kill()
    wait_until(lambda: len(shared_agent.events("engine died")) > deaths, what="death noticed")
    assert shared_plane.completion(shared_plane.submit(scale()))["outcome"] == "succeeded"


def test_a_hung_engine_is_interrupted_then_restarted_and_the_job_fails_as_stalled(shared_plane, shared_agent, wait_until):
    set_fault(shared_agent, hang=True)
    error = shared_plane.completion(shared_plane.submit(scale(), stall_s=0.3))["error"]
    assert (error["code"], error["class"]) == ("engine_stalled", "platform")
    wait_until(lambda: shared_agent.events("condemning engine"), what="restart")
    assert shared_plane.completion(shared_plane.submit(scale()))["outcome"] == "succeeded"


def test_a_cancel_that_the_engine_does_not_obey_still_ends(shared_plane, shared_agent, wait_until):
    condemned = len(shared_agent.events("condemning engine"))
    set_fault(shared_agent, hang=True)
    job = shared_plane.submit(scale())
    wait_until(lambda: any(r["job"] == job for b in shared_plane.heartbeats for r in b["jobs"]))
    shared_plane.verdicts[job] = "cancel"
    assert shared_plane.completion(job)["outcome"] == "canceled"
    wait_until(lambda: len(shared_agent.events("condemning engine")) > condemned, what="restart")
    assert shared_plane.completion(shared_plane.submit(scale()))["outcome"] == "succeeded"


def test_a_dropped_socket_does_not_lose_the_job(shared_plane, shared_agent):
    set_fault(shared_agent, drop_socket=3)
    try:
        for _ in range(2):
            assert shared_plane.completion(shared_plane.submit(scale()))["outcome"] == "succeeded"
    finally:
        set_fault(shared_agent, drop_socket=None)


def test_a_run_over_its_time_limit_is_interrupted(shared_plane, slow):
    done = shared_plane.completion(shared_plane.submit(slow(), timeout_s=0.3))
    assert (done["error"]["code"], done["error"]["class"]) == ("run_timeout", "workflow")


@pytest.mark.parametrize("seconds", [-5.0, 0.4])
def test_a_job_past_its_deadline_fails_as_capacity(shared_plane, seconds, slow):
    deadline = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    done = shared_plane.completion(shared_plane.submit(slow(), deadline_at=deadline))
    assert (done["error"]["code"], done["error"]["class"]) == ("deadline_passed", "capacity")


def test_an_output_over_the_limit_fails_the_job(shared_plane):
    done = shared_plane.completion(shared_plane.submit(scale(), max_output_bytes=50))
    assert (done["error"]["code"], done["error"]["class"], done["outputs"]) == ("output_too_large", "workflow", [])


def test_an_output_that_cannot_be_stored_fails_the_job_as_platform(shared_plane):
    shared_plane.fail_next("output", 400)
    done = shared_plane.completion(shared_plane.submit(scale()))
    assert (done["error"]["code"], done["error"]["class"]) == ("output_not_stored", "platform")


def test_an_output_the_control_plane_lost_makes_the_agent_complete_as_failed(shared_plane):
    graph = scale()
    job = shared_plane.submit(graph)
    shared_plane.completion(job)
    shared_plane.fail_next("complete", 422)
    again = shared_plane.completion(shared_plane.submit(scale()))
    assert again["outcome"] == "failed" and again["error"]["class"] == "platform"


def test_transfers_and_completions_are_repeated_through_errors(shared_plane):
    shared_plane.fail_next("output", 503, 500)
    shared_plane.fail_next("complete", 502, 503)
    shared_plane.fail_next("claim", 500)
    assert shared_plane.completion(shared_plane.submit(scale()))["outcome"] == "succeeded"


@pytest.mark.parametrize("call", ["output", "complete"])
def test_a_stale_attempt_is_dropped(shared_plane, shared_agent, wait_until, call):
    shared_plane.fail_next(call, 409)
    job = shared_plane.submit(scale())
    wait_until(lambda: any(line.get("job") == job and "stale" in line["event"] for line in shared_agent.log()), what="stale")
    assert (job, 1) not in shared_plane.completions
    assert shared_plane.completion(shared_plane.submit(scale()))["outcome"] == "succeeded"


def test_a_claimed_job_reaches_the_engine_within_milliseconds(shared_plane, shared_agent):
    jobs = [shared_plane.submit(scale()) for _ in range(3)]
    for job in jobs:
        shared_plane.completion(job)
    delays = {e["job"]: e["after_s"] for e in shared_agent.events("submitting")}
    assert min(delays[job] for job in jobs) < 0.02


def test_log_lines_are_json_with_the_job_and_the_request(shared_plane, shared_agent, wait_until):
    job = shared_plane.submit(scale(), request_id="req-77")
    shared_plane.completion(job)
    [line] = wait_until(lambda: [e for e in shared_agent.events("completed") if e["job"] == job])
    assert (line["attempt"], line["request_id"], line["level"]) == (1, "req-77", "info")


def test_a_serverless_payload_runs_and_prints_its_output():
    graph = {
        "10": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
        "11": {"class_type": "ImageInvert", "inputs": {"image": ["10", 0]}},
        "12": {"class_type": "SaveImage", "inputs": {"images": ["11", 0], "filename_prefix": "x"}},
    }
    payload = {"input": {"workflow": graph, "images": [{"name": "photo.png", "image": "data:image/png;base64," + base64.b64encode(png()).decode()}]}}
    done = subprocess.run(
        [sys.executable, "-m", "fleet.agent", "--serverless", "-"], input=json.dumps(payload), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    [image] = json.loads(done.stdout)["output"]["images"]
    assert (image["filename"], image["type"]) == ("x_00001_.png", "base64")
    assert base64.b64decode(image["data"]).startswith(b"\x89PNG")
