"""The inputs a version's smoke job runs with, as they are kept: generated, recorded from a job, or written by a person.

A later one takes the place of an earlier one; every change by a person is audited. What is kept was accepted by the
version's own check, and versions do not change, so it stays good.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.db import transaction

from builds import inputs as input_rules
from builds import smoke_inputs
from builds.models import SmokeInput, Version
from controlplane.kernel import audit
from controlplane.kernel.errors import Invalid

MAX_BYTES = 2_000_000
SYSTEM = "system"


def of_version(version: Version, *, now: datetime) -> SmokeInput:
    """What the version's smoke job runs with, generated now when there is nothing yet. Raises Invalid when no rule can fill an input."""
    kept = SmokeInput.objects.filter(version=version).first()
    if kept is not None:
        return kept
    made = _generated(version)
    return SmokeInput.objects.get_or_create(
        version=version, defaults={"inputs": made, "origin": SmokeInput.Origin.GENERATED, "author": SYSTEM, "created_at": now}
    )[0]


def write(*, version: Version, inputs: Any, origin: str = SmokeInput.Origin.WRITTEN, actor: str, reason: str = "", now: datetime) -> SmokeInput:
    """Keep `inputs` for the version's smoke job; raises Invalid as a job with them would be refused."""
    if len(json.dumps(inputs)) > MAX_BYTES:
        raise Invalid(
            "smoke_input_too_large", f"The inputs of a smoke job may hold {MAX_BYTES:,} bytes at most.", "Use a smaller file; a smoke job wants to be small."
        )
    return _keep(version, input_rules.validate(version, inputs), origin=origin, actor=actor, reason=reason, now=now)


def regenerate(*, version: Version, actor: str, now: datetime) -> SmokeInput:
    """Put generated inputs in the place of recorded or written ones."""
    return _keep(version, _generated(version), origin=SmokeInput.Origin.GENERATED, actor=actor, reason="", now=now)


@transaction.atomic
def _keep(version: Version, inputs: dict[str, Any], *, origin: str, actor: str, reason: str, now: datetime) -> SmokeInput:
    before = SmokeInput.objects.filter(version=version).values_list("origin", flat=True).first()
    kept, _ = SmokeInput.objects.update_or_create(version=version, defaults={"inputs": inputs, "origin": origin, "author": actor[:120], "created_at": now})
    audit.record(
        actor=actor,
        action="smoke.inputs",
        object_type="version",
        object_id=str(version.pk),
        before={"origin": before},
        after={"origin": origin, "inputs": sorted(inputs)},
        reason=reason,
        now=now,
    )
    return kept


def _generated(version: Version) -> dict[str, Any]:
    made = smoke_inputs.generate(version.inputs)
    if made.missing:
        raise Invalid(
            "smoke_input_needed",
            f"No value can be made up for {', '.join(made.missing[:5])} of v{version.number}.",
            "Write the inputs of its smoke job, or record them from a test run that went well.",
            details={"fields": list(made.missing)},
        )
    return input_rules.validate(version, made.inputs)
