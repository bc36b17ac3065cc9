"""Which inputs a node of a prompt has, when its class lets them grow or depend on others.

A growing input stands for numbered members (`images.image0`); a dependent one for
the members its chosen option asks for (`resize_type.width`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fleet.engine.specs import Input, NodeClass

GROWING, DEPENDENT, MATCHING = "COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3", "COMFY_MATCHTYPE_V3"


def expected(known: NodeClass, values: Mapping[str, Any]) -> Iterator[tuple[str, Input, bool]]:
    """Name, input and whether it is required, for the values given."""
    for name, spec in known.required.items():
        if spec.kind == GROWING:
            yield from _members(name, spec, values)
        elif spec.kind == DEPENDENT:
            yield from _chosen(name, spec, values)
        else:
            yield name, spec, True
    for name, spec in known.optional.items():
        yield name, spec, False


def _members(name: str, spec: Input, values: Mapping[str, Any]) -> Iterator[tuple[str, Input, bool]]:
    template = spec.options["template"]
    (member,) = template["input"]["required"].values()
    for index in range(template["max"]):
        full, required = f"{name}.{template['prefix']}{index}", index < template["min"]
        if required or full in values:
            yield full, Input(member[0]), required


def _chosen(name: str, spec: Input, values: Mapping[str, Any]) -> Iterator[tuple[str, Input, bool]]:
    options = {option["key"]: option["inputs"].get("required", {}) for option in spec.options["options"]}
    yield name, Input("COMBO", {}, tuple(options)), True
    chosen = values.get(name)
    for member, (kind, facts) in options.get(chosen if isinstance(chosen, str) else "", {}).items():
        listed = tuple(facts["options"]) if kind == "COMBO" else None
        yield f"{name}.{member}", Input(kind, {key: value for key, value in facts.items() if key not in ("options", "multiselect")}, listed), True


def arguments(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as a node takes them: members come as one dict under the group's name."""
    grouped: dict[str, Any] = {name: value for name, value in inputs.items() if "." not in name}
    for name, value in inputs.items():
        group, dot, member = name.partition(".")
        if dot:
            if not isinstance(grouped.get(group), dict):
                grouped[group] = {group: grouped[group]} if group in grouped else {}
            grouped[group][member] = value
    return grouped


def output_type(prompt: Mapping[str, Any], nodes: Mapping[str, NodeClass], node_id: str, slot: int) -> str:
    """The type of an output; one that matches an input takes the type linked there."""
    for _ in range(len(prompt) + 1):
        known = nodes[prompt[node_id]["class_type"]]
        kind = known.outputs[slot]
        if kind != MATCHING or known.matches is None:
            return kind
        template = known.matches[slot]
        names = [name for name, spec in known.required.items() if spec.kind == MATCHING and spec.options["template"]["template_id"] == template]
        linked = prompt[node_id]["inputs"].get(names[0]) if names else None
        if not isinstance(linked, list) or len(linked) != 2:
            return "*"
        node_id, slot = linked
    return "*"


def accepted_type(spec: Input) -> str:
    """The type an input takes; a matching one names its allowed types."""
    return str(spec.options["template"]["allowed_types"]) if spec.kind == MATCHING else spec.kind
