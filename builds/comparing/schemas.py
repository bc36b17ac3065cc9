"""Whether customers' calls go on working: the verdict on two lists of exposed inputs, with one reason an input.

Breaking is what may refuse a call that was accepted before. A changed default is compatible, yet named:
calls that leave the input out get another result. Texts for people are no part of the contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from builds.comparing.content import same
from builds.exposed import ExposedInput
from builds.validation import MAX_TEXT

UNCHANGED, COMPATIBLE, BREAKING = "unchanged", "compatible", "breaking"
_RANK = {UNCHANGED: 0, COMPATIBLE: 1, BREAKING: 2}
_SHOWN = 12
_LONGEST = 80


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that changed for callers. `level` is what it alone would make of the verdict."""

    level: str
    code: str
    input: str
    message: str
    before: Any = None
    after: Any = None


def verdict(reasons: Iterable[Reason]) -> str:
    """The gravest of the reasons, `unchanged` without any."""
    return max((reason.level for reason in reasons), key=_RANK.__getitem__, default=UNCHANGED)


def compare(before: Iterable[ExposedInput], after: Iterable[ExposedInput], *, same_place: Callable[[ExposedInput, ExposedInput], bool]) -> list[Reason]:
    """Every reason, gravest first; `same_place` tells whether two inputs set the same field of the same node."""
    old, new = {one.name: one for one in before}, {one.name: one for one in after}
    gone, come = [one for name, one in old.items() if name not in new], [one for name, one in new.items() if name not in old]
    reasons: list[Reason] = []
    for one in gone:
        heir = next((other for other in come if same_place(one, other)), None)
        if heir:
            come.remove(heir)
            message = f"{one.name} is called {heir.name} now; calls that send {one.name} are refused."
            reasons.append(Reason(BREAKING, "input_renamed", one.name, message, one.name, heir.name))
            reasons += _of_pair(one, heir, moved=False)
        else:
            reasons.append(Reason(BREAKING, "input_removed", one.name, f"{one.name} is gone; calls that send it are refused.", _type(one), None))
    for one in come:
        if one.required:
            reasons.append(
                Reason(BREAKING, "input_added_required", one.name, f"{one.name} is new and required; calls without it are refused.", None, _type(one))
            )
        else:
            reasons.append(Reason(COMPATIBLE, "input_added", one.name, f"{one.name} is new and may be left out.", None, _type(one)))
    for name, one in old.items():
        if name in new:
            reasons += _of_pair(one, new[name], moved=not same_place(one, new[name]))
    return sorted(reasons, key=lambda reason: -_RANK[reason.level])


def _of_pair(a: ExposedInput, b: ExposedInput, *, moved: bool) -> list[Reason]:
    name = b.name
    found: list[Reason] = []

    def say(level: str, code: str, message: str, before: Any, after: Any) -> None:
        found.append(Reason(level, code, name, message, before, after))

    if moved:
        message = f"{name} sets {b.input} of node {b.node} now, no longer {a.input} of node {a.node}."
        say(COMPATIBLE, "input_moved", message, f"{a.node}.{a.input}", f"{b.node}.{b.input}")
    if _type(a) != _type(b):
        wider = (a.type, b.type, a.kind, b.kind) == ("integer", "number", "value", "value")
        said = "also takes fractions" if wider else f"takes {_type(b)} now, no longer {_type(a)}"
        say(COMPATIBLE if wider else BREAKING, "type_widened" if wider else "type_changed", f"{name} {said}.", _type(a), _type(b))
        if not wider:
            return found
    if a.required != b.required:
        if b.required:
            say(BREAKING, "became_required", f"{name} is required now; calls without it are refused.", False, True)
        else:
            say(COMPATIBLE, "became_optional", f"{name} may be left out now.", True, False)
    found += [*_enums(a, b), *_ranges(a, b)]
    if not same(a.default, b.default) and not (a.required and b.required):
        message = f"Calls that leave {name} out get {_said(b.default)} instead of {_said(a.default)}."
        say(COMPATIBLE, "default_changed", message, a.default, b.default)
    if a.randomize != b.randomize:
        message = f"Left out, {name} gets a new random value." if b.randomize else f"Left out, {name} is no longer random."
        say(COMPATIBLE, "randomize_changed", message, a.randomize, b.randomize)
    texts = [field for field in ("title", "description") if getattr(a, field) != getattr(b, field)]
    if texts:
        say(UNCHANGED, "wording_changed", f"The {' and '.join(texts)} of {name} changed.", getattr(a, texts[0]), getattr(b, texts[0]))
    return found


def _enums(a: ExposedInput, b: ExposedInput) -> list[Reason]:
    if a.enum is None and b.enum is None:
        return []
    if a.enum is None:
        return [Reason(BREAKING, "became_choice", b.name, f"{b.name} takes one of {len(b.enum or ())} values only.", None, (b.enum or [])[:_SHOWN])]
    if b.enum is None:
        return [Reason(COMPATIBLE, "choice_opened", b.name, f"{b.name} is no longer bound to a list of values.", a.enum[:_SHOWN], None)]
    old, new = [_key(value) for value in a.enum], [_key(value) for value in b.enum]
    have, had = set(new), set(old)
    lost = [value for value, key in zip(a.enum, old, strict=True) if key not in have]
    gained = [value for value, key in zip(b.enum, new, strict=True) if key not in had]
    found = []
    if lost:
        found.append(Reason(BREAKING, "choice_removed", b.name, f"{b.name} no longer takes {_listed(lost)}.", lost[:_SHOWN], None))
    if gained:
        found.append(Reason(COMPATIBLE, "choice_added", b.name, f"{b.name} also takes {_listed(gained)}.", None, gained[:_SHOWN]))
    return found


def _ranges(a: ExposedInput, b: ExposedInput) -> list[Reason]:
    if a.enum is not None or b.enum is not None:
        return []
    found = []
    if b.type in ("integer", "number"):
        found += _bound(b.name, "minimum", a.minimum, b.minimum, narrower=lambda old, new: new > old)
        found += _bound(b.name, "maximum", a.maximum, b.maximum, narrower=lambda old, new: new < old)
        old, new = a.multiple_of or 1, b.multiple_of or 1
        if old != new:
            level = BREAKING if old % new else COMPATIBLE
            found.append(Reason(level, "step_changed", b.name, f"{b.name} takes multiples of {new} now, before of {old}.", old, new))
    if b.type == "string" and not b.is_file:
        found += _bound(b.name, "longest text", a.max_length or MAX_TEXT, b.max_length or MAX_TEXT, narrower=lambda old, new: new < old)
    return found


def _bound(name: str, what: str, old: float | None, new: float | None, *, narrower: Callable[[float, float], bool]) -> list[Reason]:
    if old == new:
        return []
    tighter = new is not None and (old is None or narrower(old, new))
    said = f"The {what} of {name} is {'open' if new is None else new} now, before {'open' if old is None else old}."
    return [Reason(BREAKING if tighter else COMPATIBLE, "range_narrowed" if tighter else "range_widened", name, said, old, new)]


def _type(one: ExposedInput) -> str:
    return one.kind if one.is_file else one.type


def _key(value: Any) -> Any:
    return (isinstance(value, bool), value) if isinstance(value, str | int | float | None) else repr(value)


def _listed(values: list[Any]) -> str:
    more = f" and {len(values) - 3} more" if len(values) > 3 else ""
    return ", ".join(_said(value) for value in values[:3]) + more


def _said(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
