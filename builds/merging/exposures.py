"""Merge what customers may set: exposed inputs by their place in the graph, attribute by attribute.

A default that follows the graph's own value goes on following it, so that one change is not asked about twice.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from builds.comparing.content import same
from builds.comparing.differences import ABSENT
from builds.exposed import ExposedInput
from builds.links import literal
from builds.merging.clashes import INPUTS, OURS, THEIRS, Court
from builds.merging.mending import restore
from builds.merging.nodes import Key, Node, Three, Wire

Place = tuple[Key, str]
Exposed = dict[Place, ExposedInput]
_ATTRIBUTES = [one.name for one in fields(ExposedInput) if one.name not in ("node", "input")]


def merge(base: list[ExposedInput], ours: list[ExposedInput], theirs: list[ExposedInput], *, nodes: dict[Key, Node], three: Three, court: Court) -> Exposed:
    """The exposed inputs of both sides by place; a node that one of them needs is put back into `nodes`."""
    b, o, t = (_placed(items, three, side) for items, side in ((base, "base"), (ours, "ours"), (theirs, "theirs")))
    merged: Exposed = {}
    for place in {**o, **t}:
        follows = all(_follows(items[place], place, side) for items, side in ((b, three.base), (o, three.ours), (t, three.theirs)) if place in items)
        removed = place[0] not in (three.ours if place in t else three.theirs)
        one = _one(b.get(place), o.get(place), t.get(place), court, follows=follows, stays=removed and place[0] in nodes)
        if one is not None and _held(place, one, nodes, three, court, o, t):
            merged[place] = _with(one, default=literal(nodes[place[0]].inputs.get(place[1]))) if follows else one
    return _named_once(merged, o, court)


def settle(merged: Exposed, nodes: dict[Key, Node], three: Three) -> tuple[list[ExposedInput], list[str]]:
    """The list as a version keeps it, and the names of those whose place a later choice took away."""
    kept, lost = [], []
    for (key, name), one in merged.items():
        if key in nodes and not isinstance(nodes[key].inputs.get(name), Wire):
            kept.append(_with(one, node=three.ids[key]))
        else:
            lost.append(one.name)
    return kept, lost


def _placed(items: list[ExposedInput], three: Three, side: str) -> Exposed:
    return {(three.keys[side].get(one.node, ("nowhere", one.node)), one.input): one for one in items}


def _one(b: ExposedInput | None, o: ExposedInput | None, t: ExposedInput | None, court: Court, *, follows: bool, stays: bool) -> ExposedInput | None:
    """`follows`: its default is the graph's own value on every side. `stays`: one side removed its node, and the merge kept it."""
    if o is None or t is None:
        left = o or t
        if b is None or left is None or stays:
            return left
        if all(same(getattr(b, name), getattr(left, name)) for name in _ATTRIBUTES if name != "default" or not follows):
            return None
        mine, other = (OURS, "they") if t is None else (THEIRS, "we")
        base, ours, theirs = (ABSENT if one is None else one.dump() for one in (b, o, t))
        return left if court.choose(INPUTS, left.name, base, ours, theirs, f"It was changed here and {other} no longer expose it.") == mine else None
    values = o.dump()
    for name in _ATTRIBUTES:
        x, y, z = (ABSENT if one is None else getattr(one, name) for one in (b, o, t))
        if same(y, z) or (x is not ABSENT and same(x, z)) or (name == "default" and follows):
            continue
        if (x is not ABSENT and same(x, y)) or court.choose(
            INPUTS, f"{o.name}.{name}", x, y, z, f"Both sides changed the {name} of the input {o.name}."
        ) == THEIRS:
            values[name] = z
    return ExposedInput.load(values)


def _follows(one: ExposedInput, place: Place, side: dict[Key, Node]) -> bool:
    """Whether its default is the graph's own value, so that it goes on being that."""
    key, name = place
    return key in side and name in side[key].inputs and not one.is_file and same(one.default, literal(side[key].inputs[name]))


def _held(place: Place, one: ExposedInput, nodes: dict[Key, Node], three: Three, court: Court, o: Exposed, t: Exposed) -> bool:
    """Whether the input can be set in the merged graph, or was put back so that it can."""
    key, name = place
    if key in nodes and not isinstance(nodes[key].inputs.get(name), Wire):
        return True
    mine, side = (OURS, three.ours) if place in o else (THEIRS, three.theirs)
    if key not in side:
        return False
    what = "is fed by another node" if key in nodes else "belongs to a node that was removed"
    state = one.dump()
    ours, theirs = (state if place in o else ABSENT), (state if place in t else ABSENT)
    if court.choose(INPUTS, one.name, ABSENT, ours, theirs, f"It is exposed on one side, and on the other it {what}.") != mine:
        return False
    restore(nodes, key, side)
    if name in side[key].inputs:
        nodes[key].inputs[name] = side[key].inputs[name]
    else:
        nodes[key].inputs.pop(name, None)
    return True


def _named_once(merged: Exposed, ours: Exposed, court: Court) -> Exposed:
    """Each name for one place: where both sides gave it to different ones, the choice keeps it."""
    by_name: dict[str, list[Place]] = {}
    for place, one in merged.items():
        by_name.setdefault(one.name, []).append(place)
    for name, places in by_name.items():
        if len(places) > 1:
            first, second = sorted(places, key=lambda place: place not in ours)[:2]
            why = f"Both sides call an input {name}, but not the same one."
            chosen = court.choose(INPUTS, name, ABSENT, merged[first].dump(), merged[second].dump(), why)
            kept = first if chosen == OURS else second
            for place in places:
                if place != kept:
                    del merged[place]
    return merged


def _with(one: ExposedInput, **values: Any) -> ExposedInput:
    return ExposedInput.load({**one.dump(), **values})
