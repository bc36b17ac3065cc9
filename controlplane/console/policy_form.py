"""The form of a pool's sizing: what its fields hold, and the terms made of what was typed. Says what is wrong beside each field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from django.http import HttpRequest

from controlplane.console import actions, policy_words
from controlplane.kernel import money
from controlplane.kernel.errors import WorkflowError
from fleet import pools
from fleet.models import Pool
from fleet.providers import settings as provider_settings
from fleet.sizing import policies

MOST_SETTINGS = 20_000
MONEY = ("budget_hour", "budget_day", "price")
SETTING_FIELDS = {
    "budget_per_hour_microusd": "budget_hour",
    "budget_per_day_microusd": "budget_day",
    "price_per_hour_microusd": "price",
    "on_demand_share": "on_demand",
    "max": "maximum",
}


class Wrong(Exception):
    """What was typed cannot be read."""


@dataclass(slots=True)
class Form:
    """Values as typed, the terms they mean, and what is wrong, by field."""

    values: dict[str, Any]
    changes: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def knobs(self) -> list[dict[str, Any]]:
        """Each policy with its knobs' fields."""
        return [
            {
                "policy": name,
                "name": policy_words.name_of(name),
                "text": policy_words.POLICIES.get(name, ("", ""))[1],
                "knobs": [
                    {"k": knob, "value": self.values.get(knob.field, f"{knob.usual:g}"), "error": self.errors.get(knob.field, "")}
                    for knob in policy_words.knobs_of(name)
                ],
            }
            for name in policies.POLICIES
        ]


def of_pool(pool: Pool) -> Form:
    """The form as it stands before anything is typed."""
    values: dict[str, Any] = {
        "policy": pool.policy,
        "base": pool.base,
        "maximum": pool.max,
        "target_s": f"{pool.target_s:g}",
        "target_share": f"{pool.target_share * 100:g}",
        "forecast_floor": pool.forecast_floor,
        "forecast_base": "" if pool.forecast_base is None else pool.forecast_base,
        "budget_hour": _usd(pool.budget_per_hour_microusd),
        "budget_day": _usd(pool.budget_per_day_microusd),
        "price": _usd(pool.price_per_hour_microusd),
        "on_demand": f"{pool.on_demand_share * 100:g}",
        "image": pool.image,
        "start_s": "" if pool.start_s is None else f"{pool.start_s:g}",
        "settings": json.dumps(pool.settings, indent=2) if pool.settings else "",
        "shadows": [str(s.get("policy")) for s in pool.shadows if isinstance(s, dict)],
        "reason": "",
    }
    for name in policies.POLICIES:
        own = _own_knobs(pool, name)
        values |= {knob.field: f"{own.get(knob.name, knob.usual):g}" for knob in policy_words.knobs_of(name)}
    return Form(values)


def _own_knobs(pool: Pool, policy: str) -> Mapping[str, float]:
    """Knobs the pool sets for a policy: its own, or one in shadow."""
    if policy == pool.policy:
        return pool.knobs if isinstance(pool.knobs, dict) else {}
    for shadow in pool.shadows:
        if isinstance(shadow, dict) and shadow.get("policy") == policy and isinstance(shadow.get("knobs"), dict):
            return dict(shadow["knobs"])
    return {}


def read(request: HttpRequest, pool: Pool, *, with_image: bool = True, with_money: bool = True) -> Form:
    """What was typed. `changes` are terms for `pools.change`; they are checked against the pool when nothing was unreadable.

    A field that is not sent keeps what the pool has, so that a script may send a few. Without `with_money` prices and budgets are as
    if they were not sent: who may not see them cannot try them out either.
    """
    form = of_pool(pool)
    post = request.POST
    whole = "forecast_floor_shown" in post  # a checkbox that is off sends nothing: only a whole form may be read that way
    for name, value in form.values.items():
        if name in post and name not in ("shadows", "forecast_floor", "settings") and (with_money or name not in MONEY):
            form.values[name] = actions.text(request, name, most=300)
        elif isinstance(value, int) and not isinstance(value, bool):
            form.values[name] = str(value)
    if "settings" in post:
        form.values["settings"] = actions.text(request, "settings", most=MOST_SETTINGS)
    if whole:
        form.values["forecast_floor"] = "forecast_floor" in post
        form.values["shadows"] = [name for name in post.getlist("shadows") if name in policies.POLICIES]
    _terms(form, pool)
    if not with_image:
        form.changes.pop("image", None)
    if not form.errors:
        _check(form, pool)
    return form


