"""A job that puts a LoRA on a base it was not made for is refused at the door: no queue, no worker, no charge."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import factories
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from builds.dependencies import fitting
from builds.models import KnownModel, Version
from controlplane.kernel.errors import Invalid
from fleet import admission
from fleet.models import Job

pytestmark = pytest.mark.django_db

GRAPH: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "base.safetensors"}},
    "2": {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["1", 0], "lora_name": "good.safetensors", "strength_model": 1.0}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
}
INPUTS: list[dict[str, Any]] = [{"name": "style", "node": "2", "input": "lora_name", "type": "string", "title": "Style", "default": "good.safetensors"}]


@pytest.fixture
def version(now: datetime) -> Version:
    for name, folder, family in (("base", "checkpoints", "sdxl"), ("good", "loras", "sdxl"), ("ink", "loras", "sd15")):
        KnownModel.objects.create(filename=f"{name}.safetensors", directory=folder, family=family, source="test", seen_at=now)
    return factories.make_version(factories.make_workflow(now=now), now=now, graph=GRAPH, inputs=INPUTS)


def ask(version: Version, now: datetime, **inputs: Any) -> Job:
    customer = factories.make_customer(now=now)
    return admission.submit(customer=customer, api_key=None, workflow=version.workflow, inputs=inputs, now=now).job


def test_a_lora_that_fits_is_admitted(version: Version, now: datetime) -> None:
    assert ask(version, now, style="good.safetensors").status == "queued"
    assert ask(version, now, style="nobody-knows.safetensors").status == "queued"


def test_a_lora_for_another_base_is_refused_before_anything_is_kept(version: Version, now: datetime) -> None:
    with pytest.raises(Invalid) as refused:
        ask(version, now, style="ink.safetensors")
    assert (refused.value.code, refused.value.details["field"]) == ("lora_base_mismatch", "style")
    assert (refused.value.details["lora_base"], refused.value.details["base_family"]) == ("sd15", "sdxl")
    assert not Job.objects.exists()


def test_workflows_that_let_nobody_choose_models_pay_nothing(now: datetime) -> None:
    plain = factories.make_version(factories.make_workflow(now=now), now=now)
    with CaptureQueriesContext(connection) as seen:
        fitting.refuse_unfit(plain, {"width": 64})
    assert len(seen) == 0
