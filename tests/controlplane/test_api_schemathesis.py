"""The API keeps to its own document: schemathesis calls every operation with what the document allows and what it does not.

All of its checks run. Some operations are spared one of them, that whatever the shape allows is accepted: a job's inputs
are typed by each workflow (its own document is checked as well), a range of usage has two ends that must fit, and a cursor
is good only when it was given out.
"""

import logging

import pytest
import schemathesis
from django.core import signals
from django.db import close_old_connections
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from controlplane.wsgi import application
from fleet.api import waiting
from tests.controlplane import api_world as world

LOOSE = ("POST /v1/workflows/{slug}/jobs", "POST /v1/generate", "POST /v1/quotes", "GET /v1/quotes", "GET /v1/usage", "GET /v1/jobs", "GET /v1/workflows")
SPARED = {operation: [positive_data_acceptance] for operation in LOOSE}
document = schemathesis.openapi.from_wsgi("/v1/openapi.json", application)
limited = settings(max_examples=8, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture
def api(db, monkeypatch):
    """A customer who has one of everything, and a key for it."""
    monkeypatch.setattr(waiting, "MAX_WAIT_S", 0)
    logging.disable(logging.ERROR)
    world.workflow()
    made = world.caller(requests_per_minute=10**6, max_active_jobs=10**6, monthly_limit_microusd=10**12)
    job = made.post("/v1/workflows/paint/jobs").json()
    world.finish(job["id"])
    file = made.form("/v1/files", {"file": world.upload("mine.png", world.png(30, 20))}).json()
    quote = made.post("/v1/quotes", {"workflow": "paint", "jobs": 3}).json()
    made.ids = {"slug": "paint", "job": job["id"], "index": "0", "name": "out 0.png", "file": file["id"], "quote": quote["id"]}
    # Calls past Django's own client would close the connection the test's transaction lives on.
    for signal in (signals.request_started, signals.request_finished):
        signal.disconnect(close_old_connections)
    yield made
    for signal in (signals.request_started, signals.request_finished):
        signal.connect(close_old_connections)
    logging.disable(logging.NOTSET)


@document.parametrize()
@limited
def test_every_operation_keeps_to_the_document(case, api):
    spared = SPARED.get(case.operation.label, [])
    case.call_and_validate(headers=api.auth, excluded_checks=spared)
    if case.path_parameters:  # the same again on what is really there; a bad id is then no longer bad
        case.path_parameters = {name: api.ids[name] for name in case.path_parameters}
        case.call_and_validate(headers=api.auth, excluded_checks=[*spared, negative_data_rejection])


def test_a_workflows_own_document_accepts_what_it_says(api):
    own = schemathesis.openapi.from_dict(api.get("/v1/workflows/paint/openapi.json").json())
    operation = own["/v1/workflows/paint/jobs"]["POST"]
    seen = []

    @settings(limited, max_examples=40)  # some are multipart, many leave every input out
    @given(case=operation.as_strategy())
    def submit(case):
        if case.media_type == "application/json" and isinstance(case.body, dict):
            inputs = case.body.get("inputs", {})
            response = api.post("/v1/workflows/paint/jobs", {"inputs": inputs})
            assert response.status_code == 202, response.content
            seen.append(inputs)

    submit()
    assert any(seen)
