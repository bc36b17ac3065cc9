"""What the OpenAPI document says of the fleet's addresses. Shapes are JSON Schema 2020-12, written beside the code that makes them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter

from fleet.api.shapes import (
    CURSOR,
    JOB,
    LIMIT,
    PREFER,
    SHA256,
    SLUG,
    SLUG_SCHEMA,
    USD,
    UUID,
    WHEN,
    listed,
    nullable,
    once,
    parameter,
    path,
    record,
    ref,
    response,
)
from fleet.models import Job

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

SHAPES: dict[str, Any] = {
    "Job": _JOB,
    "Output": _OUTPUT,
    "JobError": record({**_ERROR_FIELDS, "class": {"type": "string", "description": "Whose doing: customer_input, workflow, platform, …"}}, closed=True),
    "WorkflowError": record({"error": record(_ERROR_FIELDS)}, closed=True),
    "File": _FILE,
    "JobRequest": _REQUEST,
    "JobPage": listed("Job"),
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
        once("job"),
    ],
    "request": {"application/json": ref("JobRequest"), "multipart/form-data": _FORM},
    "responses": {200: response(ref("Job"), "The job is over."), 202: response(ref("Job"), "The job waits or runs; its address is in Location.")},
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
