"""Whether a prompt can run, and what exactly is wrong when it cannot.

Each output node is judged with everything upstream of it. A prompt runs when at
least one output is valid; the others are reported and left out. Values are
coerced in place, so what runs and what history shows are the coerced ones.
"""

from __future__ import annotations

import traceback
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from fleet.engine.directories import Directories
from fleet.engine.inputs import accepted_type, expected, output_type
from fleet.engine.specs import NODES, Input, NodeClass

Prompt = dict[str, Any]

# Longer option lists are counted in the error instead of shown.
LONGEST_SHOWN_LIST = 20
COERCIONS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass
class Verdict:
    """What validation found; `error` is None when something can run."""

    error: dict[str, Any] | None = None
    outputs: list[str] = field(default_factory=list)
    node_errors: dict[str, Any] = field(default_factory=dict)


def validate(prompt: Prompt, *, targets: Container[str] | None, directories: Directories) -> Verdict:
    """Judge `prompt`; raises on shapes a real server answers with 500."""
    outputs: list[str] = []
    for node_id in prompt:
        if "class_type" not in prompt[node_id]:
            return Verdict(_error("invalid_prompt", "Cannot execute because a node is missing the class_type property.", f"Node ID '#{node_id}'"))
        class_type = prompt[node_id]["class_type"]
        known = NODES.get(class_type)
        if known is None:
            return Verdict(_error("invalid_prompt", f"Cannot execute because node {class_type} does not exist.", f"Node ID '#{node_id}'"))
        if known.terminal and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return Verdict(_error("prompt_no_outputs", "Prompt has no outputs"))
    return _judge_outputs(prompt, outputs, _Inspection(prompt, directories))


