"""A smoke run on an image without a container: the request it gets and the answer it gives, by the agent and engine that are in it; no engine fails it."""

from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image

from builds import smoke_keeping
from builds.models import Build, Lock
from controlplane.kernel.errors import Invalid, Unavailable
from fleet import smoke, smoke_images, smoke_rule
from fleet.agent import serverless
from fleet.models import SmokeRun
from fleet.smoke_images import Said
from tests import factories

pytestmark = pytest.mark.django_db
LOADS = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "o"}},
}
PHOTO = {"name": "photo", "node": "1", "input": "image", "type": "string", "kind": "image", "required": True}
SONG = {"name": "song", "node": "1", "input": "audio", "type": "string", "kind": "audio", "required": True}


def version(now, *, graph=None, inputs=None):
    return factories.make_version(factories.make_workflow(now=now), now=now, graph=graph, inputs=inputs, live=False)


def built(now, made, **fields):
    lock = Lock.objects.create(sha256="a" * 64, document={}, created_at=now, created_by="test")
    values = {"state": "succeeded", "image": "worker:abc", "image_id": "sha256:" + "b" * 64, "requested_at": now, "finished_at": now, "requested_by": "test"}
    return Build.objects.create(lock=lock, version=made, **(values | fields))


def said(answer, code=0, log=""):
    return Said(answer if isinstance(answer, bytes) else json.dumps(answer).encode(), code, log, 2.5)


def png(color=None):
    out = io.BytesIO()
    image = Image.linear_gradient("L") if color is None else Image.new("RGB", (16, 16), color)
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def test_what_goes_into_the_container_is_understood_by_the_agent_that_is_in_it(now):
    made = version(now, graph=LOADS, inputs=[PHOTO])
    answer = serverless.run(json.loads(smoke_images._payload(made, now=now)))
    (found,) = smoke_images._outputs(said(answer))
    assert (found["media_type"], found["measurements"]["decodes"], found["measurements"]["blank"]) == ("image/png", True, False)
    assert smoke_rule.fault([found]) is None


def test_an_error_of_the_agent_comes_back_in_its_words(now):
    made = version(now, graph={"1": {"class_type": "NoSuchNode", "inputs": {}}}, inputs=[])
    with pytest.raises(Invalid) as refused:
        smoke_images._outputs(said(serverless.run(json.loads(smoke_images._payload(made, now=now))), code=1))
    assert "NoSuchNode" in refused.value.message


def test_every_output_of_an_answer_is_measured_here_and_believed_in_nothing():
    answer = {"output": {
        "images": [{"filename": "a.png", "media_type": "image/png", "data": png()}, {"filename": "b.png", "media_type": "image/png", "data": "%%%"}, 5],
        "texts": ["words", "  "], "files": [{"filename": "c.png", "media_type": "image/png", "data": png((0, 0, 0))}],
    }}  # fmt: skip
    found = smoke_images._outputs(said(b"noise of a pack\n" + json.dumps(answer).encode()))
    assert [(o["measurements"].get("decodes"), o["measurements"].get("blank")) for o in found] == [
        (True, False), (False, None), (True, True), (True, False), (True, True)
    ]  # fmt: skip


@pytest.mark.parametrize("answer", [b"", b"Killed", b"[1]", b'"x"', b"{broken"])
def test_no_answer_says_how_it_ended_and_what_it_said_last(answer):
    with pytest.raises(Invalid) as refused:
        smoke_images._outputs(said(answer, code=137, log="loading\nout of memory\n"))
    assert refused.value.code == "image_gave_no_answer"
    assert "137" in refused.value.message and "out of memory" in refused.value.suggestion


def test_an_answer_without_outputs_does_not_pass():
    assert smoke_rule.fault(smoke_images._outputs(said({"output": {}})))["code"] == "no_outputs"


def test_a_version_that_wants_a_sound_is_not_tried_on_an_image_and_says_so(now):
    with pytest.raises(Invalid) as refused:
        smoke_images._payload(version(now, inputs=[SONG]), now=now)
    assert refused.value.code == "smoke_file_not_carried"


def test_without_an_engine_the_run_fails_and_says_what_to_do(now, settings, tmp_path):
    settings.BUILD = {**settings.BUILD, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    made = version(now)
    run = smoke.request(version=made, build=built(now, made), trigger="build", actor="smoke", now=now)
    smoke.step(fence=lambda: None, now=now, hand_over=lambda run_id: None)
    assert smoke_images.run(run.id, clock=lambda: now) == "failed"
    run.refresh_from_db()
    assert (run.state, run.error["code"]) == ("failed", "docker_unavailable")
    assert "BUILD_DOCKER_HOST" in run.error["suggestion"]


def test_whatever_an_engine_does_the_run_ends(now):
    class Odd:
        @property
        def containers(self):
            raise RuntimeError("half a reply")

    made = version(now)
    run = smoke.request(version=made, build=built(now, made), trigger="build", actor="smoke", now=now)
    smoke.step(fence=lambda: None, now=now, hand_over=lambda run_id: None)
    assert smoke_images.run(run.id, clock=lambda: now, client=Odd()) == "failed"
    run.refresh_from_db()
    assert run.error["code"] == "engine_failed" and "half a reply" in run.error["message"]


def test_a_process_that_went_away_is_not_waited_for_for_ever(now):
    made = version(now)
    smoke_keeping.of_version(made, now=now)
    run = smoke.request(version=made, build=built(now, made), trigger="build", actor="smoke", now=now)
    smoke.step(fence=lambda: None, now=now, hand_over=lambda run_id: None)
    smoke.step(fence=lambda: None, now=now + smoke.IMAGE_LEASE, hand_over=lambda run_id: None)
    assert SmokeRun.objects.get(id=run.id).state == "running"
    smoke.step(fence=lambda: None, now=now + smoke.IMAGE_LEASE * 1.01, hand_over=lambda run_id: None)
    run.refresh_from_db()
    assert (run.state, run.error["code"]) == ("failed", "smoke_interrupted")


def test_a_build_that_did_not_succeed_has_no_image_to_run(now):
    made = version(now)
    failed = built(now, made, state="failed", image_id="", error={"code": "x"})
    with pytest.raises(Exception) as refused:
        smoke.request(version=made, build=failed, trigger="build", actor="ada", now=now)
    assert refused.value.code == "build_not_succeeded"
    assert not isinstance(refused.value, Unavailable)
