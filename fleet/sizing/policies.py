"""The policies by name, and their knobs as people write them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from controlplane.kernel.errors import Invalid
from fleet.sizing.request_count import RequestCount
from fleet.sizing.seen import Policy
from fleet.sizing.threshold import Threshold
from fleet.sizing.wait_target import WaitTarget

DEFAULT = WaitTarget.name
POLICIES: dict[str, type[Any]] = {WaitTarget.name: WaitTarget, RequestCount.name: RequestCount, Threshold.name: Threshold}


def make(name: str, knobs: Mapping[str, Any] | None = None) -> Policy:
    """The policy `name` with these knobs over its defaults. Raises Invalid for a name or knob there is not, or a value that is no number."""
    if name not in POLICIES:
        raise Invalid("policy_unknown", f"There is no sizing policy {name!r}.", f"Choose from {', '.join(POLICIES)}.", details={"field": "policy"})
    known = defaults(name)
    values: dict[str, float] = {}
    for knob, value in (knobs or {}).items():
        if knob not in known:
            raise Invalid("knob_unknown", f"{name} has no knob {knob!r}.", f"It has {', '.join(known) or 'none'}.", details={"field": knob})
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1e6:
            raise Invalid(
                "knob_invalid", f"{knob} must be a number from 0 to a million, not {value!r}.", f"Its usual value is {known[knob]:g}.", details={"field": knob}
            )
        values[knob] = float(value)
    made: Policy = POLICIES[name](**values)
    return made


def defaults(name: str) -> dict[str, float]:
    """The knobs of a policy with their usual values."""
    return {f.name: f.default for f in fields(POLICIES[name]) if f.default is not MISSING}
