"""The smart endpoint: say what is to be done and within which bounds; the workflow is chosen by measured facts, with the reasons."""

from __future__ import annotations

import json
from typing import Any

from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from billing import quotas
from builds.models import Version, Workflow
from controlplane.kernel import jsonbody, money
from controlplane.kernel.errors import Invalid, UnsupportedMedia
from fleet import admission, choices, choosing
from fleet.api import bodies, generate_described, waiting
from fleet.api.bodies import Submission
from fleet.api.jobs import JobEndpoint, idempotency_key
from fleet.models import Job

_OWN = ("task", "requirements", "prefer", "dry_run")
_JOBS = tuple(name for name in bodies.FIELDS if name != "version")


class Generate(JobEndpoint):
    """Run the workflow that fits."""

    scopes = {"POST": "jobs:write"}
    choice: dict[str, Any] | None = None

    @extend_schema(**generate_described.GENERATE)
    def post(self, request: Request) -> HttpResponseBase:
        self.query()
        body = _body(request)
        sent = bodies.from_fields({name: value for name, value in body.items() if name in _JOBS})
        task = choices.task_named(body.get("task"))
        wanted = choosing.requirements(body.get("requirements", {}))
        prefer, dry = _prefer(body.get("prefer", "quality")), _flag(body.get("dry_run", False))
        key = idempotency_key(request.headers.get("Idempotency-Key"))
        digest = sent.digest(json.dumps(["generate", task, wanted, prefer], sort_keys=True)) if key else ""
        before = admission.earlier(self.customer.id, key, digest) if key and not dry else None
        if before is not None:
            return self._answered(before, replayed=True)
        made, workflow, version = choices.choose(task=task, wanted=wanted, inputs=sent.inputs, prefer=prefer, plan=self.customer.plan_revision, now=self.now)
        if dry:
            return self._planned(made.body(), workflow, version, sent)
        try:
            sent.inputs = choices.kept(version, sent.inputs, customer=self.customer, now=self.now)
            admitted = choices.admit(lambda: self._submitted(workflow, version, sent, key=key, digest=digest), choice=made.body())
        except Invalid as refusal:
            refusal.details = {**refusal.details, "workflow": workflow.slug}
            raise
        self.standing = admitted.standing
        return self._answered(admitted.job, replayed=admitted.replayed)

    def _submitted(self, workflow: Workflow, version: Version, sent: Submission, *, key: str, digest: str) -> admission.Admitted:
        return admission.submit(
            customer=self.customer,
            api_key=self.key,
            workflow=workflow,
            version=version,
            inputs=sent.inputs,
            priority=sent.priority,
            deadline_s=sent.deadline_s,
            metadata=sent.metadata,
            webhook_url=sent.webhook_url,
            idempotency_key=key,
            body_sha256=digest,
            request_id=getattr(self.request._request, "request_id", ""),
            now=self.now,
        )

    def _planned(self, choice: dict[str, Any], workflow: Workflow, version: Version, sent: Submission) -> HttpResponseBase:
        """What would run and the most it would cost; nothing is kept."""
        try:
            values = choices.check(version, sent.inputs, customer=self.customer)
        except Invalid as refusal:
            refusal.details = {**refusal.details, "workflow": workflow.slug}
            raise
        plan = self.customer.plan_revision
        self.standing = quotas.count_request(customer_id=self.customer.id, plan=plan, now=self.now)
        quote = money.to_usd(choices.quote(version, plan=plan, now=self.now))
        return self.answer({"dry_run": True, "choice": choice, "quote_usd": quote, "inputs": values})

    def _answered(self, job: Job, *, replayed: bool) -> HttpResponseBase:
        self.choice = choices.of_job(job)
        if self.standing is None:
            self.standing = quotas.count_request(customer_id=self.customer.id, plan=self.customer.plan_revision, now=self.now)
        wait_s = waiting.asked(self.request.headers.get("Prefer", ""))
        return self.after(job, wait_s=wait_s, headers={"Idempotency-Replayed": "true"} if replayed else {})

    def shape(self, job: Job, *, looked_at: bool = False) -> dict[str, Any]:
        return {**super().shape(job, looked_at=looked_at), "choice": self.choice}


def _body(request: Request) -> dict[str, Any]:
    kind = request._request.content_type or ""
    if kind != "application/json" and (kind or bodies.length(request._request)):
        raise UnsupportedMedia(
            "unsupported_media_type",
            f"A request to generate cannot be read from {kind[:60] or 'a body without a content type'}.",
            "Send 'Content-Type: application/json'; send files to POST /v1/files first and give their ids.",
        )
    body = jsonbody.load(bodies.raw_body(request._request))
    jsonbody.only(body, (*_OWN, *_JOBS))
    return body


def _prefer(given: Any) -> str:
    if given not in choosing.PREFERENCES:
        raise Invalid("wrong_type", f"prefer must be one of {', '.join(choosing.PREFERENCES)}.", "Leave it out for quality.", details={"field": "prefer"})
    return str(given)


def _flag(given: Any) -> bool:
    if not isinstance(given, bool):
        raise Invalid("wrong_type", "dry_run must be true or false.", "Send true to see the choice without a job.", details={"field": "dry_run"})
    return given
