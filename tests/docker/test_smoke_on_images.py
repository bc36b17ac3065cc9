"""A smoke run on a real image: the loop finds the build, one container without network answers, and what it gave is measured here."""

from __future__ import annotations

import secrets
from typing import Any

import factories
import pytest
from django.utils import timezone

from billing import customers
from builds import smoke_keeping
from builds.models import Version
from fleet import smoke, smoke_images
from fleet.models import SmokeRun


def shows(prefix: str = "out") -> dict[str, Any]:
    """A picture with two halves, so that it is not blank; new every time, so that it is a version of its own."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 3368652}},
        "2": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 16763904}},
        "3": {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["2", 0]}},
        "4": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "upscale_method": "bilinear", "width": 64, "height": 48, "crop": "disabled"}},
        "5": {
            "class_type": "ImageCompositeMasked",
            "inputs": {"destination": ["2", 0], "source": ["4", 0], "x": 32, "y": 0, "resize_source": False},
        },
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": f"{prefix}-{secrets.token_hex(4)}"}},
    }


@pytest.fixture
def built(builder: Any) -> Any:
    build = builder.build()
    assert build.state == "succeeded", build.error
    factories.make_customer(now=builder.now, slug=customers.HOUSE)
    return build


def version_of(builder: Any, graph: dict[str, Any], inputs: list[dict[str, Any]]) -> Version:
    return factories.make_version(factories.make_workflow(now=builder.now), now=builder.now, graph=graph, inputs=inputs, live=False)


def tried(version: Version, build: Any, **given: Any) -> SmokeRun:
    """Ask, start and run it, as the loop and the task process do."""
    smoke.request(version=version, build=build, trigger="build", actor="smoke", now=timezone.now())
    smoke.step(fence=lambda: None, now=timezone.now(), hand_over=lambda run_id: smoke_images.run(run_id, clock=timezone.now, **given) and None)
    return SmokeRun.objects.get(version=version, build=build)


def test_the_loop_finds_a_build_nobody_tried_and_its_image_runs_the_job(built: Any, builder: Any, docker_client: Any) -> None:
    handed: list[Any] = []
    smoke.step(fence=lambda: None, now=timezone.now(), hand_over=handed.append)
    run = SmokeRun.objects.get(build=built)
    assert (run.trigger, run.state, handed) == ("build", "running", [run.id])
    assert smoke_images.run(run.id, clock=timezone.now) == "failed", "the graph of the test's version paints one colour"
    run.refresh_from_db()
    assert (run.error["code"], run.report["outputs"], run.report["image_id"]) == ("output_blank", 1, built.image_id)
    assert smoke_images.run(run.id, clock=timezone.now) == "not open", "a second time changes nothing"
    assert not docker_client.containers.list(all=True, filters={"label": smoke_images.LABEL})


def test_a_good_image_passes_with_its_own_inputs_bound(built: Any, builder: Any) -> None:
    width = {"name": "width", "node": "4", "input": "width", "type": "integer", "default": 512, "minimum": 16, "maximum": 512}
    version = version_of(builder, shows(), [width])
    run = tried(version, built)
    assert (run.state, run.error) == ("passed", None)
    assert run.report["images"] == 1 and run.report["run_s"] > 0
    assert smoke_keeping.of_version(version, now=timezone.now()).inputs == {"width": 256}


def test_what_an_image_lacks_fails_in_its_own_words(built: Any, builder: Any, docker_client: Any) -> None:
    run = tried(version_of(builder, {"1": {"class_type": "NotInThisImage", "inputs": {}}}, []), built)
    assert run.state == "failed" and "NotInThisImage" in run.error["message"]
    assert not docker_client.containers.list(all=True, filters={"label": smoke_images.LABEL})


def test_one_that_does_not_end_is_ended(built: Any, builder: Any, docker_client: Any, monkeypatch: Any) -> None:
    contained = smoke_images.contained
    monkeypatch.setattr(smoke_images, "contained", lambda *args, **named: contained(*args, **named, longest_s=0.5))
    run = tried(version_of(builder, shows(), []), built)
    assert (run.state, run.error["code"]) == ("failed", "smoke_timeout")
    assert not docker_client.containers.list(all=True, filters={"label": smoke_images.LABEL})
