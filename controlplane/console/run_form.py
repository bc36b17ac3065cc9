"""The form of a workflow's inputs, made from the version's JSON Schema: what each field is called, takes, holds and got wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from django.http import HttpRequest

from billing.models import Customer
from builds import inputs as input_rules
from builds.models import Version
from controlplane.console import numbers
from controlplane.kernel.errors import WorkflowError
from controlplane.kernel.ids import parse_uuid
from fleet import input_files
from fleet.models import CustomerFile, Job

PREFIX = "in_"
SHORT = 60
KEPT = "file_"
_ACCEPT = {"image": "image/png,image/jpeg,image/webp", "audio": "audio/*", "video": "video/mp4,video/webm", "file": ""}
_TYPE_WORDS = {"string": "text", "integer": "int", "number": "float", "boolean": "yes or no"}


@dataclass(slots=True)
class Field:
    """One input as the page shows it."""

    name: str
    widget: str  # text, textarea, number, colour, select, checkbox, file
    title: str
    type_word: str
    value: Any
    hint: str
    required: bool
    error: str = ""
    minimum: Any = None
    maximum: Any = None
    step: str = "any"
    placeholder: str = ""
    max_length: int | None = None
    about: str = ""  # what the node's author wrote, where it is too long for a hint
    options: list[tuple[str, str]] = field(default_factory=list)
    swatch: str = ""  # the colour of the number, as a browser writes it
    accept: str = ""
    kind: str = "value"
    kept: str = ""  # id of a file that was sent already
    kept_name: str = ""

    @property
    def id(self) -> str:
        return f"f-{PREFIX}{self.name}"


def fields(
    version: Version, *, values: Mapping[str, Any] | None = None, errors: Mapping[str, str] | None = None, node_titles: Mapping[str, str] | None = None
) -> list[Field]:
    """The form's fields in the order the workflow gives them. Without values, the defaults stand in them."""
    schema, made = version.schema or input_rules.schema(version.inputs), []
    properties = schema.get("properties", {})
    required = set(schema.get("required", ()))
    for name, said in sorted(properties.items(), key=lambda item: item[1].get("x-order", 0)):
        value = said.get("default", "") if values is None else values.get(name, "")
        made.append(_field(name, said, value=value, required=name in required, error=(errors or {}).get(name, ""), node=_node(said, node_titles or {})))
    return made


def _field(name: str, said: Mapping[str, Any], *, value: Any, required: bool, error: str, node: str) -> Field:
    kind = str(said.get("x-kind", "value"))
    made = Field(
        name=name, widget="text", title=str(said.get("title") or name), type_word=_TYPE_WORDS.get(str(said.get("type")), "text"), value=value,
        hint="", required=required, error=error, kind=kind,
    )  # fmt: skip
    about = str(said.get("description") or "") if kind == "value" else ""
    hints = [about] if about and len(about) <= SHORT else []
    made.about = about if len(about) > SHORT else ""
    if kind != "value":
        made.widget, made.type_word, made.accept = "file", kind, _ACCEPT.get(kind, "")
        if isinstance(value, str) and parse_uuid(value):
            made.kept = value
        hints.append({"image": "PNG, JPEG or WebP"}.get(kind, f"one {kind} file") + f", up to {numbers.size(_max_file())}")
        if said.get("default"):
            hints.append("empty uses the workflow's own")
    elif "enum" in said:
        made.widget, made.type_word = "select", "choice"
        made.options = [(str(option), str(option)) for option in said["enum"]]
        if not required and "default" not in said:
            made.options.insert(0, ("", "not set"))
    elif said.get("type") == "boolean":
        made.widget, made.value = "checkbox", value is True or str(value).lower() in ("true", "on", "1")
    elif said.get("type") in ("integer", "number"):
        made.widget = "number"
        made.minimum, made.maximum = said.get("minimum"), said.get("maximum")
        made.step = str(said.get("multipleOf", 1)) if said["type"] == "integer" else "any"
        if is_colour(name, said):
            made.widget, made.swatch, hints = (
                "colour",
                swatch(value),
                [first if len(first := str(said.get("description") or "").partition(". ")[0]) <= SHORT else ""],
            )
        elif said.get("x-randomize"):
            made.placeholder = "random"
            hints = ["empty is random"]
        elif shown := _range(made.minimum, made.maximum):
            hints = [shown]
    else:
        made.widget = "textarea" if said.get("x-multiline") or len(str(value)) > 80 else "text"
        made.max_length = said.get("maxLength")
    if node and made.widget in ("text", "textarea"):
        hints.append(node)
    made.hint = ". ".join(h[:1].upper() + h[1:].rstrip(".") for h in hints if h)
    return made


