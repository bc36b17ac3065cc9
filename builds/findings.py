"""What is wrong with a readable graph, said the way its author can mend it.

Follows the server's own validation (`validate_prompt` of ComfyUI) so that what passes here passes
there. What no output node reaches is never run, so its faults are warnings; unknown classes are
errors anywhere, because the server refuses the whole prompt for one.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from builds.exposed import ExposedInput, load_all
from builds.links import Graph, as_link, is_model, literal, upstream
from builds.nodespecs import InputSpec, NodeSpec, info_of, read, types_fit

ERROR, WARNING = "error", "warning"
MAX_FINDINGS = 200
_LISTED = 20

Finding = dict[str, Any]


def findings(graph: Graph, node_library: Any, exposed: Iterable[ExposedInput | Mapping[str, Any]] = ()) -> list[Finding]:
    """Every fault of `graph` against `node_library` (a NodeLibrary, an object_info, or None), errors first."""
    info = info_of(node_library)
    specs = {node_id: read(info, node.get("class_type")) for node_id, node in graph.items()}
    files = {(item.node, item.input) for item in load_all(exposed) if item.is_file}
    found: list[Finding] = []
    if info is None:
        found.append(
            finding(
                WARNING, "library_missing", "No node library is known, so only the shape of the graph was checked.", "Import one: manage.py import_object_info."
            )
        )
    outputs = [node_id for node_id, spec in specs.items() if spec and spec.is_output]
    if info is not None and not outputs:
        found.append(finding(ERROR, "no_outputs", "No node of the graph saves or shows a result.", "Add an output node such as Save Image."))
    reached = upstream(graph, outputs) if outputs else set(graph)
    for node_id, node in graph.items():
        level = ERROR if node_id in reached else WARNING
        found += _class_findings(node_id, node, specs[node_id], info)
        found += _input_findings(graph, node_id, specs, files, level=level, library=info is not None)
    found.sort(key=lambda one: one["level"] != ERROR)
    return found[:MAX_FINDINGS]


def finding(level: str, code: str, message: str, suggestion: str = "", *, node: str = "", field: str = "", **details: Any) -> Finding:
    """One finding in its stored form."""
    said: Finding = {"level": level, "code": code, "node": node, "field": field, "message": message, "suggestion": suggestion}
    if details:
        said["details"] = details
    return said


def errors_in(found: Iterable[Finding]) -> list[Finding]:
    """Only those that keep the graph from running."""
    return [one for one in found if one["level"] == ERROR]


def missing_models(found: Iterable[Finding]) -> list[dict[str, str]]:
    """The models a library lacks, for another pool's library to decide about."""
    return [one["details"] for one in found if one["code"] == "model_missing" and "details" in one]


def _class_findings(node_id: str, node: Mapping[str, Any], spec: NodeSpec | None, info: Mapping[str, Any] | None) -> list[Finding]:
    class_type = node.get("class_type")
    if not class_type:
        return [
            finding(
                ERROR, "missing_class_type", f"Node {node_id} does not say which class it is.", "Export the workflow again.", node=node_id, field="class_type"
            )
        ]
    if info is None or spec:
        return []
    near = difflib.get_close_matches(class_type, info, n=1, cutoff=0.8)
    suggestion = f"Did you mean {near[0]}?" if near else "Install the node pack that brings it, or import the object_info of a ComfyUI that has it."
    return [finding(ERROR, "unknown_node", f"No node class is called {class_type}.", suggestion, node=node_id, field="class_type", class_type=class_type)]


def _input_findings(
    graph: Graph, node_id: str, specs: Mapping[str, NodeSpec | None], files: set[tuple[str, str]], *, level: str, library: bool
) -> list[Finding]:
    node, spec = graph[node_id], specs[node_id]
    inputs = node["inputs"]
    title = node.get("class_type") or node_id
    found: list[Finding] = []
    for name, declared in spec.inputs.items() if spec else ():
        if declared.required and name not in inputs and not declared.is_dynamic:
            message = f"{title} needs a value for {name}."
            found.append(finding(level, "missing_input", message, f"Connect or fill in {name}.", node=node_id, field=name, type=declared.type))
    for name, raw in inputs.items():
        declared_input = spec.inputs.get(name) if spec else None
        if isinstance(raw, list | tuple):
            found += _link_findings(graph, node_id, name, raw, declared_input, specs, level=level)
        elif declared_input:
            found += _value_findings(node_id, title, declared_input, literal(raw), exposed_file=(node_id, name) in files, level=level)
        if spec and not declared_input and not spec.accepts_undeclared(name):
            message = f"{title} has no input called {name}; ComfyUI ignores it."
            found.append(finding(WARNING, "unknown_input", message, "Remove it, or check the version of the node pack.", node=node_id, field=name))
    return found


