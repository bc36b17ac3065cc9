"""Make a merged graph valid: no link to a node that is gone, no circle, nothing brought along that feeds nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from builds.comparing.differences import ABSENT
from builds.links import cycle
from builds.merging.clashes import OURS, THEIRS, Court
from builds.merging.nodes import Key, Node, Three, Wire, equal, shown, write
from controlplane.kernel.errors import Invalid


def mend(nodes: dict[Key, Node], three: Three, court: Court) -> None:
    """Settle what hangs and what runs in a circle, until nothing does. Ends, because every step decides a field that was not decided before."""
    decided: set[tuple[Key, str]] = set()
    while True:
        hanging = next(((key, name, value) for key, name, value in _wires(nodes) if value.source not in nodes and (key, name) not in decided), None)
        if hanging:
            decided.add(hanging[:2])
            _rehang(nodes, three, court, *hanging)
            continue
        for key, name, value in list(_wires(nodes)):
            if value.source not in nodes:
                del nodes[key].inputs[name]
        loop = cycle(write(nodes, three.ids))
        if not loop:
            return
        _break(nodes, three, court, loop, decided)


def restore(nodes: dict[Key, Node], key: Key, side: Mapping[Key, Node]) -> None:
    """Put a node back as `side` has it, with all that feeds it there."""
    pending = [key]
    while pending:
        one = pending.pop()
        if one not in nodes and one in side:
            nodes[one] = side[one].copy()
            pending += [value.source for value in side[one].inputs.values() if isinstance(value, Wire)]


def prune(nodes: dict[Key, Node], three: Three) -> list[str]:
    """Take out what one side brought to feed something that a choice then fed otherwise; tells the ids."""
    gone: list[str] = []
    while True:
        fed = {value.source for _, _, value in _wires(nodes)}
        idle = [key for key in nodes if key not in fed and key not in three.base and any(_feeds(side, key) for side in (three.ours, three.theirs))]
        if not idle:
            return gone
        for key in idle:
            gone.append(three.ids[key])
            del nodes[key]


def _rehang(nodes: dict[Key, Node], three: Three, court: Court, key: Key, name: str, wire: Wire) -> None:
    keeper = OURS if wire.source in three.ours else THEIRS
    side, other = (three.ours, three.theirs) if keeper == OURS else (three.theirs, three.ours)
    base, ours, theirs = (_field(one, key, name) for one in (three.base, three.ours, three.theirs))
    why = f"It is fed by node {three.ids[wire.source]}, which {'they' if keeper == OURS else 'we'} removed."
    chosen = court.choose(three.ids[key], name, shown(base, three.ids), shown(ours, three.ids), shown(theirs, three.ids), why)
    if chosen == keeper:
        restore(nodes, wire.source, side)
        return
    _set(nodes[key], name, _field(other, key, name))


def _break(nodes: dict[Key, Node], three: Three, court: Court, loop: list[str], decided: set[tuple[Key, str]]) -> None:
    """Take one link out of a circle: one that only they brought, or, when that one is chosen, one that only we did."""
    keys = {three.ids[key]: key for key in nodes}
    edges = [
        (keys[target], name)
        for source, target in itertools.pairwise(loop)
        for name, value in nodes[keys[target]].inputs.items()
        if isinstance(value, Wire) and value.source == keys[source] and (keys[target], name) not in decided
    ]
    from_them = [(key, name) for key, name in edges if not equal(_field(three.ours, key, name), nodes[key].inputs[name])]
    from_us = [(key, name) for key, name in edges if not equal(_field(three.theirs, key, name), nodes[key].inputs[name])]
    if not from_them and not from_us:
        raise Invalid(
            "merge_cyclic", f"The choices make the graph run in a circle: {' → '.join(loop[:12])}.", "Choose the other side for one of these nodes.",
            details={"cycle": loop[:200]},
        )  # fmt: skip
    key, name = (from_them or from_us)[0]
    base, ours, theirs = (_field(one, key, name) for one in (three.base, three.ours, three.theirs))
    chosen = court.choose(
        three.ids[key], name, shown(base, three.ids), shown(ours, three.ids), shown(theirs, three.ids), "With it, data would have to flow in a circle."
    )
    decided.add((key, name))
    if from_them and (chosen == OURS or not from_us):
        _set(nodes[key], name, _field(three.ours, key, name))
        return
    key, name = from_us[0]
    decided.add((key, name))
    _set(nodes[key], name, _field(three.theirs, key, name))


def _set(node: Node, name: str, value: Any) -> None:
    if value is ABSENT:
        node.inputs.pop(name, None)
    else:
        node.inputs[name] = value


def _field(side: Mapping[Key, Node], key: Key, name: str) -> Any:
    return side[key].inputs.get(name, ABSENT) if key in side else ABSENT


def _wires(nodes: Mapping[Key, Node]) -> Iterator[tuple[Key, str, Wire]]:
    for key, node in nodes.items():
        for name, value in node.inputs.items():
            if isinstance(value, Wire):
                yield key, name, value


def _feeds(side: Mapping[Key, Node], key: Key) -> bool:
    return key in side and any(value.source == key for _, _, value in _wires(side))
