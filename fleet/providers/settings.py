"""What a pool may tell its provider: one schema per provider, with the words that explain each setting. Pure.

A pool's `settings` and the `placement` of its offers take the same settings; a placement's count for that kind of machine.
A provider's module of settings holds `SETTINGS`, and `consistent` where settings must agree with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from controlplane.kernel.errors import Invalid

_MODULES = {"docker": "fleet.providers.docker_settings", "kubernetes": "fleet.providers.kubernetes.settings"}
_WITHOUT = ("local", "external")
MOST_BYTES = 20_000


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `check` gives the value to keep, or raises ValueError with what was expected, as in "must be …"."""

    help: str
    check: Callable[[Any], Any]
    default: Any = None


def known(provider: str) -> dict[str, Setting] | None:
    """The settings of `provider` by name; None when it has no schema, so that anything may be said."""
    if provider in _WITHOUT:
        return {}
    return getattr(import_module(_MODULES[provider]), "SETTINGS", {}) if provider in _MODULES else None


def checked(provider: str, given: object, *, placements: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The pool's settings as they are to be kept.

    `placements` are those of its offers, by what to call them in a refusal. Raises Invalid `pool_settings_invalid`, whose
    details name every setting that is wrong and why: `{"field": "settings", "settings": {name: sentence}}`.
    """
    wrong: dict[str, str] = {}
    found = _each(provider, given, "", wrong)
    for name, placement in (placements or {}).items():
        own = _each(provider, placement, f"{name}: ", wrong)
        _agree(provider, {**found, **own}, f"{name}: ", wrong)
    _agree(provider, found, "", wrong)
    if wrong:
        first, why = next(iter(wrong.items()))
        more = f" {len(wrong) - 1} more are wrong." if len(wrong) > 1 else ""
        schema = known(provider)
        raise Invalid(
            "pool_settings_invalid",
            f"The setting {first} {why}.{more}"[:500],
            f"Known settings: {', '.join(sorted(schema))}." if schema else "This provider takes no settings.",
            details={"field": "settings", "settings": wrong},
        )
    return found


def _each(provider: str, given: object, prefix: str, wrong: dict[str, str]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        wrong[f"{prefix}settings".strip()] = "must be a JSON object"
        return {}
    schema = known(provider)
    if schema is None:
        return dict(given)
    found: dict[str, Any] = {}
    for name, value in list(given.items())[:200]:
        setting = schema.get(str(name))
        if setting is None:
            wrong[f"{prefix}{str(name)[:60]}"] = "is not known"
            continue
        try:
            if len(repr(value)) > MOST_BYTES:
                raise ValueError("is too long")
            found[str(name)] = setting.check(value)
        except ValueError as error:
            wrong[f"{prefix}{name}"] = str(error)
    return found


def _agree(provider: str, found: Mapping[str, Any], prefix: str, wrong: dict[str, str]) -> None:
    if wrong or provider not in _MODULES:
        return
    consistent = getattr(import_module(_MODULES[provider]), "consistent", None)
    if consistent is not None:
        wrong.update({f"{prefix}{name}": why for name, why in consistent(found).items()})
