"""What a node class is: its inputs, outputs and the function that runs it.

The facts (types, defaults, ranges, options) are those a ComfyUI server reports;
its sentences (tooltips, descriptions) are not repeated here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.engine.directories import Directories

Listing = Callable[[Directories], list[str]]


@dataclass(frozen=True)
class Input:
    """One input of a node class."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[str, ...] | Listing | None = None

    def listed(self, directories: Directories) -> list[str]:
        """The options of a combo as they are now; files come and go."""
        if callable(self.choices):
            return self.choices(directories)
        return list(self.choices or ())

    def described(self, directories: Directories, *, v3: bool) -> list[Any]:
        if self.kind != "COMBO":
            return [self.kind, dict(self.options)] if v3 or self.options else [self.kind]
        listed = self.listed(directories)
        if v3:
            return ["COMBO", {"multiselect": False, "options": listed, **self.options}]
        return [listed, dict(self.options)] if self.options else [listed]


@dataclass(frozen=True)
class NodeClass:
    """A node class: facts for /object_info and validation, and how to run it."""

    name: str
    category: str
    module: str
    outputs: tuple[str, ...]
    names: tuple[str, ...]
    title: str | None
    required: Mapping[str, Input]
    optional: Mapping[str, Input]
    hidden: Mapping[str, Any]
    terminal: bool
    v3: bool
    deprecated: bool
    run: Callable[..., Any] | None
    # A value that changes when the node must run again although its inputs are equal.
    stamp: Callable[..., Any] | None = None
    # Says why input values are refused; None accepts. It replaces the combo check.
    check: Callable[..., str | None] | None = None
    # Which inputs `check` looks at.
    checked: tuple[str, ...] = ()
    # For each output the template whose type it takes over from an input.
    matches: tuple[str, ...] | None = None

    @property
    def wants_node_id(self) -> bool:
        """Whether the node's own id is part of what it computes."""
        return "unique_id" in self.hidden

    def input(self, name: str) -> Input | None:
        return self.required.get(name) or self.optional.get(name)

    def described(self, directories: Directories) -> dict[str, Any]:
        """This class as /object_info shows it."""
        sections = {"required": self.required, "optional": self.optional}
        inputs: dict[str, Any] = {
            section: {name: spec.described(directories, v3=self.v3) for name, spec in specs.items()}
            for section, specs in sections.items()
            if specs or section == "required"
        }
        if self.hidden:
            inputs["hidden"] = dict(self.hidden)
        facts: dict[str, Any] = {
            "input": inputs,
            "input_order": {section: list(specs) for section, specs in inputs.items()},
            "output": list(self.outputs),
            "output_is_list": [False] * len(self.outputs),
            "output_name": list(self.names),
        }
        if self.v3:
            facts |= {"output_tooltips": [None] * len(self.outputs), "output_matchtypes": list(self.matches) if self.matches else None}
        facts |= {
            "name": self.name,
            "display_name": self.title if self.title or self.v3 else self.name,
            "description": "",
            "python_module": self.module,
            "category": self.category,
            "output_node": self.terminal,
        }
        if self.v3:
            facts |= {"deprecated": self.deprecated, "experimental": False, "api_node": False}
        elif self.deprecated:
            facts["deprecated"] = True
        return facts


NODES: dict[str, NodeClass] = {}

Body = Callable[..., Any]


def _declare(
    name: str,
    *,
    v3: bool,
    category: str,
    module: str,
    outputs: Iterable[str] = (),
    inputs: Mapping[str, Input] | None = None,
    optional: Mapping[str, Input] | None = None,
    hidden: Mapping[str, Any] | None = None,
    names: Iterable[str] | None = None,
    title: str | None = None,
    terminal: bool = False,
    deprecated: bool = False,
    stamp: Callable[..., Any] | None = None,
    check: Callable[..., str | None] | None = None,
    checked: tuple[str, ...] = (),
    matches: tuple[str, ...] | None = None,
    run: Body | None = None,
) -> None:
    NODES[name] = NodeClass(
        name=name,
        category=category,
        module=module,
        outputs=tuple(outputs),
        names=tuple(names or outputs),
        title=title,
        required=dict(inputs or {}),
        optional=dict(optional or {}),
        hidden=dict(hidden or {}),
        terminal=terminal,
        v3=v3,
        deprecated=deprecated,
        run=run,
        stamp=stamp,
        check=check,
        checked=checked,
        matches=matches,
    )


def node(name: str, **facts: Any) -> Callable[[Body], Body]:
    """Register the decorated function as node class `name` (first-generation schema)."""

    def register(body: Body) -> Body:
        _declare(name, v3=False, run=body, **facts)
        return body

    return register


def node_v3(name: str, **facts: Any) -> Callable[[Body], Body]:
    """Register the decorated function as node class `name` (third-generation schema)."""

    def register(body: Body) -> Body:
        _declare(name, v3=True, run=body, **facts)
        return body

    return register


def declared(name: str, *, v3: bool = False, **facts: Any) -> None:
    """Register a class that is validated and described but needs a model to run."""
    _declare(name, v3=v3, **facts)


def link(kind: str, **options: Any) -> Input:
    return Input(kind, options)


def integer(**options: Any) -> Input:
    return Input("INT", options)


def number(**options: Any) -> Input:
    return Input("FLOAT", options)


def text(**options: Any) -> Input:
    return Input("STRING", options)


def flag(**options: Any) -> Input:
    return Input("BOOLEAN", options)


def choice(choices: Iterable[str] | Listing, **options: Any) -> Input:
    return Input("COMBO", options, choices if callable(choices) else tuple(choices))


def model_choice(folder: str, *extra: str, **options: Any) -> Input:
    """A combo of the model files in a folder."""
    return choice(lambda directories: [*directories.model_files(folder), *extra], **options)