def _judge_outputs(prompt: Prompt, outputs: list[str], inspection: _Inspection) -> Verdict:
    verdict = Verdict()
    reasons: list[str] = []
    for output in outputs:
        try:
            valid = inspection.node(output)
        except Exception as error:
            valid = False
            problem = {
                "type": "exception_during_validation",
                "message": "Exception when validating node",
                "details": str(error),
                "extra_info": {"exception_type": type_name(error), "traceback": traceback.format_tb(error.__traceback__)},
            }
            inspection.found[output] = (False, [problem])
        if valid:
            verdict.outputs.append(output)
            continue
        reasons += [f"{problem['message']}: {problem['details']}" for problem in inspection.found[output][1]]
        for node_id, (fine, problems) in inspection.found.items():
            # A node that is only downstream of a bad one has no problems of its own to show.
            if not fine and problems:
                entry = verdict.node_errors.setdefault(node_id, {"errors": problems, "dependent_outputs": [], "class_type": prompt[node_id]["class_type"]})
                entry["dependent_outputs"].append(output)
    if not verdict.outputs:
        verdict.error = _error("prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(reasons))
    return verdict


class _Inspection:
    """The nodes looked at so far: id -> (valid, its own problems)."""

    def __init__(self, prompt: Prompt, directories: Directories) -> None:
        self.prompt = prompt
        self.directories = directories
        self.found: dict[str, tuple[bool, list[dict[str, Any]]]] = {}

    def node(self, node_id: str) -> bool:
        if node_id in self.found:
            return self.found[node_id][0]
        values = self.prompt[node_id]["inputs"]
        known = NODES[self.prompt[node_id]["class_type"]]
        problems: list[dict[str, Any]] = []
        upstream_valid = True
        for name, spec, required in expected(known, values):
            if name not in values:
                if required:
                    problems.append(_problem("required_input_missing", "Required input is missing", name, {"input_name": name}))
                continue
            if isinstance(values[name], list):
                upstream_valid &= self._linked(name, spec, values[name], problems)
            else:
                self._literal(known, name, spec, values, problems)
        if known.check and not problems:
            problems += _custom(known, values, self.directories)
        self.found[node_id] = (upstream_valid and not problems, problems)
        return self.found[node_id][0]

    def _linked(self, name: str, spec: Input, value: list[Any], problems: list[dict[str, Any]]) -> bool:
        info = {"input_name": name, "input_config": self._config(spec)}
        if len(value) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            problems.append(_problem("bad_linked_input", message, name, {**info, "received_value": value}))
            return True
        source, slot = value
        received = output_type(self.prompt, NODES, source, slot)
        if not _fits(received, accepted_type(spec)):
            details = f"{name}, received_type({received}) mismatch input_type({self._kind(spec)})"
            extra = {**info, "received_type": received, "linked_node": value}
            problems.append(_problem("return_type_mismatch", "Return type mismatch between linked nodes", details, extra))
            return True
        try:
            return self.node(source)
        except Exception as error:
            extra = {
                **info,
                "exception_message": str(error),
                "exception_type": type_name(error),
                "traceback": traceback.format_tb(error.__traceback__),
                "linked_node": value,
            }
            problem = _problem("exception_during_inner_validation", "Exception when validating inner node", str(error), extra)
            self.found[source] = (False, [problem])
            return False

    def _literal(self, known: NodeClass, name: str, spec: Input, values: dict[str, Any], problems: list[dict[str, Any]]) -> None:
        value = values[name]
        info: dict[str, Any] = {"input_name": name, "input_config": self._config(spec)}
        try:
            if isinstance(value, dict) and "__value__" in value:
                value = values[name] = value["__value__"]
            if spec.kind in COERCIONS:
                value = values[name] = COERCIONS[spec.kind](value)
        except Exception as error:
            details = f"{name}, {value}, {error}"
            extra = {**info, "received_value": value, "exception_message": str(error)}
            problems.append(_problem("invalid_input_type", f"Failed to convert an input value to a {spec.kind} value", details, extra))
            return
        if name in known.checked:
            return
        low, high = spec.options.get("min"), spec.options.get("max")
        info["received_value"] = value
        if low is not None and value < low:
            problems.append(_problem("value_smaller_than_min", f"Value {value} smaller than min of {low}", name, info))
        elif high is not None and value > high:
            problems.append(_problem("value_bigger_than_max", f"Value {value} bigger than max of {high}", name, info))
        elif spec.kind == "COMBO":
            self._listed(name, spec, value, info, problems)

    def _listed(self, name: str, spec: Input, value: Any, info: dict[str, Any], problems: list[dict[str, Any]]) -> None:
        options = spec.listed(self.directories)
        if value in options:
            return
        shown = str(options)
        if len(options) > LONGEST_SHOWN_LIST:
            info["input_config"] = None
            shown = f"(list of length {len(options)})"
        problems.append(_problem("value_not_in_list", "Value not in list", f"{name}: '{value}' not in {shown}", info))

    def _config(self, spec: Input) -> list[Any]:
        return [self._kind(spec), dict(spec.options)]

    def _kind(self, spec: Input) -> Any:
        return spec.listed(self.directories) if spec.kind == "COMBO" else spec.kind


def _custom(known: NodeClass, values: dict[str, Any], directories: Directories) -> list[dict[str, Any]]:
    assert known.check is not None
    given = {name: values.get(name) for name in known.checked}
    if any(isinstance(value, list) for value in given.values()):
        return []
    refusal = known.check(directories, **given)
    if refusal is None:
        return []
    name = known.checked[0]
    return [_problem("custom_validation_failed", "Custom validation failed for node", f"{name} - {refusal}", {"input_name": name})]


def _fits(received: str, wanted: str) -> bool:
    """Whether an output type may feed an input type; `*` is any, commas mean one of."""
    if "*" in (received, wanted) or received == wanted:
        return True
    return set(received.split(",")) <= set(wanted.split(","))


def type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _problem(kind: str, message: str, details: str, extra: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def _error(kind: str, message: str, details: str = "") -> dict[str, Any]:
    return _problem(kind, message, details, {})
