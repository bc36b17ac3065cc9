"""Files that go into jobs: sent beforehand, inline as data URIs, or as a version's own default. Checked before they are decoded or kept."""

from __future__ import annotations

import base64
import binascii
import io
import re
from datetime import datetime
from typing import Any, BinaryIO
from uuid import UUID

from django.conf import settings

from billing.models import Customer
from builds import inputs as input_rules
from builds.models import Version
from controlplane.kernel import blobs
from controlplane.kernel.errors import Invalid, TooLarge
from controlplane.kernel.ids import parse_uuid
from controlplane.kernel.models import Blob
from fleet import media
from fleet.models import CustomerFile

_DATA_URI = re.compile(r"data:(?P<type>[\w.+/-]{0,100})(?P<params>(?:;[\w.=+-]{1,60})*);base64,", re.ASCII)
_PLAIN_ALPHABET = str.maketrans("-_", "+/")
_EXTENSIONS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/gif": ".gif", "audio/flac": ".flac", "audio/wav": ".wav",
               "audio/mpeg": ".mp3", "audio/ogg": ".ogg", "video/mp4": ".mp4", "video/webm": ".webm", "text/plain": ".txt"}  # fmt: skip


def keep(stream: BinaryIO, *, name: str, customer: Customer, now: datetime) -> tuple[CustomerFile, bool]:
    """Store an upload under its hash and return the customer's file and whether it is new. Type by content; limits before decoding."""
    head = stream.read(4096)
    found = media.sniff(head)
    stream.seek(0)
    if not head:
        raise Invalid("file_empty", "The file has no bytes.", "Send the file itself.")
    width = height = None
    if found.startswith("image/"):
        width, height = media.check_image(stream, max_pixels=settings.MAX_IMAGE_PIXELS)
        stream.seek(0)
    blob = blobs.put(stream, media_type=found, max_bytes=settings.MAX_FILE_BYTES, now=now)
    return CustomerFile.objects.get_or_create(
        customer=customer,
        blob=blob,
        defaults={"name": media.safe_name(name), "media_type": found, "width": width, "height": height, "created_at": now},
    )


def keep_inline(version: Version, inputs: dict[str, Any], *, customer: Customer, now: datetime) -> dict[str, Any]:
    """`inputs` with every data URI of a file input replaced by the id of a stored file."""
    if not isinstance(inputs, dict):
        return inputs
    replaced = dict(inputs)
    for exposed in input_rules.exposed_of(version):
        value = replaced.get(exposed.name)
        if exposed.kind != "value" and isinstance(value, str) and value.startswith("data:"):
            file, _ = keep(io.BytesIO(_decode(value, exposed.name)), name=exposed.name, customer=customer, now=now)
            replaced[exposed.name] = str(file.id)
    return replaced


def check_owned(version: Version, values: dict[str, Any], *, customer_id: UUID) -> None:
    """Raise unless every file input names a file of this customer, of a fitting type."""
    for exposed in input_rules.exposed_of(version):
        value = values.get(exposed.name)
        if exposed.kind == "value" or not isinstance(value, str):
            continue
        if value.startswith("blob:") and value == exposed.default:
            continue
        file_id = parse_uuid(value)
        file = CustomerFile.objects.filter(id=file_id, customer_id=customer_id).first() if file_id else None
        if file is None:
            raise Invalid(
                "file_not_found",
                f"The file given for {exposed.name!r} does not exist.",
                "Upload it with POST /v1/files and use the id.",
                details={"field": exposed.name},
            )
        if exposed.kind in ("image", "audio", "video") and not file.media_type.startswith(exposed.kind + "/"):
            raise Invalid(
                "file_type_mismatch",
                f"{exposed.name!r} takes {exposed.kind}, and the file is {file.media_type}.",
                f"Send a file of type {exposed.kind}.",
                details={"field": exposed.name, "media_type": file.media_type},
            )


def resolve(version: Version, values: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Values as ComfyUI will see them (file names for files), and the files the agent must bring."""
    seen, files = dict(values), []
    for exposed in input_rules.exposed_of(version):
        value = values.get(exposed.name)
        if exposed.kind == "value" or not isinstance(value, str):
            continue
        if value.startswith("blob:"):
            blob = Blob.objects.get(sha256=value.removeprefix("blob:"))
            kind = blob.media_type
        else:
            file = CustomerFile.objects.select_related("blob").get(id=UUID(value))
            blob, kind = file.blob, file.media_type
        name = f"{blob.sha256[:24]}{extension(kind)}"
        seen[exposed.name] = name
        files.append({"sha256": blob.sha256, "name": name, "size_bytes": blob.size_bytes, "media_type": kind, "node": exposed.node, "input": exposed.input})
    return seen, files


def extension(media_type: str) -> str:
    """The ending a file of that type gets for ComfyUI."""
    return _EXTENSIONS.get(media_type, ".bin")


def _decode(uri: str, field: str) -> bytes:
    match = _DATA_URI.match(uri[:400])
    if match is None:
        raise Invalid("data_uri_malformed", f"The data URI of {field!r} is not base64.", "Use data:<media type>;base64,<bytes>.", details={"field": field})
    text = uri[match.end() :]
    if len(text) * 3 // 4 > settings.MAX_FILE_BYTES:
        raise TooLarge(
            "file_too_large",
            f"The file given for {field!r} is larger than {settings.MAX_FILE_BYTES:,} bytes.",
            "Send a smaller file.",
            details={"field": field},
        )
    try:
        # Both alphabets, and the padding may be missing: browsers write it either way.
        return base64.b64decode(text.translate(_PLAIN_ALPHABET).rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("data_uri_malformed", f"The data URI of {field!r} is not valid base64.", "Encode the bytes again.", details={"field": field}) from None
