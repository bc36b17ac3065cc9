"""What descriptions of addresses are made of: plain shapes, parameters and answers, as JSON Schema 2020-12."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from fleet.api.waiting import MAX_WAIT_S

UUID: dict[str, Any] = {"type": "string", "format": "uuid"}
WHEN: dict[str, Any] = {"type": "string", "format": "date-time"}
USD: dict[str, Any] = {"type": "string", "pattern": r"^-?\d+\.\d{2,6}$", "description": "Exact dollars", "examples": ["0.0036"]}
SHA256: dict[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def ref(name: str) -> dict[str, Any]:
    """A reference to the shape `name`."""
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(shape: dict[str, Any]) -> dict[str, Any]:
    """`shape` or null."""
    return {**shape, "type": [shape["type"], "null"]} if isinstance(shape.get("type"), str) else {"oneOf": [shape, {"type": "null"}]}


def record(properties: dict[str, Any], *, closed: bool = False, required: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """An object whose properties are all there, unless `required` says otherwise."""
    shape: dict[str, Any] = {"type": "object", "properties": properties, **more}
    names = list(properties) if required is None else required
    return {**shape, **({"required": names} if names else {}), **({"additionalProperties": False} if closed else {})}


def listed(name: str) -> dict[str, Any]:
    """A page of `name`."""
    return record(
        {"results": {"type": "array", "items": ref(name)}, "next": nullable({"type": "string", "format": "uri", "description": "Address of the next page"})}
    )


def parameter(name: str, schema: dict[str, Any], description: str, *, where: Any = OpenApiParameter.QUERY, required: bool = False) -> OpenApiParameter:
    """One parameter."""
    return OpenApiParameter(name, schema, where, required=required, description=description)


def path(name: str, schema: dict[str, Any], description: str) -> OpenApiParameter:
    """One parameter of the address."""
    return parameter(name, schema, description, where=OpenApiParameter.PATH, required=True)


def response(shape: Any, description: str) -> OpenApiResponse:
    """One answer in JSON."""
    return OpenApiResponse(response=shape, description=description)


SLUG_SCHEMA: dict[str, Any] = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,60}$"}
LIMIT = parameter("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "Rows a page.")
CURSOR = parameter("cursor", {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,300}$"}, "From the address in next; opaque.")
SLUG = path("slug", SLUG_SCHEMA, "The workflow's id.")
JOB = path("job", UUID, "The job's id.")
PREFER = parameter(
    "Prefer",
    {"type": "string", "examples": ["wait=5"]},
    f"`wait=N` holds the answer up to N seconds (at most {MAX_WAIT_S}) until the job is over.",
    where=OpenApiParameter.HEADER,
)


def once(what: str) -> OpenApiParameter:
    """The Idempotency-Key of a request that makes a `what`."""
    said = f"The same key and request again give the first {what}, with `Idempotency-Replayed: true`."
    return parameter("Idempotency-Key", {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"}, said, where=OpenApiParameter.HEADER)
