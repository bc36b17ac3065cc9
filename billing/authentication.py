"""How a request proves which customer it comes from: `Authorization: Bearer <key>` (or `X-API-Key`)."""

from __future__ import annotations

from typing import Any

import structlog
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from billing import keys
from billing.models import ApiKey, Customer
from controlplane.kernel.errors import Unauthenticated

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="comfyplane"'}


def secret_of(authorization: str, x_api_key: str = "") -> str:
    """The key a request carries; raises Unauthenticated when there is none."""
    scheme, _, value = authorization.partition(" ")
    secret = value.strip() if scheme.lower() == "bearer" else x_api_key.strip()
    if not secret:
        raise Unauthenticated("key_missing", "This request carries no API key.", "Send 'Authorization: Bearer <key>'.", headers=_CHALLENGE)
    return secret


class KeyAuthentication(BaseAuthentication):
    """Sets request.user to the Customer and request.auth to the ApiKey."""

    def authenticate(self, request: Request) -> tuple[Customer, ApiKey]:
        key = keys.authenticate(secret_of(request.headers.get("Authorization", ""), request.headers.get("X-API-Key", "")), now=timezone.now())
        structlog.contextvars.bind_contextvars(customer=key.customer.slug)
        return key.customer, key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="comfyplane"'


class HasScope(BasePermission):
    """A view names the scope of each method in `scopes`, e.g. {"POST": "jobs:write"}; GET defaults to jobs:read."""

    def has_permission(self, request: Request, view: Any) -> bool:
        scopes: dict[str, str] = getattr(view, "scopes", {})
        method = "GET" if request.method == "HEAD" else str(request.method)
        if method != "OPTIONS":
            key: Any = request.auth
            keys.require_scope(key, scopes.get(method, "jobs:read"))
        return True
