"""The agent when things break: engine, control plane, signals. Each test has an agent of its own."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import fleet


def scale(color):
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": color}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
    }


SLOW = {"COMFYUI_ARGS": "--fault slow=0.05"}  # every node sleeps: time passes, processors rest


def slow(steps=60):
    graph = scale(1)
    for n in range(10, steps + 10):
        graph[str(n)] = {"class_type": "ImageInvert", "inputs": {"image": [str(n - 1) if n > 10 else "1", 0]}}
    graph["3"]["inputs"]["images"] = [str(steps + 9), 0]
    return graph


def engine_of(agent):
    [child] = psutil.Process(agent.process.pid).children()
    return child


def test_five_crashes_in_a_row_and_the_agent_leaves(plane, start_agent, tmp_path):
    agent = start_agent(plane, "--restart-s", "0.01", env={"COMFYUI_DIR": str(tmp_path), "COMFYUI_PYTHON": "false"})
    assert agent.exit_code(30) == 4
    assert len(agent.events("engine failed")) == 5


def test_sigterm_finishes_the_running_job_and_leaves(plane, start_agent, wait_until):
    agent = start_agent(plane, env=SLOW)
    job = plane.submit(slow(steps=20))
    other = plane.submit(scale(9))
    wait_until(lambda: plane.running(job), what="running")
    child = engine_of(agent)
    agent.signal()
    assert plane.completion(job)["outcome"] == "succeeded"
    assert agent.exit_code() == 0
    assert plane.leaves == [{"reason": "drained", "message": "All work is done."}]
    assert (other, 1) not in plane.completions
    assert any(b["state"] == "draining" for b in plane.heartbeats)
    wait_until(lambda: not child.is_running(), what="engine ended")


def test_a_second_sigterm_gives_the_job_back(plane, start_agent, wait_until):
    agent = start_agent(plane, env=SLOW)
    job = plane.submit(slow())
    wait_until(lambda: plane.running(job), what="running")
    agent.signal()
    wait_until(lambda: agent.events("draining"), what="draining")
    agent.signal()
    error = plane.completion(job)["error"]
    assert (error["code"], error["class"]) == ("worker_stopped", "platform")
    assert agent.exit_code() == 0 and len(plane.leaves) == 1


def test_sigterm_while_idle_leaves_at_once(plane, start_agent, wait_until):
    agent = start_agent(plane)
    wait_until(lambda: plane.claims)
    began = time.monotonic()
    agent.signal(signal.SIGINT)
    assert agent.exit_code() == 0
    assert time.monotonic() - began < 3


def test_a_drain_from_the_control_plane_ends_the_agent(plane, start_agent, wait_until):
    plane.fail_next("register", 503, 503)  # a control plane that is just coming up is waited for
    agent = start_agent(plane)
    wait_until(lambda: plane.claims)
    plane.drain = True
    plane.wake()
    assert agent.exit_code() == 0
    assert plane.leaves[0]["reason"] == "drained"


def test_a_retired_worker_leaves(plane, start_agent, wait_until):
    agent = start_agent(plane, env=SLOW)
    job = plane.submit(slow())
    wait_until(lambda: plane.running(job), what="running")
    plane.retired = True
    assert agent.exit_code() == 0
    assert (job, 1) not in plane.completions


def test_a_silent_control_plane_is_left_with_code_3(plane, start_agent, wait_until):
    plane.settings["silence_exit_s"] = 0.8
    agent = start_agent(plane, env=SLOW)
    job = plane.submit(slow())
    wait_until(lambda: plane.running(job), what="running")
    for call in ("heartbeat", "leave"):
        plane.fail_next(call, *[503] * 100)
    assert agent.exit_code() == 3
    assert (job, 1) not in plane.completions


def test_a_refused_registration_is_final_and_says_why(plane, start_agent):
    plane.fail_next("register", 401)
    agent = start_agent(plane)
    assert agent.exit_code() == 2
    assert agent.events("left")[0]["why"].startswith("Registration was refused")


def test_a_worker_short_of_disk_does_not_claim_and_says_so(plane, start_agent, wait_until):
    agent = start_agent(plane, "--min-free-disk-mib", str(10**9))
    wait_until(lambda: any(b["usage"]["short"] == ["disk"] for b in plane.heartbeats), what="short")
    beats = len(plane.heartbeats)
    wait_until(lambda: len(plane.heartbeats) > beats + 1)
    assert plane.claims == [] and len(agent.events("short of resources")) == 1


def test_an_existing_server_is_driven_and_left_alone(plane, start_agent, wait_until, tmp_path):
    engine = subprocess.Popen([sys.executable, "-m", "fleet.engine", "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        port = json.loads(engine.stdout.readline())["port"]
        agent = start_agent(plane, env={"COMFYUI_URL": f"http://127.0.0.1:{port}"})
        assert plane.completion(plane.submit(scale(10)))["outcome"] == "succeeded"
        assert plane.registrations[0]["fingerprint"]["node_classes"]
        agent.signal()
        assert agent.exit_code() == 0
        assert engine.poll() is None
    finally:
        engine.terminate()
        engine.wait(5)
        engine.stdout.close()


def test_a_killed_agent_leaves_no_engine_behind(plane, start_agent, wait_until):
    agent = start_agent(plane)
    wait_until(lambda: plane.claims)
    child = engine_of(agent)
    agent.process.kill()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, what="engine gone")


@pytest.mark.parametrize("flags", [["--help"], []])
def test_the_command_line_explains_itself(flags):
    clean = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-m", "fleet.agent", *flags], capture_output=True, text=True, env=clean, timeout=20, check=False)
    assert (done.returncode == 0) == bool(flags)
    assert "COMFYPLANE_POOL_TOKEN" in done.stdout + done.stderr


def test_a_comfyui_source_tree_is_started_with_directories_of_its_own(plane, start_agent, tmp_path):
    """A stand-in main.py that checks its flags and then serves as the embedded engine does."""
    source = tmp_path / "ComfyUI"
    source.mkdir()
    (source / "main.py").write_text(
        "import argparse, os, sys\n"
        "p = argparse.ArgumentParser()\n"
        "for n in ('listen', 'port', 'output-directory', 'temp-directory', 'input-directory', 'user-directory', 'database-url', 'front-end-root'):\n"
        "    p.add_argument('--' + n, required=True)\n"
        "p.add_argument('--disable-auto-launch', action='store_true')\n"
        "p.add_argument('--cpu', action='store_true', required=True)\n"
        "a = p.parse_args()\n"
        "assert os.path.isdir(a.user_directory) and a.database_url.startswith('sqlite:///')\n"
        "sys.path.insert(0, os.environ['ENGINE_PATH'])\n"
        "from fleet.engine.__main__ import main\n"
        "sys.exit(main(['--port', a.port, '--output-directory', a.output_directory]))\n"
    )
    env = {"COMFYUI_DIR": str(source), "COMFYUI_ARGS": "--cpu", "ENGINE_PATH": str(Path(fleet.__file__).parents[1])}
    start_agent(plane, env=env)
    assert plane.completion(plane.submit(scale(11)))["outcome"] == "succeeded"
