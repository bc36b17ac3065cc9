"""The operators' API of versions: what a script needs to branch, compare, merge and go back, with the roles and refusals of the console."""

from __future__ import annotations

import copy
import json
from typing import Any

import factories
import pytest
from django.test import Client

from builds.models import Branch, Version
from controlplane.kernel.models import AuditEntry
from tests.staff import login

pytestmark = pytest.mark.django_db
API = "/ops/api/workflows"


class Api:
    """Calls as a script with a role makes them."""

    def __init__(self, *groups: str) -> None:
        self.headers, self.client = login(*groups), Client()

    def get(self, path: str) -> Any:
        return self.client.get(API + path, headers=self.headers)

    def post(self, path: str, body: Any) -> Any:
        return self.client.post(API + path, data=json.dumps(body), content_type="application/json", headers=self.headers)


def graph(**values: Any) -> dict[str, Any]:
    made = copy.deepcopy(factories.GRAPH)
    made["1"]["inputs"].update(values)
    return made


@pytest.fixture
def api() -> Api:
    """A workflow with main at v1 and a branch side at v2."""
    made = Api("release")
    assert made.post("", {"document": graph(), "slug": "boat", "expose": ["1.width"]}).status_code == 201
    assert made.post("/boat/branches", {"name": "side"}).status_code == 201
    assert made.post("", {"document": graph(width=128), "slug": "boat", "branch": "side"}).status_code == 201
    return made


def test_a_script_branches_compares_and_merges(api: Api) -> None:
    said = api.get("/boat/diff?a=main&b=side").json()
    assert (said["a"], said["b"], said["api"]["verdict"], said["counts"]["changed"]) == (1, 2, "compatible", 1)
    assert api.post("", {"document": graph(height=99), "slug": "boat"}).json()["version"] == 3
    look = api.post("/boat/merge", {"from": "side", "dry_run": True}).json()
    assert (look["result"], look["base"], look["ours"], look["theirs"], look["conflicts"]) == ("merged", 1, 3, 2, [])
    assert Version.objects.count() == 3
    done = api.post("/boat/merge", {"from": "side", "expected": 3, "expected_from": "side", "message": "wider"})
    assert (done.status_code, done.json()["version"]) == (201, 4)
    made = Version.objects.get(number=4)
    assert (made.graph["1"]["inputs"]["width"], made.graph["1"]["inputs"]["height"], made.message) == (128, 99, "wider")
    log = api.get("/boat/versions").json()["results"]
    assert [(one["version"], one["parents"], one["branches"]) for one in log] == [(4, [3, 2], ["main"]), (3, [1], []), (2, [1], ["side"]), (1, [], [])]
    assert [one["version"] for one in api.get("/boat/versions?branch=side").json()["results"]] == [2, 1]
    again = api.post("/boat/merge", {"from": "side"})
    assert (again.status_code, again.json()["result"]) == (200, "up_to_date")


def test_conflicts_are_listed_with_their_keys_and_settled_by_choices(api: Api) -> None:
    api.post("", {"document": graph(width=32), "slug": "boat"})
    refused = api.post("/boat/merge", {"from": "side"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "merge_conflicts")
    [clash] = refused.json()["error"]["details"]["conflicts"]
    assert (clash["key"], clash["base"], clash["ours"], clash["theirs"]) == ("1.width", 64, 32, 128)
    wrong = api.post("/boat/merge", {"from": "side", "choices": {"1.width": "mine"}})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "unknown_choice")
    done = api.post("/boat/merge", {"from": "side", "choices": {"1.width": "theirs"}})
    # The outcome is v2 to the letter, and the same content is the same version: main moves there.
    assert (done.status_code, done.json()["version"], done.json()["created"]) == (200, 2, False)
    assert Branch.objects.get(name="main").head.inputs[0]["default"] == 128


def test_restore_moves_a_branch_and_a_stale_view_is_refused(api: Api) -> None:
    api.post("", {"document": graph(width=32), "slug": "boat"})
    stale = api.post("/boat/restore", {"version": 1, "expected": 1})
    assert (stale.status_code, stale.json()["error"]["code"]) == (409, "branch_moved")
    done = api.post("/boat/restore", {"version": 1, "expected": 3, "reason": "too small"})
    assert (done.status_code, done.json()["head"]) == (200, 1)
    assert AuditEntry.objects.filter(action="branch.restore", actor="ops-release", reason="too small").exists()


def test_a_branch_can_be_deleted_but_not_main(api: Api) -> None:
    assert api.client.delete(f"{API}/boat/branches/side", headers=api.headers).status_code == 204
    refused = api.client.delete(f"{API}/boat/branches/main", headers=api.headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "main_branch")
    assert [one["name"] for one in api.get("/boat/branches").json()["results"]] == ["main"]


@pytest.mark.parametrize(("path", "body"), [("/boat/branches", {"name": "x"}), ("/boat/merge", {"from": "side"}), ("/boat/restore", {"version": 1})])
def test_writing_needs_the_release_role_and_reading_does_not(api: Api, path: str, body: Any) -> None:
    viewer = Api("operator")
    assert viewer.post(path, body).status_code == 403
    assert viewer.client.delete(f"{API}/boat/branches/side", headers=viewer.headers).status_code == 403
    assert viewer.get("/boat/diff?a=1&b=2").status_code == 200
    assert Branch.objects.count() == 2


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/boat/branches", {}, 422, "field_missing"),
        ("/boat/branches", {"name": 5}, 422, "wrong_type"),
        ("/boat/branches", {"name": "side"}, 409, "branch_exists"),
        ("/boat/branches", {"name": "x", "at": "nowhere"}, 404, "unknown_version"),
        ("/boat/merge", {}, 422, "field_missing"),
        ("/boat/merge", {"from": "nowhere"}, 404, "unknown_version"),
        ("/boat/merge", {"from": "side", "into": "nowhere"}, 404, "unknown_branch"),
        ("/boat/merge", {"from": "side", "choices": []}, 422, "wrong_type"),
        ("/boat/merge", {"from": True}, 422, "wrong_type"),
        ("/boat/restore", {}, 422, "field_missing"),
        ("/boat/restore", {"version": 2, "branch": "side"}, 409, "already_there"),
        ("/boat/restore", {"version": 1, "nonsense": 1}, 422, "unknown_field"),
        ("/none/merge", {"from": "side"}, 404, "unknown_workflow"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_code_and_changes_nothing(api: Api, path: str, body: Any, status: int, code: str) -> None:
    answer = api.post(path, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.content
    assert {line.name: line.head.number for line in Branch.objects.all()} == {"main": 1, "side": 2}


def test_a_diff_without_two_versions_says_which_is_missing(api: Api) -> None:
    answer = api.get("/boat/diff?a=1")
    assert (answer.status_code, answer.json()["error"]["details"]) == (422, {"field": "b"})
    assert api.get("/boat/diff?a=1&b=99").status_code == 404
