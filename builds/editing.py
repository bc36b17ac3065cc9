"""Change what a workflow says of itself. What it runs is a version, and versions never change."""

from __future__ import annotations

import re
from datetime import datetime

from django.db import transaction

from builds.models import Workflow
from controlplane.kernel import audit
from controlplane.kernel.errors import Invalid, NotFound

LONGEST_CACHE_S = 30 * 86_400
_CATEGORY = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@transaction.atomic
def edit(*, slug: str, name: str, description: str, category: str, result_cache_s: int, actor: str, request_id: str = "", now: datetime) -> Workflow:
    """Keep the new settings and write down what they were; equal settings write nothing."""
    workflow = Workflow.objects.select_for_update().filter(slug=slug).first()
    if workflow is None:
        raise NotFound("workflow_not_found", "There is no such workflow.", "Choose one from the list.")
    wanted = {"name": name.strip(), "description": description.strip(), "category": category.strip().lower(), "result_cache_s": result_cache_s}
    _check(wanted["name"], wanted["description"], wanted["category"], result_cache_s)
    before = {field: getattr(workflow, field) for field in wanted}
    changed = [field for field in wanted if wanted[field] != before[field]]
    if changed:
        for field in changed:
            setattr(workflow, field, wanted[field])
        workflow.save(update_fields=changed)
        audit.record(
            actor=actor, action="workflow.edit", object_type="workflow", object_id=slug, before={f: before[f] for f in changed},
            after={f: wanted[f] for f in changed}, request_id=request_id, now=now,
        )  # fmt: skip
    return workflow


def _check(name: object, description: object, category: object, result_cache_s: int) -> None:
    if not name or len(str(name)) > 120:
        raise Invalid("name_length", "A workflow needs a name of at most 120 characters.", "Write a short name.", details={"field": "name"})
    if len(str(description)) > 500:
        raise Invalid("description_too_long", "The description is longer than 500 characters.", "Shorten it.", details={"field": "description"})
    if not _CATEGORY.fullmatch(str(category)):
        raise Invalid(
            "category_malformed",
            "A category is one word of small letters, digits and hyphens.",
            "Write image, video, audio or the like.",
            details={"field": "category"},
        )
    if not 0 <= result_cache_s <= LONGEST_CACHE_S:
        raise Invalid(
            "cache_out_of_range", f"The result cache lasts between 0 and {LONGEST_CACHE_S:,} seconds.", "0 turns it off.", details={"field": "result_cache_s"}
        )
