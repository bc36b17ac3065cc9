"""What a caller sends to start a job, as JSON or as a form with files, read into one shape.

In a form each part is an input; parts called metadata, priority, deadline_s, webhook_url and version are the
fields of that name, and a part called inputs may hold JSON that the other parts add to.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest
from django.http.request import UnreadablePostError

from billing.models import Customer
from builds import inputs as input_rules
from builds.models import Version
from controlplane.kernel import jsonbody
from controlplane.kernel.errors import Invalid, Malformed, TooLarge, UnsupportedMedia
from fleet import input_files

FIELDS = ("inputs", "priority", "deadline_s", "webhook_url", "metadata", "version")
MAX_URL = 500
_NO_FILE = "00000000-0000-0000-0000-000000000000"


@dataclass(slots=True)
class Submission:
    """A request to run a workflow, types checked, inputs not yet."""

    inputs: Any = field(default_factory=dict)
    priority: str = "normal"
    deadline_s: float | None = None
    webhook_url: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    version: int | None = None
    parts: dict[str, str] = field(default_factory=dict)
    files: dict[str, UploadedFile] = field(default_factory=dict)

    def complete(self, version: Version, *, customer: Customer, now: datetime) -> None:
        """Put the parts of a form among the inputs: text by the type `version` asks for, files by the id they are kept under."""
        if not self.parts and not self.files:
            return
        if not isinstance(self.inputs, dict):
            raise Invalid(
                "inputs_not_object",
                "inputs is not an object.",
                "Send JSON in the part inputs, or each input as a part of its own.",
                details={"field": "inputs"},
            )
        known = {one.name: one for one in input_rules.exposed_of(version)}
        self.inputs = {**self.inputs, **input_rules.from_text(version, self.parts)}
        if self.files:
            # Judged with an id nobody has in place of each file, so that nothing is kept of a request that is refused anyway.
            input_rules.validate(version, {**self.inputs, **{name: _NO_FILE if name in known and known[name].is_file else "(file)" for name in self.files}})
        for name, file in self.files.items():
            kept, _ = input_files.keep(file.file, name=file.name or name, customer=customer, now=now)  # type: ignore[arg-type]
            self.inputs[name] = str(kept.id)

    def digest(self, slug: str) -> str:
        """What an Idempotency-Key is bound to: the same request, however it was written down."""
        said = [slug, self.inputs, self.priority, self.deadline_s, self.webhook_url, self.metadata, self.version]
        return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read(request: HttpRequest) -> Submission:
    """The submission in the body of `request`; raises Malformed, Invalid, TooLarge or UnsupportedMedia."""
    kind = request.content_type or ""
    if kind == "application/json" or (not kind and not length(request)):
        return from_fields(jsonbody.load(raw_body(request)))
    if kind == "multipart/form-data":
        return _from_form(request)
    raise UnsupportedMedia(
        "unsupported_media_type",
        f"A job cannot be read from {kind[:60] or 'a body without a content type'}.",
        "Send 'Content-Type: application/json', or a form as multipart/form-data.",
    )


def raw_body(request: HttpRequest) -> bytes:
    """The bytes of the body, bounded by the settings."""
    try:
        return request.body
    except UnreadablePostError:
        raise Malformed("body_incomplete", "The connection ended before the whole body arrived.", "Send the request again.") from None


def bounded(request: HttpRequest, limit: int) -> None:
    """Raise TooLarge before a body longer than `limit` is read."""
    if length(request) > limit:
        raise TooLarge("body_too_large", f"The request body is larger than {limit:,} bytes.", "Send less in one request.", details={"max_bytes": limit})


def length(request: HttpRequest) -> int:
    """The announced length of the body; 0 when none is."""
    text = str(request.META.get("CONTENT_LENGTH") or "0")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


def _from_form(request: HttpRequest) -> Submission:
    bounded(request, settings.MAX_FILE_BYTES + settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
    try:
        form, files = request.POST, request.FILES
    except UnreadablePostError:
        raise Malformed("body_incomplete", "The connection ended before the whole body arrived.", "Send the request again.") from None
    except RequestDataTooBig:
        raise TooLarge("body_too_large", "The text parts of the form are too large.", "Send large content as files.") from None
    fields: dict[str, Any] = {}
    parts: dict[str, str] = {}
    for name in form:
        values = form.getlist(name)
        if len(values) > 1 or name in files:
            raise Malformed("form_duplicate_field", f"The part {name[:100]!r} is given twice.", "Give each part once.", details={"field": name[:100]})
        if name in ("inputs", "metadata"):
            fields[name] = jsonbody.load(values[0].encode())
        elif name in ("deadline_s", "version"):
            fields[name] = _number(values[0])
        elif name in ("priority", "webhook_url"):
            fields[name] = values[0]
        else:
            parts[name] = values[0]
    for name in files:
        if len(files.getlist(name)) > 1:
            raise Malformed("form_duplicate_field", f"The part {name[:100]!r} is given twice.", "Give each part once.", details={"field": name[:100]})
        if name in FIELDS:
            raise Invalid("field_not_text", f"The part {name} is a file.", "Send it as a plain part.", details={"field": name})
    made = from_fields(fields)
    made.parts, made.files = parts, {name: files.getlist(name)[0] for name in files}
    return made


def _number(text: str) -> Any:
    try:
        return int(text) if text.strip().lstrip("-").isdecimal() and len(text) < 20 else float(text) if len(text) < 40 else text
    except ValueError:
        return text


def from_fields(body: dict[str, Any]) -> Submission:
    """The submission these fields say; raises Invalid for a field that is not known or of another type."""
    jsonbody.only(body, FIELDS)
    made = Submission(inputs=body.get("inputs", {}))
    if (priority := body.get("priority")) is not None:
        made.priority = _text(priority, "priority", 40)
    if (url := body.get("webhook_url")) is not None:
        made.webhook_url = _text(url, "webhook_url", MAX_URL)
    if (metadata := body.get("metadata")) is not None:
        if not isinstance(metadata, dict):
            raise _wrong("metadata", "an object")
        made.metadata = metadata
    if (deadline := body.get("deadline_s")) is not None:
        if type(deadline) not in (int, float) or not -1e12 < deadline < 1e12:
            raise _wrong("deadline_s", "a number of seconds")
        made.deadline_s = deadline
    if (version := body.get("version")) is not None:
        if type(version) is float and version.is_integer():
            version = int(version)
        if type(version) is not int:
            raise _wrong("version", "a version's number")
        made.version = version
    return made


def _text(value: Any, name: str, most: int) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "text")
    if len(value) > most:
        raise Invalid("too_long", f"{name} has more than {most} characters.", "Shorten it.", details={"field": name, "max_length": most})
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise Invalid("invalid_text", f"{name} holds control characters.", "Send plain text.", details={"field": name})
    return value


def _wrong(name: str, wanted: str) -> Invalid:
    return Invalid("wrong_type", f"{name} must be {wanted}.", f"Send {wanted}, or leave {name} out.", details={"field": name})
