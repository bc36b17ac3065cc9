"""What the OpenAPI document says of the fleet's addresses. Shapes are JSON Schema 2020-12, written beside the code that makes them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from fleet import choosing
from fleet.api.waiting import MAX_WAIT_S
from fleet.models import Job

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
TIME = {"type": "string", "format": "date-time"}

_JOB = record(
    {
        "id": UUID,
        "workflow": {"type": "string"},
        "version": {"type": "integer", "minimum": 1},
        "status": {"type": "string", "enum": list(Job.Status.values)},
        "progress": {"type": "number", "minimum": 0, "maximum": 1},
        "position": nullable({"type": "integer", "minimum": 0, "description": "Jobs before it in the queue; null once it runs, and in lists"}),
        "eta_s": nullable({"type": "number", "minimum": 0, "description": "Estimated seconds to its end; null in lists"}),
        "waiting": nullable(ref("Waiting")),
        "created_at": WHEN,
        "started_at": nullable(WHEN),
        "finished_at": nullable(WHEN),
        "price_usd": {**USD, "description": "Final once the job is over; before that, the most it can cost"},
        "inputs": {"type": "object", "description": "As they run: defaults and seed filled in"},
        "fast": nullable(ref("FastMode")),
        "outputs": {"type": "array", "items": ref("Output")},
        "error": nullable(ref("JobError")),
        "metadata": {"type": "object"},
    },
    closed=True,
)
_OUTPUT = record(
    {
        "name": {"type": "string"},
        "kind": {"type": "string", "enum": ["image", "video", "audio", "text", "file"]},
        "media_type": {"type": "string"},
        "url": {"type": "string", "format": "uri", "description": "Takes the same key as the job"},
        "bytes": {"type": "integer", "minimum": 0},
        "width": nullable({"type": "integer"}),
        "height": nullable({"type": "integer"}),
        "sha256": SHA256,
    },
    closed=True,
)
_ERROR_FIELDS: dict[str, Any] = {
    "code": {"type": "string", "description": "For programs; stable"},
    "message": {"type": "string", "description": "What happened"},
    "suggestion": {"type": "string", "description": "What to do about it"},
    "alternative_endpoint": nullable({"type": "string", "description": "An endpoint to use in its place"}),
    "details": {"type": "object"},
    "request_id": {"type": "string", "description": "Name it when you ask us"},
}
_FILE = record(
    {
        "id": {**UUID, "description": "Give it as a file input"},
        "name": {"type": "string"},
        "media_type": {"type": "string", "description": "Told from the bytes"},
        "bytes": {"type": "integer", "minimum": 1},
        "width": nullable({"type": "integer"}),
        "height": nullable({"type": "integer"}),
        "sha256": SHA256,
        "created_at": WHEN,
    },
    closed=True,
)
_REQUEST = record(
    {
        "inputs": {
            "type": "object",
            "description": "As GET /v1/workflows/{slug}/schema says; {} runs the defaults. A file is an id of POST /v1/files or a data: URL.",
            "default": {},
        },
        "priority": nullable({"type": "string", "enum": ["low", "normal", "high"], "default": "normal", "description": "Bounded by the plan"}),
        "deadline_s": nullable(
            {"type": "number", "minimum": 1, "maximum": 604800, "description": "Seconds from now after which the job is worth nothing to you"}
        ),
        "webhook_url": nullable(
            {
                "type": "string",
                "maxLength": 500,
                "pattern": "^$|^https?://",
                "description": "Told once the job is over; signed as Standard Webhooks with the secret of GET /v1/webhook-secret",
            }
        ),
        "metadata": nullable({"type": "object", "description": "Yours; at most 8,192 bytes"}),
        "version": nullable({"type": "integer", "minimum": 1, "description": "Pin a version; otherwise what production runs"}),
    },
    closed=True,
    required=[],
)

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
        **{name: shape for name, shape in _REQUEST["properties"].items() if name != "version"},
    },
    closed=True,
    required=["task"],
)  # fmt: skip

SHAPES: dict[str, Any] = {
    "Job": _JOB,
    "Output": _OUTPUT,
    "JobError": record({**_ERROR_FIELDS, "class": {"type": "string", "description": "Whose doing: customer_input, workflow, platform, …"}}, closed=True),
    "WorkflowError": record({"error": record(_ERROR_FIELDS)}, closed=True),
    "File": _FILE,
    "JobRequest": _REQUEST,
    "JobPage": listed("Job"),
    "Choice": _CHOICE,
    "GenerateRequest": _GENERATE,
    "Waiting": record(
        {
            "code": {
                "type": "string",
                "enum": ["in_line", "at_capacity", "workers_starting", "workers_cannot_start", "no_workers", "class_paused"],
                "description": "Why it waits, for programs",
            },
            "reason": {"type": "string", "description": "The same in words"},
            "since": WHEN,
            "eta_s": nullable({"type": "number", "minimum": 0, "description": "Seconds until that should change, where it can be told"}),
        },
        closed=True,
    ),
    "FastMode": record(
        {
            "reason": {"type": "string", "description": "Why it ran the faster way: demand was above capacity"},
            "asked_version": {"type": "integer", "minimum": 1, "description": "The version it would have run"},
            "asked_inputs": {"type": "object", "description": "Inputs that were set otherwise, as they would have been"},
        },
        closed=True,
    ),
    "GeneratedJob": record({**_JOB["properties"], "choice": nullable(ref("Choice"))}, closed=True),
    "GeneratePlan": record({"dry_run": {"const": True}, "choice": ref("Choice"), "quote_usd": USD, "inputs": {"type": "object"}}, closed=True),
}

_FORM: dict[str, Any] = {
    "type": "object",
    "description": "Each part an input, files as files; priority, deadline_s, webhook_url, version and metadata (JSON) as parts of that name.",
    "additionalProperties": True,
}
_EVENT = record(
    {
        "event": {"type": "string", "description": "The job's status"},
        "id": {"type": "string", "description": "Send it as Last-Event-ID to go on from here"},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": ref("Job")},
    },
    required=["data"],
)
_BYTES: dict[str, Any] = {"type": "string", "format": "binary"}

SUBMIT: dict[str, Any] = {
    "operation_id": "createJob",
    "summary": "Run a workflow",
    "description": (
        "Answers 202 with a queued job, or 200 when it is over within `Prefer: wait=N`. With an `Accept` for the output's own type "
        "(`image/*`, `audio/*`, …) and wait, a succeeded job answers with the bytes of its first fitting output."
    ),
    "tags": ["jobs"],
    "parameters": [
        SLUG,
        PREFER,
        parameter(
            "Idempotency-Key",
            {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"},
            "The same key and request again give the first job, with `Idempotency-Replayed: true`.",
            where=OpenApiParameter.HEADER,
        ),
    ],
    "request": {"application/json": ref("JobRequest"), "multipart/form-data": _FORM},
    "responses": {200: response(ref("Job"), "The job is over."), 202: response(ref("Job"), "The job waits or runs; its address is in Location.")},
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
    "parameters": SUBMIT["parameters"][1:],
    "request": {"application/json": ref("GenerateRequest")},
    "responses": {
        200: response({"oneOf": [ref("GeneratedJob"), ref("GeneratePlan")]}, "The job is over, or what a dry run would do."),
        202: response(ref("GeneratedJob"), "The job waits or runs; its address is in Location."),
    },
}
LIST_JOBS: dict[str, Any] = {
    "operation_id": "listJobs",
    "summary": "List jobs",
    "description": "Newest first. position and eta_s are null here.",
    "tags": ["jobs"],
    "parameters": [
        LIMIT,
        CURSOR,
        parameter("status", {"type": "string", "enum": list(Job.Status.values)}, "Only these."),
        parameter("workflow", SLUG_SCHEMA, "Only jobs of this workflow."),
        parameter("created_after", TIME, "Created then or later."),
        parameter("created_before", TIME, "Created before then."),
    ],
    "responses": {200: response(ref("JobPage"), "A page of jobs.")},
}
GET_JOB: dict[str, Any] = {
    "operation_id": "getJob",
    "summary": "Look at a job",
    "tags": ["jobs"],
    "parameters": [JOB, PREFER],
    "responses": {200: response(ref("Job"), "The job as it is.")},
}
CANCEL: dict[str, Any] = {
    "operation_id": "cancelJob",
    "summary": "Cancel a job",
    "description": "A queued job ends at once; a running one is stopped by its worker. Canceling a canceled job changes nothing.",
    "tags": ["jobs"],
    "parameters": [JOB],
    "request": None,
    "responses": {200: response(ref("Job"), "The job is canceled."), 202: response(ref("Job"), "The job is being stopped.")},
}
EVENTS: dict[str, Any] = {
    "operation_id": "streamJob",
    "summary": "Follow a job",
    "description": "Server-sent events: the whole job at every change, named after its status. Resumes after `Last-Event-ID`; ends with the job.",
    "tags": ["jobs"],
    "parameters": [JOB, parameter("Last-Event-ID", {"type": "string"}, "The last event seen.", where=OpenApiParameter.HEADER)],
    "responses": {(200, "text/event-stream"): response(_EVENT, "Events.")},
}
OUTPUT: dict[str, Any] = {
    "operation_id": "getOutput",
    "summary": "Download an output",
    "description": "Answers ranges and validators (`Range`, `If-None-Match`).",
    "tags": ["jobs"],
    "parameters": [
        JOB,
        path("index", {"type": "integer", "minimum": 0, "maximum": 999}, "Which output."),
        path("name", {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[^/]+$"}, "Its name, as in the job's outputs."),
        parameter("Range", {"type": "string", "examples": ["bytes=0-1023"]}, "Part of the file.", where=OpenApiParameter.HEADER),
    ],
    "responses": {(200, "*/*"): response(_BYTES, "The bytes."), (206, "*/*"): response(_BYTES, "The part asked for."), 304: response(None, "Not changed.")},
}
SEND_FILE: dict[str, Any] = {
    "operation_id": "createFile",
    "summary": "Send a file",
    "description": (
        "A form with one part called file, or the bytes themselves with their name in `X-File-Name`. The same bytes again answer 200 with the same id."
    ),
    "tags": ["files"],
    "parameters": [parameter("X-File-Name", {"type": "string"}, "Name of a file sent as a plain body; percent-encoded.", where=OpenApiParameter.HEADER)],
    "request": {
        "multipart/form-data": record({"file": {**_BYTES, "minLength": 1}}, closed=True),
        "application/octet-stream": {**_BYTES, "minLength": 1},
    },
    "responses": {201: response(ref("File"), "Kept."), 200: response(ref("File"), "Was there already.")},
}
GET_FILE: dict[str, Any] = {
    "operation_id": "getFile",
    "summary": "Look at a file",
    "tags": ["files"],
    "parameters": [path("file", UUID, "The file's id.")],
    "responses": {200: response(ref("File"), "What is known of it.")},
}
