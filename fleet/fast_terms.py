"""What fast mode may be asked of a workflow: a version that is cheaper and runs, inputs that it takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from builds import inputs as input_rules
from builds.models import Channel, Version, Workflow
from controlplane.kernel.errors import Conflict, Invalid
from fleet.models import Pool


def checked(workflow: Workflow, *, version: int | None, overrides: Mapping[str, Any], force: Collection[str]) -> tuple[Pool, Version | None, dict[str, Any]]:
    """The pool, the cheaper version and the inputs as they will be set. Raises Invalid or Conflict."""
    pool = _pool_of(workflow)
    live = _live(workflow)
    cheaper = _cheaper(workflow, version, live) if version is not None else None
    values = _checked(cheaper or live, overrides)
    unknown = sorted(set(force) - set(values))
    if unknown:
        raise Invalid("force_unknown", f"{str(unknown[0])[:60]!r} is forced but not set.", "Give it a value in overrides.", details={"field": "force"})
    if cheaper is None and not values:
        raise Invalid("fast_changes_nothing", "Fast mode needs a version or inputs to set.", "Name a cheaper version, or inputs such as steps=12.")
    return pool, cheaper, values


def _pool_of(workflow: Workflow) -> Pool:
    pool = Pool.objects.filter(slug=workflow.pool_slug).first()
    if pool is None:
        raise Conflict("pool_missing", f"No pool serves {workflow.slug}.", "Give the workflow a pool first.")
    return pool


def _live(workflow: Workflow) -> Version:
    channel = Channel.objects.select_related("version").filter(workflow=workflow, name=Channel.Name.PRODUCTION).first()
    if channel is None:
        raise Conflict("workflow_not_released", f"No version of {workflow.slug} is in production.", "There is nothing to run faster yet.")
    return channel.version


def _cheaper(workflow: Workflow, number: int, live: Version) -> Version:
    found = Version.objects.filter(workflow=workflow, number=number).first() if type(number) is int and 0 < number < 2**31 else None
    if found is None:
        raise Invalid("version_unknown", f"{workflow.slug} has no version {number}.", "Choose one of its versions.", details={"field": "version"})
    if not found.runnable:
        raise Invalid("version_not_runnable", f"Version {number} of {workflow.slug} cannot run.", "Choose one that can.", details={"field": "version"})
    if found.id == live.id:
        raise Invalid(
            "version_is_live", f"Version {number} is what production runs already.", "Choose a cheaper one, or set inputs.", details={"field": "version"}
        )
    return found


def _checked(version: Version, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides as the version takes them; raises Invalid naming the field."""
    if not isinstance(overrides, Mapping):
        raise Invalid("wrong_type", "overrides must be an object.", 'Send {"steps": 12}.', details={"field": "overrides"})
    exposed = {one.name: one for one in input_rules.exposed_of(version)}
    for name in overrides:
        if name in exposed and exposed[name].is_file:
            raise Invalid("override_is_file", f"{name} is a file of the customer's.", "Set numbers, texts and choices only.", details={"field": name})
    try:
        return dict(input_rules.validate_some(version, overrides))
    except Invalid as refusal:
        refusal.code = "override_invalid" if refusal.code != "unknown_field" else "override_unknown"
        raise
