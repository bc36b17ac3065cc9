"""Branches move over immutable versions: commit, merge, restore and delete, each written down and each refused when somebody was faster."""

from __future__ import annotations

import copy
import importlib
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, transaction
from racing import race
from registry_samples import object_info, prompt

from builds import branches, heads, importing, queries
from builds.models import Branch, BranchMove, Version
from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict, Invalid, NotFound
from controlplane.kernel.models import AuditEntry

pytestmark = pytest.mark.django_db
BASE = prompt("02_blend_blur_two_outputs")


def graph(**changes: Any) -> dict[str, Any]:
    """BASE with inputs replaced: n3={"sigma": 2.0}."""
    made = copy.deepcopy(BASE)
    for key, values in changes.items():
        made[key[1:]]["inputs"].update(values)
    return made


def bring(document: Any, *, now: datetime, **more: Any) -> Version:
    more = {"slug": "boat", "author": "ann", "draft": True, "library": object_info(), **more}
    return importing.import_graph(document=document, now=now, **more).version


@pytest.fixture
def first(now: datetime) -> Version:
    return bring(graph(), now=now, message="first")


BLUR = next(node for node, one in BASE.items() if one["class_type"] == "ImageBlur")
ONE, TWO = {f"n{BLUR}": {"sigma": 2.5}}, {f"n{BLUR}": {"blur_radius": 7}}


def merge(workflow: Any, source: Any, *, now: datetime, **more: Any) -> branches.Result:
    return branches.merge_branch(workflow=workflow, source=source, actor="bob", library=object_info(), now=now, **more)


def numbers(workflow: Any) -> dict[str, int]:
    return {line.name: line.head.number for line in branches.listed(workflow)}


def test_an_import_commits_onto_main_and_a_branch_keeps_its_own_line(first: Version, now: datetime) -> None:
    workflow = first.workflow
    branches.create(workflow=workflow, name="bolder", actor="bob", now=now)
    side = bring(graph(**ONE), now=now, branch="bolder", message="bolder")
    main = bring(graph(**TWO), now=now)
    assert numbers(workflow) == {"main": 3, "bolder": 2}
    assert (side.parent, main.parent) == (first, first)
    moves = [(move.branch.name, move.reason, move.before and move.before.number, move.after.number) for move in BranchMove.objects.order_by("id")]
    assert moves == [("main", "create", None, 1), ("bolder", "create", None, 1), ("bolder", "commit", 1, 2), ("main", "commit", 1, 3)]
    assert [entry.action for entry in AuditEntry.objects.order_by("seq")][-3:] == ["branch.create", "version.create", "version.create"]
    assert audit.verify().intact


def test_inputs_are_carried_from_the_branch_and_not_from_the_newest_version(first: Version, now: datetime) -> None:
    workflow = first.workflow
    branches.create(workflow=workflow, name="side", actor="bob", now=now)
    bring(graph(**ONE), now=now, expose=[f"{BLUR}.sigma=softness"])
    on_side = bring(graph(**TWO), now=now, branch="side")
    assert [one["name"] for one in on_side.inputs] == [one["name"] for one in first.inputs]
    assert "softness" in [one["name"] for one in bring(graph(**ONE, **{}), now=now, timeout_s=9).inputs]


def test_content_that_the_branch_has_seen_moves_nothing_and_other_content_moves_it(first: Version, now: datetime) -> None:
    workflow = first.workflow
    second = bring(graph(**ONE), now=now)
    assert bring(graph(), now=now, expose=first.inputs) == first
    assert numbers(workflow) == {"main": 2}
    branches.create(workflow=workflow, name="late", at=first, actor="bob", now=now)
    assert bring(graph(**ONE), now=now, branch="late", expose=second.inputs) == second
    assert numbers(workflow) == {"main": 2, "late": 2}
    assert AuditEntry.objects.filter(action="branch.move").count() == 1


def test_a_merge_joins_both_lines_and_names_both_parents(first: Version, now: datetime) -> None:
    workflow = first.workflow
    branches.create(workflow=workflow, name="side", actor="bob", now=now)
    side, main = bring(graph(**ONE), now=now, branch="side"), bring(graph(**TWO), now=now)
    done = merge(workflow, "side", now=now)
    assert (done.kind, done.created, done.version.number) == ("merged", True, 4)
    made = Version.objects.get(pk=done.version.pk)
    assert (made.parent, made.merged_from, made.message, made.author) == (main, side, "Merge side into main", "bob")
    inputs = made.graph[BLUR]["inputs"]
    assert (inputs["sigma"], inputs["blur_radius"], made.runnable) == (2.5, 7, True)
    assert numbers(workflow) == {"main": 4, "side": 2}
    assert BranchMove.objects.latest("id").reason == "merge"
    assert merge(workflow, "side", now=now).kind == "up_to_date"
    forward = merge(workflow, "main", now=now, into="side")
    assert (forward.kind, numbers(workflow)) == ("fast_forward", {"main": 4, "side": 4})
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        Version.objects.filter(pk=made.pk).update(merged_from=None)


