"""Give the saved `widgets_values` of a node their names, as the canvas does when it loads the file.

Values are positional: the first belongs to the first widget drawn, and so on. Fewer than drawn leaves
defaults; more than drawn is what an older or newer class saved, and the canvas drops it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from builds.conversion import texts
from builds.conversion.canvas import Node, Slot
from builds.conversion.classes import LIVE_WIDGETS, MISSING, NodeClass, Widget
from builds.conversion.problems import Problem, short

_SAMPLERS = frozenset({"KSampler", "KSamplerAdvanced"})
_CONTROLS = frozenset({"fixed", "increment", "decrement", "randomize", "image", True, False, None, ""})


@dataclass(slots=True)
class Drawn:
    """A node as the canvas draws it: its sockets in order, its widgets with their values."""

    node: Node
    title: str
    inputs: list[Slot]
    outputs: list[str]
    widgets: dict[str, Widget] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def draw(node: Node, known: NodeClass) -> Drawn:
    """`node` drawn as its class says, with what the file saved."""
    drawn = Drawn(node, node.title or known.title, [], _outputs(node, known))
    if isinstance(node.values, dict):
        sockets = _fill_named(drawn, known, node.values)
    else:
        sockets = _fill_listed(drawn, known, node.values)
    saved = {slot.name: slot for slot in reversed(node.inputs)}
    for name, kind, widget in sockets:
        before = saved.pop(name, None)
        drawn.inputs.append(Slot(name, before.type if before and kind == "*" else kind, before.link if before else None, name if widget else ""))
    # Sockets that growing inputs, other versions or a pack's scripts added.
    drawn.inputs += [slot for slot in node.inputs if saved.get(slot.name) is slot]
    return drawn


def _outputs(node: Node, known: NodeClass) -> list[str]:
    """Output types in order; a type that follows its input is known to the file only."""
    types = list(known.outputs)
    for at, slot in enumerate(node.outputs[: len(types)]):
        if types[at] == "*" or types[at].startswith("COMFY_"):
            types[at] = slot.type
    return types + [slot.type for slot in node.outputs[len(types) :]]


def _fill_listed(drawn: Drawn, known: NodeClass, listed: list[Any]) -> list[tuple[str, str, bool]]:
    values = _without_forced(known, listed)
    sockets = [(one.name, one.type, one.widget) for one in known.drawing.sockets]
    pending = deque(known.drawing.widgets)
    at = 0
    while pending:
        widget = pending.popleft()
        value = widget.default
        if widget.saved:
            value = values[at] if at < len(values) else value
            at += 1 + widget.followers
        _keep(drawn, known, widget, value)
        chosen = widget.choices.get(value) if widget.choices and isinstance(value, str) else None
        if chosen:
            pending.extendleft(reversed(chosen.widgets))
            sockets += [(one.name, one.type, one.widget) for one in chosen.sockets]
    extra = values[at:]
    if extra and not known.core and not all(_is_button(one) for one in extra):
        drawn.problems.append(
            Problem(
                "widget_values_unexplained",
                f"Node {drawn.node.id} ({short(known.name, 60)}) has {len(values)} saved values, but its class declares widgets for {at} only, "
                "and only the pack's own script knows what the others mean.",
                "In ComfyUI choose Workflow → Export (API) and import that file, or import the object_info of the pack version that saved it.",
                node=drawn.node.id,
                field=f"widgets_values[{at}]",
                class_type=known.name,
            )
        )
    return sockets


def _fill_named(drawn: Drawn, known: NodeClass, named: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Values saved by name, as video packs do; what the class does not declare is sent too, for it may be an option's own field."""
    sockets = [(one.name, one.type, one.widget) for one in known.drawing.sockets]
    pending = deque(known.drawing.widgets)
    taken: set[str] = set()
    while pending:
        widget = pending.popleft()
        value = named.get(widget.name, widget.default)
        taken.add(widget.name)
        _keep(drawn, known, widget, value)
        chosen = widget.choices.get(value) if widget.choices and isinstance(value, str) else None
        if chosen:
            pending.extendleft(reversed(chosen.widgets))
            sockets += [(one.name, one.type, one.widget) for one in chosen.sockets]
    for name, value in named.items():
        is_control = name == "control_after_generate" or (value == "image" and "upload" in name)
        if name not in taken and not is_control and not isinstance(value, dict | list):
            _keep(drawn, known, Widget(str(name), "*"), value)
    return sockets


def _keep(drawn: Drawn, known: NodeClass, widget: Widget, value: Any) -> None:
    if not widget.sent:
        return
    if widget.name == "sampler_name" and known.name in _SAMPLERS and isinstance(value, str):
        # Sampler names once carried this prefix.
        value = value.removeprefix("sample_")
    if value is None:
        value = widget.empty
    drawn.widgets[widget.name] = widget
    drawn.values[widget.name] = value


def sent(drawn: Drawn, name: str, value: Any, *, node_id: str, names: Container[str] = ()) -> Any:
    """The value of widget `name` as the client sends it, or a Problem that says why there is no exact one."""
    widget = drawn.widgets[name]
    where = {"node": node_id, "field": name, "class_type": drawn.node.type}
    said = f"Node {node_id} ({short(drawn.title, 60)})"
    if widget.type in LIVE_WIDGETS:
        fix = "Replace the node by one that loads a file, such as LoadImage or LoadVideo."
        return Problem("live_widget", f"{said} makes {name} in the browser at the moment of queueing, so the file does not hold it.", fix, **where)
    if value is MISSING:
        fix = "Choose a value in ComfyUI and save the file, or import the object_info of the server that saved it."
        return Problem("value_missing", f"{said} has no saved value for {name}, and its class gives no default.", fix, **where)
    if widget.type == "AUDIO_RECORD":
        # A recording lives in the page that made it; a file that is opened again has none.
        return ""
    if widget.type == "CURVE":
        return {"__type__": "CURVE", "__value__": value}
    if isinstance(value, str):
        if widget.dynamic_prompts:
            text = texts.drawn(value)
            if text is None:
                fix = "Write one of the alternatives, or put a backslash before each brace and bar to keep them."
                return Problem("random_prompt", f"{said} has {{a|b}} alternatives in {name}, of which the web client draws one at random.", fix, **where)
            return text
        changing = texts.replaced(value, names) if name == "filename_prefix" and drawn.node.type in texts.FILLED_IN else ""
        if changing:
            fix = "Use %year%, %month% and %day%, which the server fills in, or write the text itself."
            return Problem(
                "replaced_text", f"{said} has {short(changing, 60)} in {name}, which the web client replaces at the moment of queueing.", fix, **where
            )
    # A list is wrapped, so that it cannot be taken for a link.
    return {"__value__": value} if isinstance(value, list) else value


def _without_forced(known: NodeClass, values: list[Any]) -> list[Any]:
    """Older files kept a value for inputs that are sockets only; when the count says so, take those out."""
    if not known.drawing.forced:
        return values
    forced = set(known.drawing.forced)
    marks: list[bool] = []
    widgets = {one.name: one for one in known.drawing.widgets if one.sent}
    for name in known.order:
        if name in forced:
            marks.append(True)
        elif name in widgets:
            marks += [False] * (2 if widgets[name].control else 1)
    if len(marks) != len(values):
        return values
    return [value for value, is_forced in zip(values, marks, strict=True) if not is_forced]


def _is_button(value: Any) -> bool:
    """Whether a saved value is the remains of a button or of a seed control."""
    if isinstance(value, dict):
        return value.get("type") == "button"
    return not isinstance(value, list) and value in _CONTROLS