def _link_findings(
    graph: Graph, node_id: str, name: str, raw: Any, declared: InputSpec | None, specs: Mapping[str, NodeSpec | None], *, level: str
) -> list[Finding]:
    where = {"node": node_id, "field": name}
    link = as_link(raw)
    if link is None:
        return [
            finding(
                level, "bad_link", f"Input {name} of node {node_id} is not a link of the form [node, output].", "Connect the input again and export.", **where
            )
        ]
    source, slot = link
    if source not in graph:
        message = f"Input {name} of node {node_id} is connected to node {source}, which is not in the graph."
        return [finding(level, "missing_link_target", message, "Add the node, or connect the input to another.", **where, source=source)]
    origin = specs[source]
    if origin is None:
        return []
    if slot >= len(origin.outputs):
        message = f"Input {name} of node {node_id} is connected to output {slot} of node {source}, which has {len(origin.outputs)}."
        return [finding(level, "missing_link_output", message, "Connect the input again and export.", **where, source=source)]
    given = origin.outputs[slot]
    if declared and not types_match(given, declared):
        message = f"Input {name} of node {node_id} takes {declared.type}, but node {source} gives {_type_name(given)}."
        suggestion = f"Connect an output of type {declared.type}."
        return [finding(level, "type_mismatch", message, suggestion, **where, source=source, given=_type_name(given), wanted=declared.type)]
    return []


def types_match(given: Any, declared: InputSpec) -> bool:
    """Whether an output of type `given` may feed `declared`."""
    if isinstance(given, list | tuple):
        return tuple(given) == declared.options or declared.type == "*"
    return types_fit(given, declared.type)


def _type_name(given: Any) -> str:
    return given if isinstance(given, str) else "a choice"


def _value_findings(node_id: str, title: str, declared: InputSpec, value: Any, *, exposed_file: bool, level: str) -> list[Finding]:
    name, where = declared.name, {"node": node_id, "field": declared.name}
    if declared.upload or (declared.type == "COMBO" and declared.listed_elsewhere):
        if exposed_file:
            return []
        message = f"{title} reads the file {_shown(value)}, which does not travel with the graph."
        return [
            finding(
                WARNING,
                "file_not_included",
                message,
                f"Expose {node_id}.{name}, so that each job brings its own file.",
                **where,
                kind=declared.upload or "file",
            )
        ]
    if declared.type == "COMBO":
        return _choice_findings(title, declared, value, where, level)
    if declared.type not in ("INT", "FLOAT", "STRING", "BOOLEAN"):
        return []
    number, verdict = convert(declared.type, value)
    if verdict == "refused":
        wanted = {"INT": "a whole number", "FLOAT": "a number"}[declared.type]
        return [finding(level, "wrong_type", f"{name} of {title} takes {wanted}, not {_shown(value)}.", f"Set {name} to {wanted}.", **where)]
    found = []
    if verdict == "converted":
        message = f"{name} of {title} takes {declared.type}; ComfyUI turns {_shown(value)} into one."
        found.append(finding(WARNING, "value_converted", message, "Export the workflow again to store the right type.", **where))
    if number is not None:
        low, high = declared.bound("min"), declared.bound("max")
        if (low is not None and number < low) or (high is not None and number > high):
            reach = f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
            message = f"{name} of {title} is {_shown(value)}, outside its range."
            found.append(finding(level, "out_of_range", message, f"Choose {reach}.", **where, minimum=low, maximum=high))
    return found


def _choice_findings(title: str, declared: InputSpec, value: Any, where: dict[str, str], level: str) -> list[Finding]:
    options = declared.options or ()
    chosen = value if isinstance(value, list) and declared.meta.get("multiselect") else [value]
    name = declared.name
    for one in chosen:
        if any(one == option for option in options):
            continue
        if is_model(name, one):
            message = f"The model {_shown(one)} is not installed for {title}."
            suggestion = "Install it on the pool, or choose one that is there."
            return [
                finding(level, "model_missing", message, suggestion, **where, model=one, input=name, available=[str(option) for option in options[:_LISTED]])
            ]
        near = difflib.get_close_matches(str(one), [str(option) for option in options], n=1)
        suggestion = f"Did you mean {near[0]}?" if near else f"Choose one of: {', '.join(str(option) for option in options[:_LISTED]) or 'nothing is listed'}."
        return [finding(level, "value_not_in_list", f"{name} of {title} cannot be {_shown(one)}.", suggestion, **where)]
    return []


def convert(kind: str, value: Any) -> tuple[int | float | None, str]:
    """What the server makes of a literal: the number to check, if any, and `exact`, `converted` or `refused`."""
    if kind in ("STRING", "BOOLEAN"):
        return None, "exact" if isinstance(value, str if kind == "STRING" else bool) else "converted"
    try:
        number = int(value) if kind == "INT" else float(value)
    except (TypeError, ValueError, OverflowError):
        return None, "refused"
    if isinstance(number, float) and not math.isfinite(number):
        return None, "refused"
    exact = not isinstance(value, bool) and (isinstance(value, int) or (kind == "FLOAT" and isinstance(value, float)))
    return number, "exact" if exact else "converted"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "…"
