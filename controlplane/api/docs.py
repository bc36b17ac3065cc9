"""The document and the page that shows it. Open to everybody: they say how to call, and nothing about anybody."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache

from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_cache_control
from django.views.decorators.http import require_safe
from drf_spectacular.views import SpectacularSwaggerSplitView

from controlplane.api import schema


@require_safe
def openapi(request: HttpRequest) -> HttpResponse:
    """OpenAPI 3.1 in JSON."""
    body, etag = _document()
    if request.headers.get("If-None-Match") == etag:
        return HttpResponse(status=304, headers={"ETag": etag})
    response = HttpResponse(body, content_type="application/json", headers={"ETag": etag, "Access-Control-Allow-Origin": "*"})
    patch_cache_control(response, max_age=300)
    return response


@lru_cache(maxsize=1)
def _document() -> tuple[bytes, str]:
    body = json.dumps(schema.document(), separators=(",", ":")).encode()
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'


class Docs(SpectacularSwaggerSplitView):
    """The page: Swagger UI from our own files, its script at an address of its own so that the content policy stays strict."""

    url_name = "api-openapi"
    title = "Comfyplane API"
