"""The merge itself: presence, class, title and inputs of every node, then inputs, limits and the canvas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builds.comparing.content import Content, same
from builds.comparing.differences import ABSENT
from builds.findings import WARNING, Finding, finding
from builds.merging import canvases, exposures, mending
from builds.merging.clashes import NODE, OURS, VERSION, Clash, Court
from builds.merging.nodes import Key, Node, Three, alike, equal, read, shown, write
from controlplane.kernel.errors import WorkflowError


@dataclass(frozen=True)
class Merged:
    """What comes out, what clashed on the way, and what people should know. `renumbered` maps their ids to those of the result."""

    content: Content
    clashes: list[Clash]
    notes: list[Finding] = field(default_factory=list)
    renumbered: dict[str, str] = field(default_factory=dict)

    @property
    def open(self) -> list[Clash]:
        """Clashes nobody has chosen a side in."""
        return [clash for clash in self.clashes if not clash.chosen]


def merge(base: Content | None, ours: Content, theirs: Content, choices: Mapping[str, str] | None = None, *, convert: canvases.Convert | None = None) -> Merged:
    """Both sides' changes since `base` together; `choices` maps a clash's key to `ours` or `theirs`. Raises Invalid for a choice of neither.

    `convert` gives the API graph of a canvas; with it, the canvases are merged too, where that can be done exactly.
    """
    base = base or Content(timeout_s=ours.timeout_s, stall_s=ours.stall_s, lock=ours.lock)
    three = read(base.graph, ours.graph, theirs.graph)
    court = Court(choices or {})
    nodes: dict[Key, Node] = {}
    for key in {**three.ours, **three.theirs}:
        node = _node(key, three, court)
        if node is not None:
            nodes[key] = node
    exposed = exposures.merge(base.inputs, ours.inputs, theirs.inputs, nodes=nodes, three=three, court=court)
    mending.mend(nodes, three, court)
    idle = mending.prune(nodes, three)
    inputs, lost = exposures.settle(exposed, nodes, three)
    limits = {name: _limit(name, base, ours, theirs, court) for name in ("timeout_s", "stall_s", "lock")}
    graph = write(nodes, three.ids)
    renumbered = {node: three.ids[key] for node, key in three.keys["theirs"].items() if three.ids[key] != node and key in nodes}
    canvas, notes = _canvas(graph, base, ours, theirs, renumbered, convert)
    notes += [finding(WARNING, "input_dropped", f"The input {name} is gone, for its place is.", "Expose another under its name.", field=name) for name in lost]
    notes += [finding(WARNING, "merge_left_out", f"Node {node} was left out, for nothing uses it after the merge.", node=node) for node in idle]
    return Merged(Content(graph=graph, inputs=inputs, ui_graph=canvas, **limits), list(court.clashes.values()), notes, renumbered)


def _node(key: Key, three: Three, court: Court) -> Node | None:
    base, ours, theirs = three.base.get(key), three.ours.get(key), three.theirs.get(key)
    if ours is None or theirs is None:
        left = ours or theirs
        if base is None or left is None:
            return left.copy() if left else None
        if alike(base, left):
            return None
        why = "It was changed on one side and removed on the other."
        return _whole(key, three, court, why)
    if not _same_class(ours, theirs):
        if base is not None and _same_class(base, ours) and alike(base, ours):
            return theirs.copy()
        if base is not None and _same_class(base, theirs) and alike(base, theirs):
            return ours.copy()
        return _whole(key, three, court, "Both sides changed it, and its class is no longer the same.")
    merged = ours.copy()
    named = three.ids[key]
    title = _pick(base.title if base else "", ours.title, theirs.title)
    if title is ABSENT:
        title = (
            ours.title
            if court.choose(named, "@title", base.title if base else "", ours.title, theirs.title, "Both sides renamed it.") == OURS
            else theirs.title
        )
    merged.title = title
    for name in {**ours.inputs, **theirs.inputs, **(base.inputs if base else {})}:
        b, o, t = (side.inputs.get(name, ABSENT) if side else ABSENT for side in (base, ours, theirs))
        value: Any
        if equal(o, t) or equal(b, t):
            value = o
        elif equal(b, o):
            value = t
        else:
            chosen = court.choose(named, name, shown(b, three.ids), shown(o, three.ids), shown(t, three.ids), "Both sides changed it.")
            value = o if chosen == OURS else t
        merged.inputs.pop(name, None)
        if value is not ABSENT:
            merged.inputs[name] = value
    return merged


def _same_class(a: Node, b: Node) -> bool:
    return same(a.class_type, b.class_type) if ABSENT not in (a.class_type, b.class_type) else a.class_type is b.class_type


def _whole(key: Key, three: Three, court: Court, why: str) -> Node | None:
    base, ours, theirs = (write({key: side[key]}, three.ids)[three.ids[key]] if key in side else ABSENT for side in (three.base, three.ours, three.theirs))
    chosen = three.ours if court.choose(three.ids[key], NODE, base, ours, theirs, why) == OURS else three.theirs
    return chosen[key].copy() if key in chosen else None


def _pick(base: str, ours: str, theirs: str) -> Any:
    if theirs in (ours, base):
        return ours
    return theirs if ours == base else ABSENT


def _limit(name: str, base: Content, ours: Content, theirs: Content, court: Court) -> Any:
    b, o, t = getattr(base, name), getattr(ours, name), getattr(theirs, name)
    if same(o, t) or same(b, t):
        return o
    if same(b, o):
        return t
    return o if court.choose(VERSION, name, b, o, t, f"Both sides changed {name}.") == OURS else t


def _canvas(
    graph: Mapping[str, Any], base: Content, ours: Content, theirs: Content, renumbered: Mapping[str, str], convert: canvases.Convert | None
) -> tuple[Any, list[Finding]]:
    """The canvas of a side whose graph is exactly the merged one, else both merged. One that says something else than the graph is never kept."""
    fits_ours, fits_theirs = same(graph, ours.graph), same(graph, theirs.graph)
    if fits_ours and fits_theirs and same(base.ui_graph, ours.ui_graph):
        return theirs.ui_graph or ours.ui_graph, []
    if fits_ours and (ours.ui_graph is not None or not fits_theirs):
        return ours.ui_graph, []
    if fits_theirs and (ours.ui_graph is None or same(base.ui_graph, ours.ui_graph)):
        return theirs.ui_graph, []
    if ours.ui_graph is None and theirs.ui_graph is None:
        return None, []
    made = _together(graph, base, ours, theirs, renumbered, convert) if convert else None
    if made is not None or fits_theirs:
        return made or theirs.ui_graph, []
    message = "The canvas files of both sides could not be put together exactly, so none was kept; the graph is drawn in layers."
    return None, [finding(WARNING, "canvas_not_merged", message, "Open the merged graph in ComfyUI, arrange it, save and import it to have a canvas again.")]


def _together(graph: Mapping[str, Any], base: Content, ours: Content, theirs: Content, renumbered: Mapping[str, str], convert: canvases.Convert) -> Any:
    """Both canvases as one, if converting it gives the merged graph to the letter."""
    try:
        made = canvases.merged(base.ui_graph, ours.ui_graph, theirs.ui_graph, graph=graph, renumbered=renumbered)
        return made if made is not None and same(convert(made), graph) else None
    except (WorkflowError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        # Files come from strangers; what cannot be read has no place in the outcome.
        return None
