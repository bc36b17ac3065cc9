"""The bytes of an output."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from billing.endpoints import Endpoint
from controlplane.kernel.errors import NotFound
from controlplane.kernel.ids import parse_uuid
from fleet import downloads, tenancy
from fleet.api import described


class OutputBytes(Endpoint):
    """One file a job produced."""

    @extend_schema(**described.OUTPUT)
    def get(self, request: Request, job: str, index: str, name: str) -> HttpResponseBase:
        self.query()
        job_id = parse_uuid(job)
        number = int(index) if index.isascii() and index.isdecimal() and len(index) < 5 else -1
        item = tenancy.outputs_of(self.customer.id).filter(job_id=job_id, index=number).first() if job_id and number >= 0 else None
        if item is None or item.name != name:
            raise NotFound("output_not_found", "There is no such output.", "Use the url that the job gives, with a key of the same account.")
        return downloads.respond(request._request, item)
