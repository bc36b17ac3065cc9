"""Smoke runs on a whole plane: every endpoint of the demo passes by itself, real workers do the jobs, and the next worker rehearses before it works."""

from __future__ import annotations

import json

import pytest

from tests.integration.live_plane import agents, until


@pytest.mark.thorough
def test_every_endpoint_is_tried_by_itself_the_smart_endpoint_uses_what_was_measured_and_new_workers_rehearse(make_plane) -> None:
    plane = make_plane()
    plane.start()

    def said() -> dict:
        return json.loads(plane.manage("shell", "-v0", "-c", _MATRIX).stdout)

    until(lambda: (m := said())["covered"] == m["endpoints"], seconds=300, what=plane.logs, every_s=2.0)
    found = said()
    assert found["endpoints"] >= 7 and found["failing"] == 0, found

    again = plane.manage("smoke", "first-image@production", "--wait", "--timeout", "120", "--json")
    run = json.loads(again.stdout)["runs"][0]
    assert (run["state"], run["trigger"], run["error"]) == ("passed", "person", None) and run["job"]

    with plane.client() as client:
        offered = {w["id"]: w for w in client.get("/v1/workflows").json()["results"]}
        measured = offered["first-image"]["performance"]
        assert measured["measured_from"] in ("jobs", "smoke_runs") and measured["typical_time_seconds"] > 0, measured
        task = offered["first-image"]["category"]
        asked = {"task": task, "requirements": {"max_seconds": 60, "seed": True}, "prefer": "speed"}
        plan = client.post("/v1/generate", json={**asked, "dry_run": True}).json()
        job = client.post("/v1/generate", json=asked, headers={"Prefer": "wait=60"}).json()
        assert job["status"] == "succeeded" and job["outputs"], job
        assert job["choice"] == plan["choice"] and job["choice"]["why"][0] == f"It does {task}, as asked."
        refused = client.post("/v1/generate", json={"task": task, "requirements": {"max_seconds": 0}}).json()["error"]
        assert refused["code"] == "no_workflow_matches" and refused["details"]["alternatives"][0]["lacks"][0]["has"] > 0
    assert json.loads(plane.manage("reconcile", "--json").stdout)["drift"] == 0

    # The next worker is given what passed.
    for agent in agents(plane):
        agent.kill()
    until(lambda: json.loads(plane.manage("shell", "-v0", "-c", _REHEARSED).stdout), seconds=180, what=plane.logs, every_s=2.0)
    assert plane.stop() == 0


_MATRIX = """
import json
from fleet import queries_smoke
m = queries_smoke.matrix()
print(json.dumps({"endpoints": m.endpoints, "covered": m.covered, "failing": m.failing,
  "errors": [c.ended.error for c in m.cells if c.ended and c.ended.error]}))
"""
_REHEARSED = """
import json
from fleet.models import Worker
print(json.dumps([w.warmup for w in Worker.objects.filter(ready_at__isnull=False) if w.warmup.get("state") == "passed" and w.warmup.get("done")]))
"""
