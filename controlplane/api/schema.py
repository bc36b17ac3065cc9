"""The OpenAPI document of /v1/: what drf-spectacular collects from the views, completed with shapes, errors and limits."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator

from billing import api as billing_api
from billing import webhooks_api
from builds.models import Version, Workflow
from fleet.api import described as fleet_described
from fleet.api import generate_described, quotes_described

_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/WorkflowError"}}}
_EVERYWHERE = {
    "400": "The request cannot be read.",
    "401": "No key, or one that is no longer good.",
    "403": "The key may not do this, or the account is suspended.",
}
_SAID = {
    "402": "A hard money limit would be passed.",
    "404": "There is nothing of that name for this key.",
    "406": "That form is not available.",
    "409": "The state of things does not allow it.",
    "410": "It is no longer there.",
    "413": "The body is larger than accepted.",
    "415": "That content type is not read here.",
    "416": "The range lies outside of the file.",
    "422": "Readable, but wrong; details say where.",
    "429": "Too many requests or jobs; see Retry-After.",
    "503": "Not ready, or overloaded; see Retry-After.",
}
_MORE: dict[str, tuple[str, ...]] = {
    "createJob": ("402", "404", "409", "410", "413", "415", "422", "429", "503"),
    "generate": ("402", "404", "409", "410", "413", "415", "422", "429", "503"),
    "cancelJob": ("404", "409", "413", "415", "422", "429"),
    "createFile": ("413", "415", "422", "429"),
    "getOutput": ("404", "410", "416", "422"),
    "getWorkflow": ("404", "409", "410", "422"),
    "getWorkflowSchema": ("404", "409", "410", "422"),
    "getWorkflowOpenApi": ("404", "409", "410", "422"),
    "getJob": ("404", "422"),
    "streamJob": ("404", "422"),
    "getFile": ("404", "422"),
    "createQuote": ("402", "404", "409", "410", "413", "415", "422", "429", "503"),
    "getQuote": ("404", "422"),
    "announceQuote": ("402", "404", "409", "413", "415", "422", "429"),
    "withdrawQuote": ("404", "409", "422", "429"),
}
_HEADERS: dict[str, Any] = {
    "RateLimit": {"description": "What is left, as in draft-ietf-httpapi-ratelimit-headers", "schema": {"type": "string"}},
    "RateLimit-Policy": {"description": "What the plan allows", "schema": {"type": "string"}},
    "X-Request-ID": {"description": "Name it when you ask us", "schema": {"type": "string"}},
}
_MORE_HEADERS: dict[tuple[str, str], tuple[str, ...]] = {
    ("createJob", "200"): ("Location", "Preference-Applied", "Idempotency-Replayed"),
    ("createJob", "202"): ("Location", "Preference-Applied", "Idempotency-Replayed"),
    ("generate", "200"): ("Location", "Preference-Applied", "Idempotency-Replayed"),
    ("generate", "202"): ("Location", "Preference-Applied", "Idempotency-Replayed"),
    ("createQuote", "200"): ("Location", "Idempotency-Replayed"),
    ("createQuote", "201"): ("Location",),
    ("createFile", "200"): ("Location",),
    ("createFile", "201"): ("Location",),
}


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the document names our keys."""

    target_class = "billing.authentication.KeyAuthentication"
    name = ["ApiKey", "ApiKeyHeader"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        return [
            {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer cp_…"},
            {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        ]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[str]]]:
        return [{"ApiKey": []}, {"ApiKeyHeader": []}]


def only_v1(endpoints: list[tuple[str, str, str, Any]], **kwargs: Any) -> list[tuple[str, str, str, Any]]:
    """drf-spectacular's preprocessing hook: the customer API; the workers' protocol and the pages are no part of it."""
    return [entry for entry in endpoints if entry[0].startswith("/v1/")]


def complete(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """drf-spectacular's postprocessing hook: shapes, every error an operation may answer with, and the fields on each answer."""
    from controlplane.api import described

    components = result.setdefault("components", {})
    every = (fleet_described.SHAPES, generate_described.SHAPES, quotes_described.SHAPES, billing_api.SHAPES, webhooks_api.SHAPES, described.SHAPES)
    components.setdefault("schemas", {}).update({name: copy.deepcopy(shape) for shapes in every for name, shape in shapes.items()})
    components["headers"] = copy.deepcopy(_HEADERS)
    for path in result["paths"].values():
        for operation in path.values():
            if isinstance(operation, dict) and "responses" in operation:
                _complete(operation)
    result["tags"] = [{"name": "workflows"}, {"name": "jobs"}, {"name": "files"}, {"name": "quotes"}, {"name": "usage"}]
    return result


def _complete(operation: dict[str, Any]) -> None:
    name, responses = operation.get("operationId", ""), operation["responses"]
    for status, answer in responses.items():
        for header in _MORE_HEADERS.get((name, status), ()):
            answer.setdefault("headers", {})[header] = {"schema": {"type": "string"}}
    if name in ("createJob", "generate"):
        for kind in ("image/*", "audio/*", "video/*", "text/plain", "application/octet-stream"):
            responses["200"]["content"][kind] = {"schema": {"type": "string", "format": "binary"}}
    if name == "createFile":
        operation["requestBody"]["required"] = True
    for status in (*_EVERYWHERE, *_MORE.get(name, ("422",))):
        responses.setdefault(status, {"description": _EVERYWHERE.get(status) or _SAID[status], "content": copy.deepcopy(_ERROR)})
        if status in ("429", "503"):
            responses[status].setdefault("headers", {})["Retry-After"] = {"schema": {"type": "string"}, "description": "Seconds"}
    for status, answer in responses.items():
        wanted = _HEADERS if status not in ("401",) else {"X-Request-ID": None}
        answer.setdefault("headers", {}).update({header: {"$ref": f"#/components/headers/{header}"} for header in wanted})
    operation["responses"] = dict(sorted(responses.items()))


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """The whole document. It says nothing that changes while the process runs; do not change it."""
    made: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return made


def of_workflow(workflow: Workflow, version: Version, *, server: str) -> dict[str, Any]:
    """A document of one workflow: its call with typed inputs, and the calls that follow a job to its outputs."""
    whole = copy.deepcopy(document())
    submit = whole["paths"]["/v1/workflows/{slug}/jobs"]["post"]
    submit["parameters"] = [p for p in submit["parameters"] if p["name"] != "slug"]
    submit["summary"] = f"Run {workflow.name}"
    if workflow.description:
        submit["description"] = f"{workflow.description}\n\n{submit['description']}"
    inputs = {key: value for key, value in version.schema.items() if key != "$schema"}
    request = whole["components"]["schemas"]["JobRequest"]
    request["properties"]["inputs"] = {"$ref": "#/components/schemas/Inputs"}
    if inputs.get("required"):
        request["required"] = ["inputs"]
    paths = {f"/v1/workflows/{workflow.slug}/jobs": {"post": submit}}
    paths |= {path: item for path, item in whole["paths"].items() if path.startswith(("/v1/jobs/", "/v1/files"))}
    return {
        **whole,
        "info": {"title": workflow.name, "version": str(version.number), "description": workflow.description},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {**whole["components"], "schemas": {**_used(whole["components"]["schemas"], paths), "Inputs": inputs}},
    }


def _used(schemas: dict[str, Any], paths: dict[str, Any]) -> dict[str, Any]:
    """The shapes that `paths` refer to, directly or through others."""
    found: dict[str, Any] = {}
    open_ends: list[Any] = [paths]
    while open_ends:
        value = open_ends.pop()
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).removeprefix("#/components/schemas/")
            if name in schemas and name not in found:
                found[name] = schemas[name]
                open_ends.append(schemas[name])
            open_ends += value.values()
        elif isinstance(value, list):
            open_ends += value
    return found
