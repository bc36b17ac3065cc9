"""Before its first claim an agent rehearses what it was given, against the real embedded engine; what fails keeps it from claiming, and it says why."""

from __future__ import annotations

import base64
import io

from PIL import Image

from fleet.agent import rehearsal


def picture():
    out = io.BytesIO()
    Image.new("RGB", (24, 16), (200, 40, 40)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


GOOD = {"1": {"class_type": "EmptyImage", "inputs": {"width": 24, "height": 16, "batch_size": 1, "color": 7}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}}}  # fmt: skip
LOADS = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "given.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
}
BROKEN = {"1": {"class_type": "NoSuchNode", "inputs": {}}}


def prompt(graph, **more):
    return {"workflow": "paint", "version": 3, "graph": graph, **more}


def test_what_cannot_be_read_is_left_out_and_numbers_are_bounded():
    assert rehearsal.read({}).pieces == rehearsal.read({"warmup": 5}).pieces == rehearsal.read(None).pieces == ()
    bad = [
        5,
        {},
        {"graph": []},
        {"graph": {}},
        prompt(GOOD, files=[{"name": "x"}]),
        prompt(GOOD, files=[{"name": "x", "node": "1", "input": "i", "data": "%%"}]),
    ]
    assert rehearsal.read({"warmup": {"prompts": bad}}).pieces == ()
    read = rehearsal.read({"warmup": {"prompts": [prompt(GOOD)] * 50, "within_s": 10**9}})
    assert (len(read.pieces), read.within_s, read.pieces[0].title) == (rehearsal.MOST, rehearsal.LONGEST_S, "paint v3")
    assert rehearsal.read({"warmup": {"prompts": [], "within_s": "soon"}}).within_s == 60.0


def test_the_first_claim_comes_after_the_rehearsal_and_its_files_do_not_stay(plane, start_agent, wait_until, tmp_path):
    file = {"name": "given.png", "media_type": "image/png", "node": "1", "input": "image", "data": picture()}
    plane.settings["warmup"] = {"prompts": [prompt(GOOD), prompt(LOADS, files=[file])], "within_s": 30}
    agent = start_agent(plane, "--work-dir", str(tmp_path / "work"))
    wait_until(lambda: plane.claims, what="first claim")
    (rehearsed,) = agent.events("rehearsed")
    assert (rehearsed["prompts"], rehearsed["left_out"]) == (2, 0)
    order = [line["event"] for line in agent.log()]
    assert order.index("registered") < order.index("rehearsed") < order.index("engine ready")
    said = wait_until(lambda: [b["warmup"] for b in plane.heartbeats if b.get("warmup", {}).get("state") == "passed"], what="a heartbeat that says so")[-1]
    assert (said["done"], said["of"]) == (2, 2) and said["seconds"] > 0
    assert not list((tmp_path / "work").rglob("given.png"))
    assert not [p for p in (tmp_path / "work" / "output").rglob("*") if p.is_file()]


def test_a_rehearsal_that_fails_keeps_the_worker_from_claiming_and_says_why_while_it_lives(plane, start_agent, wait_until):
    plane.settings["warmup"] = {"prompts": [prompt(GOOD), prompt(BROKEN)], "within_s": 30}
    agent = start_agent(plane, "--restart-s", "0.05")
    said = wait_until(
        lambda: [b for b in plane.heartbeats if b.get("warmup", {}).get("state") == "failed"], timeout_s=40, what="a failed warm-up in a heartbeat"
    )[0]
    assert said["state"] == "starting", "it lives, and is not ready"
    assert "paint v3" in said["warmup"]["message"] and "NoSuchNode" in said["warmup"]["message"]
    assert agent.exit_code(90) == 4
    assert not plane.claims
    (leave,) = plane.leaves
    assert leave["reason"] == "crash" and "paint v3" in leave["message"]


def test_what_does_not_fit_into_the_time_is_left_out_and_said(plane, start_agent, wait_until):
    plane.settings["warmup"] = {"prompts": [prompt(GOOD)] * 4, "within_s": 0.000001}
    agent = start_agent(plane)
    wait_until(lambda: plane.claims, what="first claim")
    (rehearsed,) = agent.events("rehearsed")
    assert (rehearsed["prompts"], rehearsed["left_out"]) == (1, 3)
