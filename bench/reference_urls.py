"""The yardstick of post_job.py: a DRF view that only checks a key and inserts one row."""

from __future__ import annotations

import uuid

from django.urls import include, path
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.kernel.models import OutboxEntry


class Reference(APIView):
    """Authenticated by the same key check; inserts one row of a plain table."""

    scopes = {"POST": "jobs:write"}

    def post(self, request: Request) -> Response:
        now = timezone.now()
        row = OutboxEntry.objects.create(topic="bench", key=uuid.uuid4().hex, payload=request.data, due_at=now, created_at=now, state="done")
        return Response({"id": str(row.id)}, status=202)


urlpatterns = [path("reference", Reference.as_view()), path("", include("controlplane.urls"))]
