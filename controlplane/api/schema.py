"""The OpenAPI document of /v1/: what drf-spectacular collects from the views, completed with shapes, errors and limits."""

from __future__ import annotations

from typing import Any


def only_v1(endpoints: list[tuple[str, str, str, Any]], **kwargs: Any) -> list[tuple[str, str, str, Any]]:
    """Keep the customer API; the workers' protocol and the pages are no part of it."""
    return [entry for entry in endpoints if entry[0].startswith("/v1/")]


def complete(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    return result
