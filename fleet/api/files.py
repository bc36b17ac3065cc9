"""Files sent ahead of the jobs that use them. The same bytes again give the same id."""

from __future__ import annotations

import tempfile
from typing import Any, BinaryIO
from urllib.parse import unquote

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from billing import quotas
from billing.endpoints import Endpoint
from controlplane.kernel.errors import Invalid, Malformed, NotFound, TooLarge
from controlplane.kernel.ids import parse_uuid
from fleet import input_files, presenting, tenancy
from fleet.api import bodies, described
from fleet.models import CustomerFile

_CHUNK = 256 * 1024


class Files(Endpoint):
    """Send a file."""

    scopes = {"POST": "files:write"}

    @extend_schema(**described.SEND_FILE)
    def post(self, request: Request) -> HttpResponse:
        self.query()
        self.require_room()
        if request.content_type.partition(";")[0].strip().lower() == "multipart/form-data":
            stream, name = _from_form(request._request)
        else:
            stream, name = _raw(request._request), unquote(request.headers.get("X-File-Name", ""))[:500] or "file"
        with stream:
            kept, new = input_files.keep(stream, name=name, customer=self.customer, now=self.now)
        self.standing = quotas.count_request(customer_id=self.customer.id, plan=self.customer.plan_revision, now=self.now)
        return self.answer(shape(kept), status=201 if new else 200, headers={"Location": f"{self.base_url()}/v1/files/{kept.id}"})


class OneFile(Endpoint):
    """What is known of a file."""

    @extend_schema(**described.GET_FILE)
    def get(self, request: Request, file: str) -> HttpResponse:
        self.query()
        file_id = parse_uuid(file)
        found = tenancy.files_of(self.customer.id).select_related("blob").filter(id=file_id).first() if file_id else None
        if found is None:
            raise NotFound("file_not_found", "There is no such file.", "Check the id and the key it belongs to.")
        return self.answer(shape(found))


def shape(file: CustomerFile) -> dict[str, Any]:
    """The public shape of a file."""
    return {
        "id": str(file.id),
        "name": file.name,
        "media_type": file.media_type,
        "bytes": file.blob.size_bytes,
        "width": file.width,
        "height": file.height,
        "sha256": file.blob_id,
        "created_at": presenting.stamp(file.created_at),
    }


def _from_form(request: HttpRequest) -> tuple[BinaryIO, str]:
    bodies.bounded(request, settings.MAX_FILE_BYTES + 100_000)
    try:
        files, fields = request.FILES, request.POST
    except UnreadablePostError:
        raise Malformed("body_incomplete", "The connection ended before the whole body arrived.", "Send the request again.") from None
    unknown = [*fields, *(name for name in files if name != "file")]
    if unknown:
        raise Invalid("unknown_field", f"There is no part {unknown[0][:100]!r} here.", "Send one part called file.", details={"field": unknown[0][:100]})
    sent = files.getlist("file")
    if len(sent) != 1:
        raise Invalid(
            "missing_file", "The form has no file." if not sent else "The form has more than one file.", "Send one part called file.", details={"field": "file"}
        )
    return sent[0].file, sent[0].name or "file"  # type: ignore[return-value]


def _raw(request: HttpRequest) -> BinaryIO:
    """The body in a temporary file, never more than the limit of it."""
    limit = settings.MAX_FILE_BYTES
    refusal = TooLarge("file_too_large", f"The file is larger than {limit:,} bytes.", "Send a smaller file.", details={"max_bytes": limit})
    if bodies.length(request) > limit:
        raise refusal
    kept = tempfile.SpooledTemporaryFile(max_size=1_000_000)  # noqa: SIM115 - closed by the caller
    try:
        size = 0
        while chunk := request.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise refusal
            kept.write(chunk)
    except UnreadablePostError:
        kept.close()
        raise Malformed("body_incomplete", "The connection ended before the whole body arrived.", "Send the request again.") from None
    except TooLarge:
        kept.close()
        raise
    kept.seek(0)
    return kept  # type: ignore[return-value]