def test_what_both_changed_waits_for_a_choice_and_keeps_nothing_until_then(first: Version, now: datetime) -> None:
    workflow = first.workflow
    branches.create(workflow=workflow, name="side", actor="bob", now=now)
    bring(graph(**{f"n{BLUR}": {"sigma": 3.0}}), now=now, branch="side")
    bring(graph(**ONE), now=now)
    with pytest.raises(Conflict) as refusal:
        merge(workflow, "side", now=now)
    assert refusal.value.code == "merge_conflicts"
    keys = [one["key"] for one in refusal.value.details["conflicts"]]
    assert f"{BLUR}.sigma" in keys
    assert (Version.objects.count(), numbers(workflow)) == (3, {"main": 3, "side": 2})
    made = merge(workflow, "side", choices=dict.fromkeys(keys, "theirs"), now=now).version
    assert made.graph[BLUR]["inputs"]["sigma"] == 3.0
    entry = AuditEntry.objects.filter(action="branch.merge").latest("seq")
    assert entry.after["choices"] == dict.fromkeys(keys, "theirs")


def test_a_merge_that_comes_out_as_an_earlier_version_stands_there(first: Version, now: datetime) -> None:
    workflow = first.workflow
    for sigma in (2.0, 3.0):
        bring(graph(**{f"n{BLUR}": {"sigma": sigma, "blur_radius": 7}}), now=now)
    branches.create(workflow=workflow, name="side", at=first, actor="bob", now=now)
    bring(graph(**{f"n{BLUR}": {"sigma": 2.0, "blur_radius": 9}}), now=now, branch="side")
    done = merge(workflow, "side", choices={f"{BLUR}.sigma": "theirs", f"{BLUR}.blur_radius": "ours"}, now=now)
    assert (done.version.number, done.created, numbers(workflow)) == (2, False, {"main": 2, "side": 4})


def test_a_version_can_be_merged_without_a_branch(first: Version, now: datetime) -> None:
    branches.create(workflow=first.workflow, name="side", actor="bob", now=now)
    side = bring(graph(**ONE), now=now, branch="side")
    bring(graph(**TWO), now=now)
    assert merge(first.workflow, side, now=now).version.merged_from == side


def test_restore_moves_the_head_back_and_the_next_commit_goes_on_from_there(first: Version, now: datetime) -> None:
    workflow = first.workflow
    second = bring(graph(**ONE), now=now)
    later = now + timedelta(minutes=1)
    branches.restore(workflow=workflow, version=first, expected=second, actor="bob", reason="too soft", now=later)
    assert numbers(workflow) == {"main": 1}
    move = BranchMove.objects.latest("id")
    assert (move.before, move.after, move.reason, move.message, move.by, move.at) == (second, first, "restore", "too soft", "bob", later)
    assert bring(graph(**TWO), now=later).parent == first
    assert AuditEntry.objects.filter(action="branch.restore", reason="too soft").count() == 1
    with pytest.raises(Conflict) as refusal:
        branches.restore(workflow=workflow, version=heads.branch(workflow).head, actor="bob", now=now)
    assert refusal.value.code == "already_there"


def test_a_head_that_moved_meanwhile_refuses_what_was_prepared_on_the_old_one(first: Version, now: datetime) -> None:
    workflow = first.workflow
    branches.create(workflow=workflow, name="side", actor="bob", now=now)
    bring(graph(**ONE), now=now, branch="side")
    bring(graph(**TWO), now=now)
    acts = [
        lambda: branches.restore(workflow=workflow, version=first, expected=first, actor="bob", now=now),
        lambda: merge(workflow, "side", expected=first, now=now),
        lambda: merge(workflow, "side", expected_source=first, now=now),
    ]
    for act in acts:
        with pytest.raises(Conflict) as refusal:
            act()
        assert refusal.value.code == "branch_moved"
        assert "stands at v" in refusal.value.message
    stale = heads.branch(workflow)
    stale.head = first
    with pytest.raises(Conflict):
        heads.move(line=stale, expected=first, to=first, reason="commit", by="x", now=now)
    assert numbers(workflow) == {"main": 3, "side": 2}


@pytest.mark.django_db(transaction=True)
def test_two_restores_at_once_move_the_head_once(now: datetime) -> None:
    first = bring(graph(), now=now)
    second = bring(graph(**ONE), now=now)
    third = bring(graph(**TWO), now=now)
    targets = (first, second)
    results = race(2, lambda n: branches.restore(workflow=first.workflow, version=targets[n], expected=third, actor="bob", now=now).name)
    said = [one.code if isinstance(one, Conflict) else one for one in results]
    assert sorted(said) == ["branch_moved", "main"]
    assert BranchMove.objects.filter(reason="restore").count() == 1


