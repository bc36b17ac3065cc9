"""Jobs over HTTP: submit, list, look, cancel, and the state as an event for clients that met no stream process."""

from __future__ import annotations

import re
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from billing import quotas
from billing.endpoints import Endpoint, moment, parameter_invalid
from controlplane.kernel import paging
from controlplane.kernel.errors import Invalid, Unavailable, WorkflowError
from controlplane.kernel.ids import parse_uuid
from fleet import admission, downloads, estimates, events, held_up, presenting, queue, releases, tenancy
from fleet.api import accepting, bodies, described, waiting
from fleet.models import Job, Output
from fleet.queries_jobs import floor_id

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_SLUG = re.compile(r"[A-Za-z0-9_-]{1,60}")


class JobEndpoint(Endpoint):
    """Answers with a job."""

    def shown(self, job: Job, *, status: int = 200, headers: dict[str, str] | None = None, looked_at: bool = False) -> HttpResponse:
        """`job` as JSON, with its place in the queue and its outputs; when it is `looked_at`, also why it waits."""
        return self.answer(self.shape(job, looked_at=looked_at), status=status, headers=headers)

    def shape(self, job: Job, *, looked_at: bool = False) -> dict[str, Any]:
        outputs = published(job) if job.status == Job.Status.SUCCEEDED else []
        waiting = held_up.of(job, now=self.now) if looked_at else None
        return presenting.job(job, outputs=outputs, place=estimates.place(job, now=self.now), waiting=waiting, base_url=self.base_url())

    def after(self, job: Job, *, wait_s: int, headers: dict[str, str]) -> HttpResponseBase:
        """The job as it stands after waiting, or the output itself where that is wanted."""
        headers |= {"Location": f"{self.base_url()}/v1/jobs/{job.id}", "Vary": "Accept, Prefer"}
        if wait_s and not job.is_terminal:
            headers["Preference-Applied"] = f"wait={wait_s}"
            if waiting.until_over(job.id, seconds=wait_s):
                job = tenancy.job_of(self.customer.id, job.id)
        if not job.is_terminal:
            return self.shown(job, status=202, headers=headers)
        accept = self.request.headers.get("Accept", "")
        if not accepting.wants_bytes(accept):
            return self.shown(job, headers=headers)
        if job.status != Job.Status.SUCCEEDED:
            raise _unfinished(job)
        item = accepting.choose(accept, published(job))
        if item is None:
            return self.shown(job, headers=headers)
        response = downloads.respond(self.request._request, item)
        for name, value in {**headers, "X-Comfyplane-Job": str(job.id), "Content-Location": presenting.output(item, base_url=self.base_url())["url"]}.items():
            response[name] = value
        return response


class WorkflowJobs(JobEndpoint):
    """Run a workflow."""

    scopes = {"POST": "jobs:write"}

    @extend_schema(**described.SUBMIT)
    def post(self, request: Request, slug: str) -> HttpResponseBase:
        self.query()
        sent = bodies.read(request._request)
        workflow, version = releases.offered(slug)
        if sent.version is not None:
            version = releases.pinned(workflow, sent.version, live=version)
        if sent.files:
            self.require_room()
        sent.complete(version, customer=self.customer, now=self.now)
        key = idempotency_key(request.headers.get("Idempotency-Key"))
        admitted = admission.submit(
            customer=self.customer,
            api_key=self.key,
            workflow=workflow,
            version=version,
            pinned=sent.version is not None,
            inputs=sent.inputs,
            priority=sent.priority,
            deadline_s=sent.deadline_s,
            metadata=sent.metadata,
            webhook_url=sent.webhook_url,
            idempotency_key=key,
            body_sha256=sent.digest(workflow.slug) if key else "",
            request_id=getattr(request._request, "request_id", ""),
            now=self.now,
        )
        self.standing = admitted.standing or quotas.count_request(customer_id=self.customer.id, plan=self.customer.plan_revision, now=self.now)
        headers = {"Idempotency-Replayed": "true"} if admitted.replayed else {}
        wait_s = waiting.asked(request.headers.get("Prefer", ""))
        return self.after(admitted.job, wait_s=wait_s, headers=headers)


