"""The operators' API: import and promote from a script, with a login and the role it needs."""

from __future__ import annotations

import base64
import json
from typing import Any

import factories
import pytest
from django.test import Client

from builds.models import Channel, Version
from controlplane.kernel.models import AuditEntry
from tests.staff import login

pytestmark = pytest.mark.django_db
CYCLE = {"1": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}}, "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}}


@pytest.fixture
def client() -> Client:
    return Client()


def send(client: Client, body: Any, headers: dict[str, str], path: str = "/ops/api/workflows") -> Any:
    return client.post(path, data=json.dumps(body), content_type="application/json", headers=headers)


def test_a_graph_is_imported_and_promoted_in_one_call(client: Client) -> None:
    answer = send(client, {"document": factories.GRAPH, "slug": "from-script", "expose": ["1.width"], "promote": "production"}, login("release"))
    assert answer.status_code == 201, answer.content
    said = answer.json()
    assert (said["workflow"], said["version"], said["created"]) == ("from-script", 1, True)
    assert set(said["schema"]["properties"]) == {"width"}
    assert Channel.objects.get(workflow__slug="from-script").version.number == 1
    assert AuditEntry.objects.filter(action="channel.promote", actor="ops-release").exists()


def test_an_exported_file_can_be_sent_as_it_is(client: Client) -> None:
    headers = login("release")
    first = send(client, factories.GRAPH, headers, "/ops/api/workflows?slug=bare")
    again = send(client, factories.GRAPH, headers, "/ops/api/workflows?slug=bare")
    assert (first.status_code, again.status_code) == (201, 200)
    assert Version.objects.filter(workflow__slug="bare").count() == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"document": CYCLE, "slug": "x"}, 422, "graph_cyclic"),
        ({"document": {"nodes": [], "links": []}, "slug": "x"}, 422, "no_node_library"),
        ({"document": [], "slug": "x"}, 422, "not_a_workflow"),
        ({"document": factories.GRAPH, "slug": "x", "expose": "1.width"}, 422, "wrong_type"),
        ({"document": factories.GRAPH, "slug": "x", "nonsense": 1}, 422, "unknown_field"),
    ],
)
def test_a_bad_import_is_refused_with_its_code_and_keeps_nothing(client: Client, body: Any, status: int, code: str) -> None:
    answer = send(client, body, login("release"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["suggestion"]
    assert not Version.objects.exists()


def test_without_a_login_or_the_role_nothing_is_kept(client: Client) -> None:
    assert send(client, factories.GRAPH, {}).json()["error"]["code"] == "login_missing"
    wrong = {"Authorization": "Basic " + base64.b64encode(b"ops:guess").decode()}
    assert send(client, factories.GRAPH, wrong).status_code == 401
    refused = send(client, factories.GRAPH, login("viewer"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "role_missing")
    assert send(client, factories.GRAPH, login("release", staff=False)).status_code == 403
    assert not Version.objects.exists()


def test_a_channel_moves_to_a_named_version_only(client: Client) -> None:
    from django.utils import timezone

    workflow = factories.make_runnable(now=timezone.now())
    factories.make_version(workflow, now=timezone.now(), live=False)
    headers = login("release")
    moved = send(client, {"version": 2}, headers, f"/ops/api/workflows/{workflow.slug}/channels/production")
    assert moved.status_code == 200 and moved.json()["version"] == 2
    for body, path, status in (
        ({"version": 9}, f"/ops/api/workflows/{workflow.slug}/channels/production", 404),
        ({"version": 1}, f"/ops/api/workflows/{workflow.slug}/channels/moon", 404),
        ({"version": "1"}, f"/ops/api/workflows/{workflow.slug}/channels/production", 422),
        ({"version": 1}, "/ops/api/workflows/none/channels/production", 404),
    ):
        assert send(client, body, headers, path).status_code == status


@pytest.mark.parametrize("sent_by_browsers", [{"Origin": "http://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_a_password_that_a_browser_remembers_is_no_use_to_another_page(client: Client, sent_by_browsers: dict[str, str]) -> None:
    answer = send(client, {"document": factories.GRAPH, "slug": "forged"}, login("release") | sent_by_browsers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "browser_refused")
    assert not Version.objects.exists()
