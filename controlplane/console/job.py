"""One job: its page, its bytes, and what may be done about it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST, require_safe

from controlplane.console import job_shown, once, pages, roles
from controlplane.kernel import audit
from controlplane.kernel.envelope import request_id_of
from controlplane.kernel.errors import WorkflowError
from fleet import admission, downloads, queries_jobs, queue
from fleet.models import Job, Output


@roles.staff
@require_GET
def page(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Everything about one job, or what changes while it runs. Text of the customer stays hidden."""
    return _page(request, _job(job_id))


@roles.needs("operator", "Reading what a customer sent")
@require_POST
def inputs(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """The page with the inputs readable; who looked is written down."""
    job = _job(job_id)
    _record(request, job, "job.inputs_read", now=timezone.now())
    return _page(request, job, readable=True)


def _page(request: HttpRequest, job: Job, *, readable: bool = False) -> HttpResponse:
    now = timezone.now()
    short = str(job.id)[:18]
    return pages.page(
        request, "console/job.html", job_shown.context(request, job, now=now, readable=readable), title=f"Job {short}", active="jobs",
        crumbs=[("Jobs", reverse("ops:jobs")), (short, "")], fragment="" if job.is_terminal and not _polled(request) else "console/job_live.html", now=now,
    )  # fmt: skip


def _polled(request: HttpRequest) -> bool:
    return request.headers.get("HX-Request") == "true"


@roles.needs("operator", "Canceling a job")
@require_POST
def cancel(request: HttpRequest, job_id: UUID) -> HttpResponse:
    job = _job(job_id)
    now = timezone.now()
    try:
        with transaction.atomic():
            after = queue.cancel(job_id=job.id, now=now)
            _record(request, job, "job.cancel", before={"status": job.status}, after={"status": after.status}, now=now)
    except WorkflowError as error:
        messages.warning(request, f"{error.message} {error.suggestion}".strip())
    else:
        messages.success(
            request, "The job is canceled." if after.status == Job.Status.CANCELED else "The worker is asked to stop it. It ends between two nodes."
        )
    return redirect("ops:job", job_id=job.id)


@roles.needs("operator", "Retrying a job")
@require_POST
def retry(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """The same version and inputs, as a new job of the same customer."""
    job = _job(job_id)
    if not once.first_time(request):
        return redirect("ops:job", job_id=job.id)
    now = timezone.now()
    try:
        admitted = admission.submit(
            customer=job.customer,
            api_key=None,
            workflow=job.workflow,
            version=job.version,
            inputs=job.inputs,
            priority=job.get_priority_display(),
            metadata={"retry_of": str(job.id)},
            source="console",
            request_id=request_id_of(request),
            now=now,
        )
    except WorkflowError as error:
        messages.error(request, f"Not started. {error.message} {error.suggestion}".strip())
        return redirect("ops:job", job_id=job.id)
    _record(request, job, "job.retry", after={"job": str(admitted.job.id)}, now=now)
    messages.success(request, "Started as a new job.")
    return redirect("ops:job", job_id=admitted.job.id)


@roles.staff
@require_safe
def output(request: HttpRequest, job_id: UUID, output_id: UUID) -> HttpResponseBase:
    """The bytes of an output."""
    found = Output.objects.filter(id=output_id, job_id=job_id).first()
    if found is None:
        raise Http404
    try:
        return downloads.respond(request, found)
    except WorkflowError as error:
        return HttpResponse(f"{error.message} {error.suggestion}", status=error.status, content_type="text/plain; charset=utf-8")


def _job(job_id: UUID) -> Job:
    job = queries_jobs.detail(job_id)
    if job is None:
        raise Http404
    return job


def _record(request: HttpRequest, job: Job, action: str, *, now: datetime, **changes: Any) -> None:
    audit.record(
        actor=request.user.get_username(), action=action, object_type="job", object_id=job.id, origin=request.META.get("REMOTE_ADDR", ""),
        request_id=request_id_of(request), now=now, **changes,
    )  # fmt: skip
