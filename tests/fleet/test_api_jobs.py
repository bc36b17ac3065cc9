"""Jobs over HTTP."""

import pytest

from tests.controlplane import api_world as world

pytestmark = pytest.mark.django_db


@pytest.fixture
def api():
    world.workflow()
    return world.caller()


def test_a_submitted_job_is_queued_with_its_defaults_and_place(api):
    response = api.post("/v1/workflows/paint/jobs", {"inputs": {"width": 100}, "metadata": {"order": 7}})
    assert response.status_code == 202, response.content
    job = response.json()
    assert (job["status"], job["workflow"], job["version"], job["position"]) == ("queued", "paint", 1, 0)
    assert job["inputs"] == {"width": 100, "color": 255}
    assert job["metadata"] == {"order": 7}
    assert response["Location"].endswith(f"/v1/jobs/{job['id']}")
    assert "requests" in response["RateLimit"]
    looked = api.get(f"/v1/jobs/{job['id']}")
    assert looked.status_code == 200
    assert looked.json()["id"] == job["id"]