class Jobs(JobEndpoint):
    """The caller's jobs."""

    params = ("limit", "cursor", "status", "workflow", "created_after", "created_before")

    @extend_schema(**described.LIST_JOBS)
    def get(self, request: Request) -> HttpResponse:
        asked = self.query()
        size = paging.size(asked.get("limit"))
        jobs = tenancy.jobs_of(self.customer.id).order_by("-id")
        if (status := asked.get("status")) is not None:
            if status not in Job.Status.values:
                raise parameter_invalid("status", "is not a status of jobs", f"Use one of {', '.join(Job.Status.values)}.")
            jobs = jobs.filter(status=status)
        if (slug := asked.get("workflow")) is not None:
            if not _SLUG.fullmatch(slug):
                raise parameter_invalid("workflow", "is not the name of a workflow", "Use the id that GET /v1/workflows lists.")
            jobs = jobs.filter(workflow__slug=slug)
        if (after := moment(asked, "created_after")) is not None:
            jobs = jobs.filter(id__gte=floor_id(after))
        if (before := moment(asked, "created_before")) is not None:
            jobs = jobs.filter(id__lt=floor_id(before))
        if (cursor := asked.get("cursor")) is not None:
            last = parse_uuid(paging.decode(cursor))
            if last is None:
                raise paging.bad_cursor()
            jobs = jobs.filter(id__lt=last)
        found = list(jobs[: size + 1])
        page = found[:size]
        outputs: dict[Any, list[Output]] = {}
        for item in Output.objects.filter(job__in=[j.id for j in page if j.status == Job.Status.SUCCEEDED], published=True).order_by("index"):
            outputs.setdefault(item.job_id, []).append(item)
        base = self.base_url()
        known: dict[int, held_up.Standing] = {}
        return self.answer(
            {
                "results": [
                    presenting.job(
                        job,
                        outputs=outputs.get(job.id, []),
                        place=estimates.place(job, now=self.now),
                        waiting=held_up.of(job, now=self.now, known=known),
                        base_url=base,
                    )
                    for job in page
                ],
                "next": self.next_link(asked, str(page[-1].id)) if len(found) > size else None,
            }
        )


class OneJob(JobEndpoint):
    """One of the caller's jobs."""

    @extend_schema(**described.GET_JOB)
    def get(self, request: Request, job: str) -> HttpResponse:
        self.query()
        found = tenancy.job_of(self.customer.id, job)
        wait_s = waiting.asked(request.headers.get("Prefer", ""))
        headers: dict[str, str] = {}
        if wait_s and not found.is_terminal:
            headers["Preference-Applied"] = f"wait={wait_s}"
            waiting.until_over(found.id, seconds=wait_s)
            found = tenancy.job_of(self.customer.id, found.id)
        return self.shown(found, headers=headers, looked_at=True)


class Cancel(JobEndpoint):
    """Stop a job."""

    scopes = {"POST": "jobs:write"}

    @extend_schema(**described.CANCEL)
    def post(self, request: Request, job: str) -> HttpResponse:
        self.query()
        found = tenancy.job_of(self.customer.id, job)
        queue.cancel(job_id=found.id, now=self.now)
        found = tenancy.job_of(self.customer.id, found.id)
        return self.shown(found, status=200 if found.is_terminal else 202)


class Events(JobEndpoint):
    """One event and `retry`: clients that reconnect see every change, though not at once. The stream process answers this address otherwise."""

    @extend_schema(**described.EVENTS)
    def get(self, request: Request, job: str) -> HttpResponse:
        self.query()
        found = tenancy.job_of(self.customer.id, job)
        last = request.headers.get("Last-Event-ID", "")
        seen = int(last) if last.isascii() and last.isdecimal() and len(last) < 10 else 0
        news = found.revision > seen or found.is_terminal
        text = "retry: 2000\n\n" + (events.render(found, self.base_url()) if news else ": no change\n\n")
        return HttpResponse(text, content_type="text/event-stream", headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"})


def published(job: Job) -> list[Output]:
    """The outputs its customer may see."""
    return list(Output.objects.filter(job=job, published=True).order_by("index"))


def idempotency_key(header: str | None) -> str:
    """The checked key of an Idempotency-Key header; empty without one."""
    if header is None:
        return ""
    if not _KEY.fullmatch(header):
        raise Invalid("idempotency_key_invalid", "An Idempotency-Key is 1 to 255 printable ASCII characters.", "Send a UUID, for instance.")
    return header


def _unfinished(job: Job) -> WorkflowError:
    """A failed job as an error, for a caller who wanted bytes only."""
    said = presenting.error(job) or {"code": f"job_{job.status}", "message": f"The job is {job.status}.", "suggestion": "Send it again."}
    ours = job.failure_class in (Job.FailureClass.PLATFORM, Job.FailureClass.CAPACITY, Job.FailureClass.EXTERNAL)
    kind = Unavailable if ours else Invalid
    return kind(
        said["code"],
        said["message"],
        said["suggestion"],
        alternative_endpoint=said.get("alternative_endpoint"),
        details={"job": str(job.id), "status": job.status},
        headers={"Retry-After": "5"} if ours else {},
    )
