"""The secret a receiver checks our webhooks with: /v1/webhook-secret. It is derived, so it can be asked for again; raising the epoch rotates it."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request

from billing.endpoints import Endpoint
from controlplane.kernel import signing

_SECRET = {"type": "string", "pattern": "^whsec_[A-Za-z0-9+/]+=*$"}
SHAPES: dict[str, Any] = {
    "WebhookSecret": {
        "type": "object",
        "properties": {
            "secret": {**_SECRET, "description": "Hand it to a Standard Webhooks library, together with the headers and the bytes received"},
            "previous": {"type": ["string", "null"], "pattern": _SECRET["pattern"], "description": "The one before it; messages carry a signature of both"},
        },
        "required": ["secret", "previous"],
        "additionalProperties": False,
    }
}


class Secret(Endpoint):
    """What signs the caller's webhooks. For keys that may name a webhook_url."""

    scopes = {"GET": "jobs:write"}

    @extend_schema(
        operation_id="getWebhookSecret",
        tags=["jobs"],
        summary="The secret that signs your webhooks",
        description="Webhooks follow the Standard Webhooks scheme: webhook-id, webhook-timestamp and webhook-signature over the exact body.",
        responses={200: OpenApiResponse({"$ref": "#/components/schemas/WebhookSecret"}, "The secret")},
    )
    def get(self, request: Request) -> HttpResponse:
        self.query()
        secret, *previous = signing.current(self.customer.id, self.customer.webhook_epoch)
        return self.answer({"secret": secret, "previous": previous[0] if previous else None})
