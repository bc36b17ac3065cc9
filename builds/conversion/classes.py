"""What the canvas draws for a node class of object_info: sockets and widgets, in the canvas's order.

The order is what gives the unnamed `widgets_values` of a file their names, so it is the heart of the
matter: required before optional, `input_order` before the order of the table, and the widgets that
only the canvas knows (seed control, upload buttons) where the canvas puts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

PLAIN_WIDGETS = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
OTHER_WIDGETS = frozenset({"MARKDOWN", "TEXTAREA", "COLOR", "BOUNDING_BOX", "CURVE", "RANGE", "IMAGECOMPARE", "CHART", "GALLERIA", "AUDIO_RECORD"})
# The canvas fills these from a camera, a brush or a 3D view at the moment of queueing.
LIVE_WIDGETS = frozenset({"WEBCAM", "LOAD_3D", "LOAD_3D_ANIMATION", "PAINTER"})
WIDGETS = PLAIN_WIDGETS | OTHER_WIDGETS | LIVE_WIDGETS
# Saved values that stand behind a widget's own: its four fields, or its button.
FOLLOWERS = {"BOUNDING_BOX": 4}
DEFAULTS: dict[str, Any] = {
    **{"INT": 0, "FLOAT": 0, "STRING": "", "BOOLEAN": False, "MARKDOWN": "", "TEXTAREA": "", "AUDIO_RECORD": ""},
    **{"BOUNDING_BOX": {"x": 0, "y": 0, "width": 512, "height": 512}, "RANGE": {"min": 0, "max": 1}, "CHART": {}, "GALLERIA": []},
    **{"IMAGECOMPARE": ["", ""], "CURVE": {"points": [[0, 0], [1, 1]], "interpolation": "monotone_cubic"}},
}
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
AUTOGROW = "COMFY_AUTOGROW_V3"
MATCH_TYPE = "COMFY_MATCHTYPE_V3"
UPLOAD_FLAGS = ("image_upload", "video_upload", "audio_upload", "file_upload")
SEEDS = frozenset({"seed", "noise_seed"})
MISSING: Any = object()
MAX_NESTING = 8
MAX_GROWN = 100


@dataclass(frozen=True, slots=True)
class Socket:
    """An input that takes links; `widget` when a value may be typed in instead."""

    name: str
    type: str
    widget: bool = False


@dataclass(frozen=True, slots=True)
class Widget:
    """A widget. `followers` counts saved values behind its own that are never sent, such as the seed control.
    `control` is set where the class itself asks for one; `saved` is False for what the file never holds;
    `empty` is what a saved null becomes.
    """

    name: str
    type: str
    default: Any = MISSING
    followers: int = 0
    sent: bool = True
    dynamic_prompts: bool = False
    choices: Mapping[str, Drawing] | None = None
    control: bool = False
    saved: bool = True
    empty: Any = None


@dataclass(frozen=True, slots=True)
class Drawing:
    """Sockets and widgets of a class, or of one choice of a dynamic combo."""

    sockets: tuple[Socket, ...] = ()
    widgets: tuple[Widget, ...] = ()
    forced: tuple[str, ...] = ()
    growing: tuple[str, ...] = ()
    order: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeClass:
    """A node class: what is drawn, and what comes out."""

    name: str
    title: str
    drawing: Drawing
    outputs: tuple[str, ...]
    core: bool

    @property
    def order(self) -> tuple[str, ...]:
        """Names of all inputs, as drawn."""
        return self.drawing.order


class Classes:
    """The node classes of one object_info, each read when first asked for."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        self._info = info
        self._read: dict[str, NodeClass | None] = {}

    def get(self, name: str) -> NodeClass | None:
        """The class called `name`, or None when the table does not know it."""
        if name not in self._read:
            entry = self._info.get(name)
            self._read[name] = _class(name, entry) if isinstance(entry, Mapping) else None
        return self._read[name]


def _class(name: str, entry: Mapping[str, Any]) -> NodeClass:
    groups = entry.get("input")
    drawing = _drawing(groups if isinstance(groups, Mapping) else {}, _order(entry), prefix="", depth=0)
    outputs = entry.get("output")
    module = entry.get("python_module")
    return NodeClass(
        name=name,
        title=str(entry.get("display_name") or name),
        drawing=drawing,
        outputs=tuple(one if isinstance(one, str) else "COMBO" for one in outputs) if isinstance(outputs, list | tuple) else (),
        core=isinstance(module, str) and not module.startswith("custom_nodes"),
    )


def _drawing(groups: Mapping[str, Any], order: Mapping[str, Any], *, prefix: str, depth: int) -> Drawing:
    sockets: list[Socket] = []
    widget_sockets: list[Socket] = []
    widgets: list[Widget] = []
    forced: list[str] = []
    growing: list[str] = []
    names: list[str] = []
    uploads = 0
    grown: list[Widget] = []
    for section in ("required", "optional"):
        for bare, kind, meta in _inputs(groups.get(section), order.get(section)):
            name = prefix + bare
            names.append(name)
            if meta.get("forceInput"):
                sockets.append(Socket(name, kind))
                forced.append(name)
            elif kind == AUTOGROW:
                growing.append(name)
                more, fields = _grown(name, meta)
                sockets += more
                grown += fields
            elif kind == DYNAMIC_COMBO:
                widgets.append(_dynamic(name, meta, depth=depth))
                widget_sockets.append(Socket(name, kind, widget=True))
            elif kind in WIDGETS or meta.get("widgetType") in WIDGETS:
                widgets.append(_widget(name, meta["widgetType"] if kind not in WIDGETS else kind, meta, named_seed=not prefix and bare in SEEDS))
                widget_sockets.append(Socket(name, kind, widget=True))
                uploads += any(meta.get(flag) for flag in UPLOAD_FLAGS)
            else:
                sockets.append(Socket(name, _match_type(meta) if kind == MATCH_TYPE else kind))
    # Fields of growing inputs stand before all others, upload buttons behind.
    widgets = [*grown, *widgets, *[Widget("upload", "BUTTON", sent=False)] * uploads]
    widget_sockets = [*(Socket(one.name, one.type, widget=True) for one in grown), *widget_sockets]
    return Drawing((*sockets, *widget_sockets), tuple(widgets), tuple(forced), tuple(growing), tuple(names))


