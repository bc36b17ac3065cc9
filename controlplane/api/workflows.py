"""The catalogue customers read: what each workflow takes, and what it was measured to do."""

from __future__ import annotations

import re
from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from billing.endpoints import Endpoint
from billing.models import PlanRevision
from builds import catalogue
from builds.models import Channel, Version, Workflow
from controlplane.api import described, schema
from controlplane.kernel import paging
from fleet import choices, queries_measured, releases

_SLUG = re.compile(r"[A-Za-z0-9_-]{1,60}")


class Workflows(Endpoint):
    """Everything that is offered."""

    params = ("limit", "cursor")

    @extend_schema(**described.LIST_WORKFLOWS)
    def get(self, request: Request) -> HttpResponse:
        asked = self.query()
        size = paging.size(asked.get("limit"))
        rows = Channel.objects.filter(name=Channel.Name.PRODUCTION, workflow__archived_at__isnull=True).select_related("workflow").order_by("workflow__slug")
        if (cursor := asked.get("cursor")) is not None:
            after = paging.decode(cursor)
            if not _SLUG.fullmatch(after):
                raise paging.bad_cursor()
            rows = rows.filter(workflow__slug__gt=after)
        found = list(rows.prefetch_related("workflow__channels")[: size + 1])
        page = [(channel.workflow, releases.version(channel.version_id)) for channel in found[:size]]
        figures = queries_measured.measured([workflow.id for workflow, _ in page], now=self.now)
        plan = self.customer.plan_revision
        return self.answer(
            {
                "results": [entry(workflow, version, figures[workflow.id], plan=plan) for workflow, version in page],
                "next": self.next_link(asked, page[-1][0].slug) if len(found) > size else None,
            }
        )


class OneWorkflow(Endpoint):
    """One workflow."""

    @extend_schema(**described.GET_WORKFLOW)
    def get(self, request: Request, slug: str) -> HttpResponse:
        self.query()
        workflow, version = releases.offered(slug)
        figures = queries_measured.measured([workflow.id], now=self.now)
        return self.answer(entry(workflow, version, figures[workflow.id], plan=self.customer.plan_revision))


class WorkflowSchema(Endpoint):
    """What its inputs may be."""

    @extend_schema(**described.GET_SCHEMA)
    def get(self, request: Request, slug: str) -> HttpResponse:
        self.query()
        _, version = releases.offered(slug)
        return self.answer(version.schema)


class WorkflowOpenApi(Endpoint):
    """An OpenAPI document of this workflow alone, with its inputs typed."""

    @extend_schema(**described.GET_WORKFLOW_OPENAPI)
    def get(self, request: Request, slug: str) -> HttpResponse:
        self.query()
        workflow, version = releases.offered(slug)
        return self.answer(schema.of_workflow(workflow, version, server=self.base_url()))


def entry(workflow: Workflow, version: Version, measured: queries_measured.Measured, *, plan: PlanRevision) -> dict[str, Any]:
    """The catalogue entry with what was measured; money is what this plan pays for a measured run, never what it costs us."""
    job = choices.price_usd(measured, plan)
    figures = {
        "jobs": measured.runs,
        "smoke_runs": measured.smoke_runs,
        "source": measured.source,
        "p50_s": measured.p50_s,
        "success_rate": measured.success_rate,
        "cost_per_job_usd": job,
        "cost_per_image_usd": job / measured.images_per_job if job is not None and measured.images_per_job else None,
    }
    return catalogue.with_measurements(catalogue.entry(workflow, version), figures)
