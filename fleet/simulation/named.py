"""Policies by name for a simulation: those a pool may have, and the published rules they are compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from controlplane.kernel.errors import Invalid
from fleet.simulation.peers import PEERS
from fleet.sizing import policies
from fleet.sizing.seen import Policy

ALL: dict[str, type[Any]] = {**policies.POLICIES, **PEERS}


def make(name: str, knobs: Mapping[str, float] | None = None) -> Policy:
    """The policy or published rule `name`. Raises Invalid for a name or knob there is not."""
    if name in policies.POLICIES:
        return policies.make(name, knobs)
    if name not in PEERS:
        raise Invalid("policy_unknown", f"There is no sizing policy {name[:60]!r}.", f"Choose from {', '.join(ALL)}.", details={"field": "policy"})
    known = defaults(name)
    for knob, value in (knobs or {}).items():
        if knob not in known:
            raise Invalid("knob_unknown", f"{name} has no knob {knob[:60]!r}.", f"It has {', '.join(known) or 'none'}.", details={"field": knob})
        # Those with a target or a count per worker divide by it.
        least = 0.0 if known[knob] == 0 or knob.endswith("_s") else 0.001
        if not math.isfinite(value) or not least <= value <= 1e6:
            raise Invalid("knob_invalid", f"{knob} must be a number from {least:g} to a million, not {value!r}.", details={"field": knob})
    made: Policy = PEERS[name](**(knobs or {}))
    return made


def defaults(name: str) -> dict[str, float]:
    """Its knobs with their usual values."""
    return {f.name: f.default for f in fields(ALL[name]) if f.default is not MISSING and f.init}


def about(name: str) -> str:
    """What it does, in its own words."""
    return " ".join((ALL[name].__doc__ or "").split())