def test_main_stays_and_other_branches_can_go_while_their_versions_stay(first: Version, now: datetime) -> None:
    workflow = first.workflow
    branches.create(workflow=workflow, name="side", actor="bob", now=now)
    bring(graph(**ONE), now=now, branch="side")
    branches.delete(workflow=workflow, branch="side", actor="bob", now=now)
    assert (numbers(workflow), Version.objects.count()) == ({"main": 1}, 2)
    entry = AuditEntry.objects.latest("seq")
    assert (entry.action, entry.before) == ("branch.delete", {"branch": "side", "version": 2})
    for name, code in (("main", "main_branch"), ("side", "unknown_branch")):
        with pytest.raises((Conflict, NotFound)) as refusal:
            branches.delete(workflow=workflow, branch=name, actor="bob", now=now)
        assert refusal.value.code == code


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *(("", "branch_name_malformed"), ("A", "branch_name_malformed"), ("a b", "branch_name_malformed"), ("../x", "branch_name_malformed")),
        *(("a" * 61, "branch_name_malformed"), ("a..b", "branch_name_malformed"), ("<b>", "branch_name_malformed"), ("con:", "branch_name_malformed")),
        *(("v3", "branch_name_taken"), ("12", "branch_name_taken"), ("production", "branch_name_taken"), ("deadbeef", "branch_name_taken")),
        ("main", "branch_exists"),
    ],
)
def test_names_that_mean_something_else_are_refused(name: str, code: str, first: Version, now: datetime) -> None:
    with pytest.raises((Invalid, Conflict)) as refusal:
        branches.create(workflow=first.workflow, name=name, actor="bob", now=now)
    assert refusal.value.code == code
    assert Branch.objects.count() == 1


def test_versions_and_branches_of_another_workflow_are_refused(first: Version, now: datetime) -> None:
    other = bring(graph(**ONE), now=now, slug="ship")
    for act in (
        lambda: branches.create(workflow=first.workflow, name="x", at=other, actor="b", now=now),
        lambda: branches.restore(workflow=first.workflow, version=other, actor="b", now=now),
        lambda: merge(first.workflow, other, now=now),
    ):
        with pytest.raises(Conflict) as refusal:
            act()
        assert refusal.value.code == "version_of_other_workflow"
    with pytest.raises(NotFound):
        bring(graph(**ONE), now=now, branch="nowhere")
    with pytest.raises(NotFound):
        bring(graph(**ONE), now=now, slug="new-one", branch="nowhere")
    assert not queries.Workflow.objects.filter(slug="new-one").exists()


def test_an_archived_workflow_keeps_its_branches_as_they_are(first: Version, now: datetime) -> None:
    branches.create(workflow=first.workflow, name="side", actor="b", now=now)
    first.workflow.archived_at = now
    first.workflow.save()
    for act in (
        lambda: branches.create(workflow=first.workflow, name="x", actor="b", now=now),
        lambda: branches.restore(workflow=first.workflow, version=first, actor="b", now=now),
        lambda: merge(first.workflow, "side", now=now),
    ):
        with pytest.raises(Conflict) as refusal:
            act()
        assert refusal.value.code == "workflow_archived"


def test_an_import_makes_its_branch_when_asked_to(now: datetime) -> None:
    made = bring(graph(), now=now, branch="try", make_branch=True)
    assert numbers(made.workflow) == {"main": 1, "try": 1}
    bring(graph(**ONE), now=now, branch="other", make_branch=True)
    assert numbers(made.workflow) == {"main": 1, "other": 2, "try": 1}
    with pytest.raises(Invalid):
        bring(graph(**TWO), now=now, branch="v9", make_branch=True)


def test_versions_older_than_branches_get_a_main_branch(first: Version, now: datetime) -> None:
    second = bring(graph(**ONE), now=now)
    BranchMove.objects.all().delete()
    Branch.objects.all().delete()
    migration = importlib.import_module("builds.migrations.0010_main_branches")
    migration.give_main(apps, None)
    migration.give_main(apps, None)
    line = Branch.objects.get()
    assert (line.name, line.head, line.moves.get().reason) == ("main", second, "create")


def test_crossed_merges_take_the_newest_common_ancestor(first: Version, now: datetime) -> None:
    workflow = first.workflow
    branches.create(workflow=workflow, name="side", actor="bob", now=now)
    side, main = bring(graph(**ONE), now=now, branch="side"), bring(graph(**TWO), now=now)
    merge(workflow, side, now=now)
    merge(workflow, main, into="side", now=now, choices={})
    ready = branches.prepare(workflow=workflow, source="side")
    assert ready.kind == branches.UP_TO_DATE or ready.bases >= 1
    bring(graph(**ONE, **{}), now=now, branch="side", timeout_s=77)
    assert merge(workflow, "side", now=now).version.timeout_s == 77
