"""What the agent does for images: it tells why ComfyUI did not come up, says whether it is well, and shows what came up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from fleet.agent import health, probe
from tests.fleet.agent.conftest import REPOSITORY, plane_module

FAILING = "import sys\nprint('loading nodes')\nprint('no kernel image is available', file=sys.stderr)\nsys.exit(3)\n"
# ComfyUI's command line, with the embedded engine behind it.
WORKING = """import argparse, sys
sys.path.insert(0, {root!r})
parser = argparse.ArgumentParser()
for flag in ("--listen", "--port", "--output-directory", "--temp-directory", "--input-directory"):
    parser.add_argument(flag)
known, _ = parser.parse_known_args()
from fleet.engine.__main__ import main
print("a pack says hello")
main([word for flag, value in vars(known).items() if value for word in ("--" + flag.replace("_", "-"), value)])
"""


def tree(directory: Path, main: str) -> Path:
    directory.mkdir()
    (directory / "main.py").write_text(main)
    return directory


def test_a_comfyui_that_never_comes_up_is_reported_with_its_boot_log(plane, start_agent, tmp_path):
    broken = tree(tmp_path / "broken", FAILING)
    agent = start_agent(plane, "--comfyui-dir", str(broken), "--restart-s", "0.01")
    assert agent.exit_code(40) == 4
    assert len(plane.leaves) == 1
    told = plane.leaves[0]
    assert told["reason"] == "crash" and "ended with code 3 while starting" in told["message"]
    assert {"loading nodes", "no kernel image is available"} <= set(told["engine_log"])


def test_a_worker_says_that_it_is_well_once_comfyui_is_warm_and_not_when_it_stands_still(plane, start_agent, tmp_path):
    file = tmp_path / "health.json"
    agent = start_agent(plane, env={"COMFYPLANE_HEALTH_FILE": str(file)})
    plane_module.wait_until(lambda: file.exists() and not health.judge(file, now=time.time()), timeout_s=30, what="healthy")
    said = subprocess.run(
        [sys.executable, "-m", "fleet.agent.health"], cwd=REPOSITORY, env={health.VARIABLE: str(file)}, capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout) == (0, "well\n")
    still = tmp_path / "still.json"  # the agent goes on writing the other one
    still.write_text(file.read_text())
    assert health.judge(still, now=json.loads(still.read_text())["at"] + health.STALE_S + 5) == f"the agent has not moved for {health.STALE_S + 5:.0f} s"
    agent.signal()
    assert agent.exit_code() == 0


def test_health_is_not_claimed_without_a_reason(tmp_path):
    file = tmp_path / "health.json"
    assert health.judge(file, now=0.0) == "the agent has not written its state"
    for text in ("", "[]", "{", '{"at": "x"}', '{"ready": true}'):
        file.write_text(text)
        assert health.judge(file, now=0.0) == "the agent has not written its state"
    health.write(file, ready=False)
    assert health.judge(file, now=time.time()) == "ComfyUI is not ready"
    said = subprocess.run([sys.executable, "-m", "fleet.agent.health"], cwd=REPOSITORY, env={}, capture_output=True, text=True, check=False)
    assert said.returncode == 1 and health.VARIABLE in said.stdout


def run_probe(directory: Path) -> tuple[int, dict]:
    command, env = [sys.executable, "-m", "fleet.agent.probe"], {"COMFYUI_DIR": str(directory)}
    said = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False, timeout=60)
    return said.returncode, json.loads(said.stdout.splitlines()[-1])


def test_the_probe_shows_what_came_up(tmp_path):
    code, told = run_probe(tree(tmp_path / "works", WORKING.format(root=str(REPOSITORY))))
    assert code == 0 and "EmptyImage" in told["object_info"] and "numpy" in told["python"]
    assert any("a pack says hello" in line for line in told["log"])


def test_the_probe_tells_why_nothing_came_up(tmp_path):
    code, told = run_probe(tree(tmp_path / "broken", FAILING))
    assert code == 1 and "object_info" not in told and "no kernel image is available" in told["log"]


def test_installed_debian_packages_are_read(tmp_path):
    status = tmp_path / "status"
    there = "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\nDescription: C\n more: text\n"
    status.write_text(f"{there}\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n")
    assert probe.debian(status) == {"libc6": "2.36-9"}
    assert probe.debian(tmp_path / "none") == {}