def _order(holder: Mapping[str, Any]) -> Mapping[str, Any]:
    order = holder.get("input_order")
    return order if isinstance(order, Mapping) else {}


def _inputs(group: Any, order: Any) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Name, type and options of every readable input of a section, in the order the canvas draws them."""
    if not isinstance(group, Mapping):
        return
    names = [name for name in order if name in group] if isinstance(order, list | tuple) else []
    for name in dict.fromkeys((*names, *group)):
        raw = group[name]
        if not isinstance(raw, list | tuple) or not raw:
            continue
        meta: Mapping[str, Any] = raw[1] if len(raw) > 1 and isinstance(raw[1], Mapping) else {}
        if isinstance(raw[0], list | tuple):
            yield str(name), "COMBO", {"options": list(raw[0]), **meta}
        elif isinstance(raw[0], str):
            yield str(name), raw[0], meta


def _widget(name: str, kind: str, meta: Mapping[str, Any], *, named_seed: bool) -> Widget:
    said = meta.get("control_after_generate")
    control = bool(said) if said is not None else kind == "INT" and named_seed
    followers = FOLLOWERS.get(kind, 0)
    if control and kind in ("INT", "FLOAT", "COMBO"):
        # A controlled choice also gets a filter field behind its control.
        followers += 2 if kind == "COMBO" else 1
    if kind == "COMBO" and isinstance(meta.get("remote"), Mapping):
        followers += 2 if meta["remote"].get("refresh_button") else 1
    return Widget(
        name,
        kind,
        _default(kind, meta),
        followers,
        dynamic_prompts=bool(meta.get("dynamicPrompts")),
        control=bool(said) and control,
        saved=kind != "IMAGECOMPARE",
        empty=_empty(kind, meta),
    )


def _default(kind: str, meta: Mapping[str, Any]) -> Any:
    if meta.get("default") is not None:
        return meta["default"]
    if kind == "COMBO":
        if meta.get("multi_select") is not None:
            return []
        options = meta.get("options")
        return options[0] if isinstance(options, list | tuple) and options else MISSING
    return DEFAULTS.get(kind, MISSING)


def _empty(kind: str, meta: Mapping[str, Any]) -> Any:
    if kind == "STRING" and meta.get("multiline"):
        return ""
    options = meta.get("options")
    return options[0] if kind == "COMBO" and isinstance(options, list | tuple) and options else None


def _dynamic(name: str, meta: Mapping[str, Any], *, depth: int) -> Widget:
    choices: dict[str, Drawing] = {}
    options = meta.get("options")
    for option in options if isinstance(options, list | tuple) and depth < MAX_NESTING else ():
        if isinstance(option, Mapping) and isinstance(option.get("key"), str):
            inputs = option.get("inputs")
            groups = inputs if isinstance(inputs, Mapping) else {}
            choices[option["key"]] = _drawing(groups, _order(option), prefix=f"{name}.", depth=depth + 1)
    return Widget(name, DYNAMIC_COMBO, next(iter(choices), MISSING), choices=choices)


def _grown(name: str, meta: Mapping[str, Any]) -> tuple[list[Socket], list[Widget]]:
    """What a growing input starts with: its least number and one to spare. Sockets that a file adds are taken from the file."""
    template = meta.get("template")
    if not isinstance(template, Mapping):
        return [], []
    groups = template.get("input")
    order = _order(template)
    sections = [(groups.get(section), order.get(section)) for section in ("required", "optional")] if isinstance(groups, Mapping) else []
    inputs = [one for group, listed in sections for one in _inputs(group, listed)]
    names, least, most = template.get("names"), template.get("min"), template.get("max")
    count = (least if isinstance(least, int) and 0 < least <= MAX_GROWN else 0) + 1
    count = min(count, most) if isinstance(most, int) and most > 0 else count
    sockets: list[Socket] = []
    widgets: list[Widget] = []
    for at in range(count):
        for bare, kind, inner in inputs:
            if isinstance(names, list):
                own = str(names[at]) if at < len(names) else ""
            else:
                # With several inputs to a turn, each goes by its own name.
                own = f"{template.get('prefix', '') if len(inputs) == 1 else bare}{at}"
            if not own:
                continue
            if kind in WIDGETS and not inner.get("forceInput"):
                widgets.append(_widget(f"{name}.{own}", kind, inner, named_seed=False))
            else:
                sockets.append(Socket(f"{name}.{own}", kind))
    return sockets, widgets


def _match_type(meta: Mapping[str, Any]) -> str:
    template = meta.get("template")
    allowed = template.get("allowed_types") if isinstance(template, Mapping) else None
    return allowed if isinstance(allowed, str) and allowed else "*"