def _terms(form: Form, pool: Pool) -> None:
    v = form.values
    take = _Taker(form)
    take("base", "base", lambda: whole(v["base"], "The minimum"))
    take("max", "maximum", lambda: whole(v["maximum"], "The maximum"))
    take("target_s", "target_s", lambda: number(v["target_s"], "The wait target"))
    take("target_share", "target_share", lambda: _share(v["target_share"]))
    take("forecast_base", "forecast_base", lambda: None if str(v["forecast_base"]).strip() == "" else whole(v["forecast_base"], "It"))
    take("budget_per_hour_microusd", "budget_hour", lambda: dollars(v["budget_hour"]))
    take("budget_per_day_microusd", "budget_day", lambda: dollars(v["budget_day"]))
    take("price_per_hour_microusd", "price", lambda: dollars(v["price"]) or 0)
    take("on_demand_share", "on_demand", lambda: _share(v["on_demand"]))
    take("start_s", "start_s", lambda: None if str(v["start_s"]).strip() == "" else number(v["start_s"], "The startup budget"))
    take("settings", "settings", lambda: settings_of(pool.provider, v["settings"]))
    form.changes |= {"policy": str(v["policy"]), "image": str(v["image"]), "forecast_floor": bool(v["forecast_floor"])}
    form.changes["knobs"] = _knobs(form, form.changes["policy"])
    form.changes["shadows"] = [{"policy": name, "knobs": _knobs(form, name)} for name in v["shadows"] if name != form.changes["policy"]]


def _knobs(form: Form, policy: str) -> dict[str, float]:
    """What differs from the policy's usual values."""
    found: dict[str, float] = {}
    if policy not in policies.POLICIES:
        form.errors["policy"] = f"There is no policy {policy[:40]}. Choose one from the list."
        return found
    for knob in policy_words.knobs_of(policy):
        try:
            value = number(form.values[knob.field], knob.label)
        except Wrong as wrong:
            form.errors[knob.field] = str(wrong)
            continue
        if value != knob.usual:
            found[knob.name] = value
    return found


def _check(form: Form, pool: Pool) -> None:
    """Ask the rules of pools; a refusal lands beside its field."""
    try:
        pools.checked(pool, form.changes)
    except WorkflowError as refusal:
        form.errors[field_of(refusal, form)] = f"{refusal.message} {refusal.suggestion}"


def field_of(refusal: WorkflowError, form: Form) -> str:
    """The field a refusal belongs to."""
    named = str(refusal.details.get("field", ""))
    named = SETTING_FIELDS.get(named, {"policy": "policy", "shadows": "shadows", "image": "image"}.get(named, named))
    if named in form.values:
        return named
    knob = f"{form.changes.get('policy')}.{named}"
    return knob if knob in form.values else "base"


class _Taker:
    """Reads one term, or keeps what is wrong with it."""

    def __init__(self, form: Form) -> None:
        self.form = form

    def __call__(self, term: str, name: str, value: Callable[[], Any]) -> None:
        try:
            self.form.changes[term] = value()
        except Wrong as wrong:
            self.form.errors[name] = str(wrong)


def settings_of(provider: str, text: str) -> dict[str, Any]:
    """Provider settings from JSON, checked against the provider's schema. Raises Wrong."""
    if not str(text).strip():
        return {}
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise Wrong('This is not JSON. Write an object such as {"memory_mib": 16384}, or leave it empty.') from None
    try:
        return provider_settings.checked(provider, given)
    except WorkflowError as refusal:
        raise Wrong(f"{refusal.message} {refusal.suggestion}") from None


def known_settings(provider: str) -> list[tuple[str, str, Any]]:
    """(setting, what it means, its usual value) of a provider."""
    return [(name, one.help, one.default) for name, one in sorted((provider_settings.known(provider) or {}).items())]


def whole(text: Any, what: str) -> int:
    value = actions.number(str(text))
    if value is None:
        raise Wrong(f"{what} must be a whole number.")
    return int(value)


def number(text: Any, what: str) -> float:
    value = actions.number(str(text), whole=False)
    if value is None:
        raise Wrong(f"{what} must be a number.")
    return value


def _share(text: Any) -> float:
    value = actions.number(str(text).rstrip("% "), whole=False)
    if value is None:
        raise Wrong("This must be a percentage, such as 99.")
    return round(value / 100, 6)


def dollars(text: Any) -> int | None:
    """Micro-dollars; None for an empty field."""
    plain = str(text).strip().lstrip("$")
    if not plain:
        return None
    try:
        return money.from_usd(plain)
    except ValueError:
        raise Wrong("This must be dollars, such as 0.86, with at most six decimals.") from None


def _usd(microusd: int | None) -> str:
    return "" if microusd is None else f"{Decimal(microusd) / 1_000_000:f}".rstrip("0").rstrip(".") if microusd % 1_000_000 else str(microusd // 1_000_000)
