"""Read `object_info`: what a node class takes and gives, in both spellings ComfyUI uses.

The file comes from another program, so nothing in it is trusted: an entry that cannot be
read is an entry that is not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
UPLOADS = {"image_upload": "image", "audio_upload": "audio", "video_upload": "video", "file_upload": "file"}


@dataclass(frozen=True)
class InputSpec:
    """One input of a node class. `options` is None unless the input is a choice."""

    name: str
    type: str
    required: bool
    options: tuple[Any, ...] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_widget(self) -> bool:
        """Whether a literal value may be given."""
        return self.type in WIDGET_TYPES and not self.meta.get("forceInput")

    @property
    def is_dynamic(self) -> bool:
        """Whether its own value decides which further inputs exist."""
        return self.type.startswith("COMFY_")

    @property
    def upload(self) -> str:
        """Kind of file a user uploads here, or empty."""
        for flag, kind in UPLOADS.items():
            if self.meta.get(flag) is True:
                return kind
        return ""

    @property
    def listed_elsewhere(self) -> bool:
        """Whether the list of choices lives on the server and changes while it runs."""
        return bool(self.upload or self.meta.get("remote") or self.meta.get("image_folder"))

    def bound(self, key: str) -> int | float | None:
        """`min`, `max` or `step` as a finite number of the input's own type, or None."""
        value = self.meta.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if self.type == "INT":
            return math.floor(value) if key == "max" else math.ceil(value)
        return float(value) if abs(value) < 1e300 else None


@dataclass(frozen=True)
class NodeSpec:
    """A node class."""

    class_type: str
    display_name: str
    inputs: Mapping[str, InputSpec]
    outputs: tuple[Any, ...]
    is_output: bool

    def accepts_undeclared(self, name: str) -> bool:
        """Whether `name` belongs to a dynamic input, such as `images.image0` to `images`."""
        head, dot, _ = name.partition(".")
        return bool(dot) and head in self.inputs and self.inputs[head].is_dynamic


def info_of(library: Any) -> Mapping[str, Any] | None:
    """The class table of a NodeLibrary row or of a plain object_info; None when there is no library."""
    if library is None:
        return None
    info = getattr(library, "object_info", library)
    return info if isinstance(info, Mapping) and info else None


def read(info: Mapping[str, Any] | None, class_type: Any) -> NodeSpec | None:
    """The spec of one class, or None when the library does not know it."""
    entry = info.get(class_type) if info and isinstance(class_type, str) else None
    if not isinstance(entry, Mapping):
        return None
    declared = entry.get("input")
    inputs: dict[str, InputSpec] = {}
    for section in ("required", "optional"):
        group = declared.get(section) if isinstance(declared, Mapping) else None
        for name, raw in group.items() if isinstance(group, Mapping) else ():
            spec = _input(str(name), raw, required=section == "required")
            if spec:
                inputs[spec.name] = spec
    outputs = entry.get("output")
    return NodeSpec(
        class_type=class_type,
        display_name=str(entry.get("display_name") or class_type)[:120],
        inputs=inputs,
        outputs=tuple(outputs) if isinstance(outputs, list | tuple) else (),
        is_output=entry.get("output_node") is True,
    )


def _input(name: str, raw: Any, *, required: bool) -> InputSpec | None:
    if not isinstance(raw, list | tuple) or not raw:
        return None
    meta = raw[1] if len(raw) > 1 and isinstance(raw[1], Mapping) else {}
    if isinstance(raw[0], list | tuple):
        return InputSpec(name, "COMBO", required, tuple(raw[0]), meta)
    if not isinstance(raw[0], str):
        return None
    if raw[0] == "COMBO":
        options = meta.get("options")
        return InputSpec(name, "COMBO", required, tuple(options) if isinstance(options, list | tuple) else (), meta)
    return InputSpec(name, raw[0], required, None, meta)


def types_fit(given: Any, wanted: Any) -> bool:
    """Whether an output of type `given` may feed an input of type `wanted`, as the server decides it."""
    if given == wanted:
        return True
    if not isinstance(given, str) or not isinstance(wanted, str):
        return False
    if given.startswith("COMFY_") or wanted.startswith("COMFY_"):
        return True
    gives, wants = ({part.strip() for part in text.split(",")} for text in (given, wanted))
    return "*" in gives or "*" in wants or bool(gives & wants)
