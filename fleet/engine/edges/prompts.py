"""Prompts, queue, history, jobs and interrupts over HTTP."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fleet.engine import jobs
from fleet.engine.edges.answers import Json, bare, engine_of, not_found, whole


async def show_prompt(request: Request) -> Response:
    return Json({"exec_info": engine_of(request).exec_info()})


async def post_prompt(request: Request) -> Response:
    verdict, item = engine_of(request).submit(await request.json())
    if item is None:
        return Json({"error": verdict.error, "node_errors": verdict.node_errors}, status_code=400)
    return Json({"prompt_id": item.prompt_id, "number": item.number, "node_errors": verdict.node_errors})


async def show_queue(request: Request) -> Response:
    queue = engine_of(request).queue
    return Json({"queue_running": [item.shown() for item in queue.running], "queue_pending": [item.shown() for item in queue.waiting]})


async def post_queue(request: Request) -> Response:
    body = await request.json()
    queue = engine_of(request).queue
    if body.get("clear"):
        queue.clear()
    for prompt_id in body.get("delete", ()):
        queue.delete(prompt_id)
    return bare()


async def interrupt(request: Request) -> Response:
    try:
        body = json.loads(await request.body())
    except ValueError:
        body = {}
    engine_of(request).interrupt(body.get("prompt_id"))
    return bare()


async def free(request: Request) -> Response:
    body = await request.json()
    if body.get("free_memory", False):
        engine_of(request).queue.ask_free()
    return bare()


async def show_history(request: Request) -> Response:
    query = request.query_params
    page = engine_of(request).history.page(max_items=whole(query, "max_items"), offset=whole(query, "offset", -1) or 0)
    return Json(page)


async def show_history_entry(request: Request) -> Response:
    # An id with a slash is reachable only when the slash is escaped.
    if b"/" in request.scope["raw_path"].rpartition(b"/history/")[2]:
        return not_found()
    return Json(engine_of(request).history.one(request.path_params["prompt_id"]))


async def post_history(request: Request) -> Response:
    body = await request.json()
    history = engine_of(request).history
    if body.get("clear"):
        history.clear()
    for prompt_id in body.get("delete", ()):
        history.delete(prompt_id)
    return bare()


async def list_jobs(request: Request) -> Response:
    query = request.query_params
    statuses = {part.strip().lower() for part in query["status"].split(",")} if query.get("status") else None
    unknown = sorted((statuses or set()) - set(jobs.STATUSES))
    if unknown:
        return _refused(f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(jobs.STATUSES)}")
    sort_by, sort_order = query.get("sort_by", "created_at"), query.get("sort_order", "desc")
    if sort_by not in ("created_at", "execution_duration"):
        return _refused("sort_by must be 'created_at' or 'execution_duration'")
    if sort_order not in ("asc", "desc"):
        return _refused("sort_order must be 'asc' or 'desc'")
    try:
        limit, offset = whole(query, "limit"), max(0, whole(query, "offset", 0) or 0)
    except ValueError:
        return _refused("limit and offset must be integers")
    if limit is not None and limit < 1:
        return _refused("limit must be a positive integer")
    listing = jobs.listing(
        _all_jobs(request),
        statuses=statuses,
        workflow_id=query.get("workflow_id"),
        sort_by=sort_by,
        descending=sort_order == "desc",
        offset=offset,
        limit=limit,
    )
    return Json(listing)


def _refused(message: str) -> Response:
    return Json({"error": message}, status_code=400)


def _all_jobs(request: Request) -> list[jobs.Job]:
    engine = engine_of(request)
    live = [jobs.queued(item, "in_progress") for item in engine.queue.running]
    live += [jobs.queued(item, "pending") for item in engine.queue.waiting]
    return live + [jobs.ended(prompt_id, entry) for prompt_id, entry in engine.history.page().items()]


async def show_job(request: Request) -> Response:
    engine, prompt_id = engine_of(request), request.path_params["prompt_id"]
    found: dict[str, Any] = engine.history.one(prompt_id)
    if found:
        return Json(jobs.ended(prompt_id, found[prompt_id], details=True))
    for status, items in (("in_progress", engine.queue.running), ("pending", engine.queue.waiting)):
        for item in items:
            if item.prompt_id == prompt_id:
                return Json(jobs.queued(item, status))
    return Json({"error": "Job not found"}, status_code=404)


ROUTES = [
    Route("/prompt", show_prompt, methods=["GET"]),
    Route("/prompt", post_prompt, methods=["POST"]),
    Route("/queue", show_queue, methods=["GET"]),
    Route("/queue", post_queue, methods=["POST"]),
    Route("/interrupt", interrupt, methods=["POST"]),
    Route("/free", free, methods=["POST"]),
    Route("/history", show_history, methods=["GET"]),
    Route("/history", post_history, methods=["POST"]),
    Route("/history/{prompt_id:path}", show_history_entry, methods=["GET"]),
]
JOB_ROUTES = [
    Route("/jobs", list_jobs, methods=["GET"]),
    Route("/jobs/{prompt_id:path}", show_job, methods=["GET"]),
]
