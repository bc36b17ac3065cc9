"""Importing makes immutable versions by content; channels point only at what may stand there."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from hypothesis import given
from hypothesis import strategies as st
from registry_samples import PROMPTS, object_info, prompt

from builds import importing, libraries, queries, versions
from builds.importing import ImportResult
from builds.models import NodeLibrary, Version, Workflow
from controlplane.kernel.errors import Conflict, Gone, Invalid, NotFound, WorkflowError
from controlplane.kernel.models import AuditEntry

pytestmark = pytest.mark.django_db


def bring(case: str = "01_scale_save", *, now: datetime, document: Any = None, **more: Any) -> ImportResult:
    more = {"slug": case.replace("_", "-"), "author": "ann", "draft": True, "library": object_info(), **more}
    return importing.import_graph(document=document or prompt(case), now=now, **more)


@pytest.mark.parametrize("name", PROMPTS)
def test_every_shared_prompt_imports_as_a_draft(name: str, now: datetime) -> None:
    result = bring(name, now=now)
    assert result.created
    assert result.version.number == 1
    assert result.version.runnable == (not any(one["level"] == "error" for one in result.findings))
    kept = Version.objects.get(pk=result.version.pk)
    assert versions.content_sha256(kept.graph, kept.inputs) == kept.sha256
    assert json.loads(json.dumps(kept.schema)) == kept.schema


def test_the_same_content_is_the_same_version(now: datetime) -> None:
    first, again = bring(now=now), bring(now=now)
    assert (again.created, again.version.pk) == (False, first.version.pk)
    reordered = {key: dict(reversed(node.items())) for key, node in reversed(prompt("01_scale_save").items())}
    assert bring(now=now, document={"prompt": reordered}, expose=first.version.inputs).created is False
    assert Version.objects.count() == 1


def test_a_change_makes_the_next_version_with_its_parent(now: datetime) -> None:
    first = bring(now=now)
    changed = prompt("01_scale_save")
    changed["1"]["inputs"]["color"] = 1
    second = bring(now=now, document=changed, message="bluer")
    assert (second.version.number, second.version.parent, second.version.message, second.version.author) == (2, first.version, "bluer", "ann")
    third = bring(now=now, document=changed, timeout_s=60, parent=first.version)
    assert (third.version.number, third.version.parent) == (3, first.version)
    assert [entry.action for entry in AuditEntry.objects.order_by("seq")] == ["workflow.create", *["version.create"] * 3]


def test_strict_import_refuses_with_the_first_error_and_keeps_nothing(now: datetime) -> None:
    with pytest.raises(Invalid) as refusal:
        bring("56_invalid_value_range", now=now, draft=False)
    assert refusal.value.code == "out_of_range"
    assert len(refusal.value.details["findings"]) == 2
    assert not Workflow.objects.exists()
    with pytest.raises(Invalid) as refusal:
        versions.create(workflow=bring(now=now).workflow, graph=prompt("51_invalid_unknown_class"), library=object_info(), draft=False, author="a", now=now)
    assert refusal.value.code == "unknown_node"


def test_a_circle_is_refused_even_as_a_draft(now: datetime) -> None:
    graph = {"1": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}}, "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}}
    with pytest.raises(Invalid) as refusal:
        bring("x", now=now, document=graph)
    assert refusal.value.code == "graph_cyclic"
    assert not Workflow.objects.exists()
    with pytest.raises(Invalid, match="graph_cyclic"):
        versions.create(workflow=bring(now=now).workflow, graph=graph, author="ann", now=now)


def test_a_new_version_keeps_what_customers_already_send(now: datetime) -> None:
    first = bring(now=now, expose=[{"node": "1", "input": "width", "name": "breadth", "title": "Breadth", "maximum": 512}, "2.height=tall"])
    changed = prompt("01_scale_save")
    changed["1"]["inputs"]["width"] = 100
    second = bring(now=now, document=changed)
    breadth, tall = second.version.inputs
    assert (breadth["name"], breadth["title"], breadth["maximum"], breadth["default"], breadth["required"]) == ("breadth", "Breadth", 512, 100, False)
    assert tall["name"] == "tall"
    changed["2"]["inputs"]["height"] = ["1", 0]
    third = bring(now=now, document=changed)
    assert [one["name"] for one in third.version.inputs] == ["breadth"]
    assert "input_dropped" in [one["code"] for one in third.findings]
    assert first.version.inputs[0]["default"] == 64


def test_a_slug_comes_from_the_name_and_must_fit_an_address(now: datetime) -> None:
    assert bring(now=now, slug=None, name="My first Image!").workflow.slug == "my-first-image"
    for slug, name, code in (
        (None, None, "slug_missing"),
        (None, "日本", "slug_missing"),
        ("../x", None, "slug_malformed"),
        ("A", None, "slug_malformed"),
        ("x" * 61, None, "slug_malformed"),
    ):
        with pytest.raises(Invalid) as refusal:
            bring(now=now, slug=slug, name=name)
        assert refusal.value.code == code


def test_an_archived_workflow_takes_nothing_new(now: datetime) -> None:
    result = bring(now=now)
    Workflow.objects.update(archived_at=now)
    with pytest.raises(Conflict) as refusal:
        bring(now=now)
    assert refusal.value.code == "workflow_archived"
    with pytest.raises(Conflict):
        versions.promote(workflow=result.workflow, channel="production", version=result.version, actor="ann", now=now)
    with pytest.raises(Gone):
        queries.workflow(result.workflow.slug)


def test_a_parent_of_another_workflow_is_refused(now: datetime) -> None:
    other = bring(now=now).version
    with pytest.raises(Conflict):
        bring("03_mask_composite", now=now, parent=other)


@pytest.mark.parametrize(
    "change",
    [
        {"graph": {}},
        {"inputs": []},
        {"schema": {}},
        {"sha256": "0" * 64},
        {"number": 9},
        {"message": "x"},
        {"author": "x"},
        {"parent_id": None},
        {"timeout_s": 1},
    ],
)
def test_the_database_itself_refuses_to_change_a_version(change: dict[str, Any], now: datetime) -> None:
    version = bring(now=now).version
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        Version.objects.filter(pk=version.pk).update(**change)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        Version.objects.filter(pk=version.pk)._raw_delete("default")
    Version.objects.filter(pk=version.pk).update(runnable=False, findings=[])


def test_channels_move_and_the_move_is_written_down(now: datetime) -> None:
    result = bring(now=now)
    workflow, first = result.workflow, result.version
    second = bring(now=now, timeout_s=99).version
    for version in (first, second, second):
        versions.promote(workflow=workflow, channel="production", version=version, actor="bob", reason="good", now=now)
    assert queries.serving(workflow) == second
    moves = AuditEntry.objects.filter(action="channel.promote").order_by("seq")
    assert [(entry.before["version"], entry.after["version"]) for entry in moves] == [(None, 1), (1, 2)]
    versions.promote(workflow=workflow, channel="lab", version=first, actor="bob", now=now)
    assert {channel.name: channel.version.number for channel in workflow.channels.all()} == {"production": 2, "lab": 1}


def test_a_version_that_cannot_run_stays_in_the_lab(now: datetime) -> None:
    result = bring("50_invalid_missing_required", now=now)
    versions.promote(workflow=result.workflow, channel="lab", version=result.version, actor="bob", now=now)
    for channel in ("limited", "production"):
        with pytest.raises(Conflict) as refusal:
            versions.promote(workflow=result.workflow, channel=channel, version=result.version, actor="bob", now=now)
        assert refusal.value.code == "version_not_runnable"
        assert refusal.value.details["findings"][0]["code"] == "missing_input"
    with pytest.raises(NotFound):
        versions.promote(workflow=result.workflow, channel="nowhere", version=result.version, actor="bob", now=now)
    with pytest.raises(Conflict):
        versions.promote(workflow=bring(now=now).workflow, channel="lab", version=result.version, actor="bob", now=now)


def test_warm_keys_depend_on_the_models_alone(now: datetime) -> None:
    with_model = bring("22_upscale_tiny_model_progress", now=now)
    other_size = prompt("22_upscale_tiny_model_progress")
    other_size["1"]["inputs"]["width"] = 8
    assert with_model.version.warm_key == bring("22_upscale_tiny_model_progress", now=now, document=other_size).version.warm_key != ""
    assert bring(now=now).version.warm_key == ""


def test_versions_are_found_by_number_channel_and_hash(now: datetime) -> None:
    result = bring(now=now)
    workflow, version = result.workflow, result.version
    with pytest.raises(NotFound):
        queries.version(workflow)
    versions.promote(workflow=workflow, channel="production", version=version, actor="bob", now=now)
    assert {queries.version(workflow, wanted) for wanted in (None, 1, "1", "v1", "production", version.sha256, version.sha256[:8])} == {version}
    for wanted in ("2", "lab", version.sha256[:7], "nope", "9" * 50, "-1"):
        with pytest.raises(NotFound):
            queries.version(workflow, wanted)
    assert [one.slug for one in queries.published()] == [workflow.slug]
    with pytest.raises(NotFound):
        queries.workflow("nope")


def test_a_new_library_judges_every_version_again(now: datetime) -> None:
    result = bring("55_invalid_missing_model", now=now, library=None)
    assert result.version.runnable
    assert [one["code"] for one in result.findings] == ["library_missing"]
    libraries.store(name="bare", document=object_info(), current=True, now=now)
    result.version.refresh_from_db()
    assert (result.version.runnable, result.version.findings[0]["code"]) == (False, "model_missing")
    there = {
        **object_info(),
        "CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": [["sd_xl_base_1.0.safetensors"]]}}, "output": ["MODEL", "CLIP", "VAE"]},
    }
    libraries.store(name="stocked", document=there, current=True, now=now)
    result.version.refresh_from_db()
    assert result.version.runnable
    assert libraries.current().name == "stocked"
    assert NodeLibrary.objects.filter(current=True).count() == 1
    assert libraries.named("bare").current is False


def test_the_current_library_is_read_once_and_replaced_when_its_content_changes(now: datetime, django_assert_num_queries: Any) -> None:
    assert libraries.current() is None
    libraries.store(name="a", document=object_info(), current=True, now=now)
    held = libraries.current()
    with django_assert_num_queries(1):
        assert libraries.current().classes is held.classes
    fewer = {"SaveImage": object_info()["SaveImage"]}
    libraries.store(name="a", document=fewer, now=now)
    assert set(libraries.current().classes) == {"SaveImage"}
    entries = AuditEntry.objects.count()
    libraries.store(name="a", document=fewer, current=True, now=now)
    assert AuditEntry.objects.count() == entries
    with pytest.raises(NotFound):
        libraries.named("none")


def test_what_is_no_object_info_is_refused() -> None:
    bomb = gzip.compress(b" " * 70_000_000)
    for data, code in (
        (b"x", "object_info_unreadable"),
        (b"\x1f\x8b\x00", "object_info_unreadable"),
        (b"[]", "not_object_info"),
        (b'{"a": 1}', "not_object_info"),
        (b"[" * 100_000, "object_info_unreadable"),
        (bomb, "object_info_too_large"),
    ):
        with pytest.raises(WorkflowError) as refusal:
            libraries.read_bytes(data)
        assert refusal.value.code == code
    assert "SaveImage" in libraries.read_bytes(gzip.compress(json.dumps(object_info()).encode()))


def test_canonical_json_is_stable_over_key_order_and_number_spelling() -> None:
    assert versions.canonical_json({"b": [1.0, 0.1, -0.0], "a": "é"}) == '{"a":"é","b":[1,0.1,0]}'.encode()
    assert versions.canonical_json({"x": 1e22}) == versions.canonical_json({"x": 10**22})


def as_jsonb_gives_it(value: Any) -> Any:
    """Numbers written out in full, as a PostgreSQL jsonb column returns them."""
    if isinstance(value, float):
        return json.loads(format(Decimal(repr(value)), "f"))
    if isinstance(value, dict):
        return {key: as_jsonb_gives_it(inner) for key, inner in value.items()}
    return [as_jsonb_gives_it(inner) for inner in value] if isinstance(value, list) else value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8")),
        lambda x: st.lists(x) | st.dictionaries(st.text(st.characters(codec="utf-8")), x),
    )
)
def test_canonical_json_survives_a_trip_through_a_json_column(value: Any) -> None:
    once = versions.canonical_json(value)
    assert versions.canonical_json(json.loads(json.dumps(value))) == once
    assert versions.canonical_json(as_jsonb_gives_it(value)) == once
    assert versions.canonical_json(json.loads(once)) == once