def is_colour(name: str, said: Mapping[str, Any]) -> bool:
    """Whether a whole number is a colour: it has the range of one, and its node or its name says so."""
    words = f"{said.get('x-input', '')} {name}".lower()
    return said.get("type") == "integer" and said.get("minimum") == 0 and said.get("maximum") == 0xFFFFFF and ("color" in words or "colour" in words)


def swatch(value: Any) -> str:
    """1780315 as #1b2a5b; black where it is no colour."""
    text = str(value)
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 0
    return f"#{min(number, 0xFFFFFF):06x}"


def _max_file() -> int:
    from django.conf import settings

    return int(settings.MAX_FILE_BYTES)


def _range(low: Any, high: Any) -> str:
    """The range in words; bounds nobody would ever reach are left out."""
    far = 2**31
    low = None if low is None or abs(low) >= far else f"{low:,.10g}".replace("-", "−")
    high = None if high is None or abs(high) >= far else f"{high:,.10g}".replace("-", "−")
    if low and high:
        return f"{low} to {high}"
    return f"from {low}" if low else f"up to {high}" if high else ""


def _node(said: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    node = str(said.get("x-node", ""))
    return f"Node {node}, {titles[node]}" if node in titles else ""


def read(request: HttpRequest, version: Version, *, customer: Customer | None, now: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """What the form holds: inputs for admission, values to show again, and errors by field. Uploads are kept at once."""
    text: dict[str, str] = {}
    shown: dict[str, Any] = {}
    uploads: dict[str, str] = {}
    errors: dict[str, str] = {}
    for item in input_rules.load_all(version.inputs):
        given = request.POST.get(PREFIX + item.name, "")
        if item.is_file:
            kept = request.POST.get(KEPT + item.name, "")
            upload = request.FILES.get(PREFIX + item.name)
            if upload is not None and customer is not None:
                try:
                    uploads[item.name] = str(input_files.keep(cast(BinaryIO, upload), name=upload.name or item.name, customer=customer, now=now)[0].id)
                except WorkflowError as error:
                    errors[item.name] = sentence(error)
            elif parse_uuid(kept):
                uploads[item.name] = kept
            shown[item.name] = uploads.get(item.name, "")
        elif item.type == "boolean" and item.enum is None:
            text[item.name] = "true" if given else "false"
            shown[item.name] = bool(given)
        else:
            text[item.name] = given.replace("\r\n", "\n")
            shown[item.name] = text[item.name]
    return {**input_rules.from_text(version, text), **uploads}, shown, errors


def name_files(made: list[Field], *, customer: Customer | None) -> None:
    """Put the names of files that were sent already into their fields."""
    wanted = {f.kept for f in made if f.kept}
    names = {str(i): n for i, n in CustomerFile.objects.filter(id__in=wanted, customer=customer).values_list("id", "name")} if wanted and customer else {}
    for f in made:
        f.kept_name = names.get(f.kept, "")
        if f.kept and not f.kept_name:
            f.kept = ""


def of_job(job: Job, *, drawn: Sequence[str] = ()) -> dict[str, Any]:
    """What was typed to make this job; inputs in `drawn` had been left open, and stay so for the next run."""
    return {name: value for name, value in job.inputs.items() if name not in drawn}


def sentence(error: WorkflowError) -> str:
    return f"{error.message} {error.suggestion}".strip()
