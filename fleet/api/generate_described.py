"""What the OpenAPI document says of the one address for a task."""

from __future__ import annotations

from typing import Any

from fleet import choosing
from fleet.api import described
from fleet.api.shapes import USD, nullable, record, ref, response

_LACK = record(
    {
        "requirement": {"type": "string", "enum": list(choosing.REQUIREMENTS)},
        "wanted": {"description": "What was asked for"},
        "has": {"description": "What it has; null where nothing was measured"},
        "message": {"type": "string"},
    },
    closed=True,
)
_CHOICE = record(
    {
        "workflow": {"type": "string"},
        "version": {"type": "integer", "minimum": 1},
        "why": {"type": "array", "items": {"type": "string"}, "description": "Sentences, with the figures"},
        "considered": {"type": "integer", "minimum": 1, "description": "Workflows that do the task"},
        "rejected": {
            "type": "array",
            "description": "Those that miss a requirement, the nearest first",
            "items": record({"workflow": {"type": "string"}, "version": {"type": "integer"}, "lacks": {"type": "array", "items": _LACK}}, closed=True),
        },
    },
    closed=True,
)
_AMOUNT = {"type": "number", "minimum": 0, "maximum": 1e12}
_REQUIREMENTS = record(
    {
        "max_cost": {**_AMOUNT, "description": "Dollars your plan pays for a measured job"},
        "max_seconds": {**_AMOUNT, "description": "Seconds that 95% of the measured runs took at most"},
        "min_success": {"type": "number", "minimum": 0, "maximum": 1, "description": "Share of measured runs that succeeded"},
        "min_quality": {"type": "string", "enum": list(choosing.QUALITIES), "description": "Rated by the operator, the best last"},
        **{name: {"type": "boolean", "description": f"It {words}; false asks for nothing"} for name, (_, words) in choosing.CAPABILITIES.items()},
    },
    closed=True,
    required=[],
)
_GENERATE = record(
    {
        "task": {
            "type": "string", "minLength": 1, "maxLength": 60, "pattern": r"\S", "description": "The category of a workflow", "examples": ["text-to-image"],
        },
        "requirements": _REQUIREMENTS,
        "prefer": {"type": "string", "enum": list(choosing.PREFERENCES), "default": "quality", "description": "Which of those that fit comes first"},
        "dry_run": {"type": "boolean", "default": False, "description": "Answer the choice and the most it can cost; nothing runs"},
        **{name: shape for name, shape in described.SHAPES["JobRequest"]["properties"].items() if name != "version"},
    },
    closed=True,
    required=["task"],
)  # fmt: skip

SHAPES: dict[str, Any] = {
    "Choice": _CHOICE,
    "GenerateRequest": _GENERATE,
    "GeneratedJob": record({**described.SHAPES["Job"]["properties"], "choice": nullable(ref("Choice"))}, closed=True),
    "GeneratePlan": record({"dry_run": {"const": True}, "choice": ref("Choice"), "quote_usd": USD, "inputs": {"type": "object"}}, closed=True),
}

GENERATE: dict[str, Any] = {
    "operation_id": "generate",
    "summary": "Run the workflow that fits",
    "description": (
        "Chooses among the workflows that do the task by what was measured of them, says why, and runs it as POST /v1/workflows/{slug}/jobs would. "
        "What was not measured meets no requirement. When nothing fits, the error no_workflow_matches lists the nearest with what each lacks. "
        "A replayed request answers the first choice."
    ),
    "tags": ["jobs"],
    "parameters": described.SUBMIT["parameters"][1:],
    "request": {"application/json": ref("GenerateRequest")},
    "responses": {
        200: response({"oneOf": [ref("GeneratedJob"), ref("GeneratePlan")]}, "The job is over, or what a dry run would do."),
        202: response(ref("GeneratedJob"), "The job waits or runs; its address is in Location."),
    },
}
