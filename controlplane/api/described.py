"""What the OpenAPI document says of the catalogue's addresses."""

from __future__ import annotations

from typing import Any

from builds import catalogue
from builds.models import Channel
from fleet.api.shapes import CURSOR, LIMIT, SLUG, listed, nullable, record, ref, response

_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_NUMBER = {"type": "number", "minimum": 0}

SHAPES: dict[str, Any] = {
    "Workflow": record(
        {
            "id": {"type": "string"},
            "name": {"type": "string"},
            "description": {"type": "string"},
            "category": {"type": "string"},
            "endpoint": {"type": "string", "description": "POST jobs here"},
            "version": {"type": "integer"},
            "performance": record(
                {
                    "speed": {"type": ["string", "null"], "enum": [*(label for _, label in catalogue.SPEEDS), "slow", None]},
                    "quality": nullable({"type": "string"}),
                    "cost_per_image_usd": nullable(_NUMBER),
                    "cost_per_job_usd": nullable({**_NUMBER, "description": "What your plan pays for a measured run"}),
                    "typical_time_seconds": nullable({**_NUMBER, "description": "Median of measured runs"}),
                    "success_rate": nullable(_SHARE),
                    "measured_jobs": {"type": "integer", "minimum": 0, "description": "Customers' runs these figures rest on"},
                    "measured_smoke_runs": {"type": "integer", "minimum": 0, "description": "Our own test runs, with the smallest inputs, that they rest on"},
                    "measured_from": {
                        "type": ["string", "null"],
                        "enum": ["jobs", "smoke_runs", None],
                        "description": "What speed and cost rest on: customers' jobs once there are any, else our test runs; null without either",
                    },
                },
                closed=True,
            ),
            "capabilities": {"type": "object"},
            "status": {"type": "string", "enum": [*Channel.Name.values, "draft", "archived"]},
        },
        closed=True,
    ),
    "WorkflowPage": listed("Workflow"),
}

LIST_WORKFLOWS: dict[str, Any] = {
    "operation_id": "listWorkflows",
    "summary": "List workflows",
    "description": "What can be run now, by name. Speed, cost and success are measured or null.",
    "tags": ["workflows"],
    "parameters": [LIMIT, CURSOR],
    "responses": {200: response(ref("WorkflowPage"), "A page of workflows.")},
}
GET_WORKFLOW: dict[str, Any] = {
    "operation_id": "getWorkflow",
    "summary": "Look at a workflow",
    "tags": ["workflows"],
    "parameters": [SLUG],
    "responses": {200: response(ref("Workflow"), "Its catalogue entry.")},
}
GET_SCHEMA: dict[str, Any] = {
    "operation_id": "getWorkflowSchema",
    "summary": "See what a workflow takes",
    "tags": ["workflows"],
    "parameters": [SLUG],
    "responses": {200: response({"type": "object"}, "JSON Schema (2020-12) of inputs.")},
}
GET_WORKFLOW_OPENAPI: dict[str, Any] = {
    "operation_id": "getWorkflowOpenApi",
    "summary": "Get a workflow's own OpenAPI document",
    "tags": ["workflows"],
    "parameters": [SLUG],
    "responses": {200: response({"type": "object"}, "OpenAPI 3.1 with the inputs of this workflow typed.")},
}
