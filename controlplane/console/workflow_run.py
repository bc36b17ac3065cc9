"""The API tab of a workflow: a form made from its schema that runs a real job, and the same call as code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from billing import customers as billing_customers
from billing import pricing
from billing.models import Customer
from builds import inputs as input_rules
from builds.models import Version, Workflow
from controlplane.console import job_shown, numbers, once, roles, run_form, snippets
from controlplane.console.graph_view import titles_of
from controlplane.console.workflows import answer, find
from controlplane.kernel.envelope import request_id_of
from controlplane.kernel.errors import WorkflowError
from controlplane.kernel.ids import parse_uuid
from fleet import admission, estimates, presenting, queries_jobs, queries_workflows
from fleet.models import Job


@roles.staff
@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest, slug: str) -> HttpResponse:
    """The form; sent, it admits a job and comes back with it."""
    now = timezone.now()
    workflow = find(slug)
    version = _version(request, workflow)
    customers = list(Customer.objects.filter(status="active").select_related("plan_revision").order_by("name")[:300])
    customer = _customer(request, customers)
    job = _job(request, workflow)
    if request.method != "POST":
        values = run_form.of_job(job, drawn=request.GET.getlist("drawn")) if job is not None and version is not None and job.version_id == version.id else None
        return _render(request, workflow, version, customers=customers, customer=customer, values=values, job=job, now=now)
    if not roles.may(request, "operator"):
        return roles.refuse(request, "operator", "Running a job")
    if version is None:
        messages.error(request, "This workflow has no version yet. Import one first.")
        return redirect("ops:workflow_api", slug=slug)
    if not once.first_time(request):
        messages.info(request, "That run was sent before; this form starts a new one.")
        return redirect("ops:workflow_api", slug=slug)
    inputs, shown, errors = run_form.read(request, version, customer=customer, now=now)
    general = "" if customer else "There is no customer to run it for. Create one first."
    if not errors and customer is not None:
        try:
            admitted = admission.submit(
                customer=customer, api_key=None, workflow=workflow, version=version, inputs=inputs, metadata={"run_by": request.user.get_username()},
                source="console", request_id=request_id_of(request), now=now,
            )  # fmt: skip
        except WorkflowError as error:
            name = str(error.details.get("field", ""))
            if any(item.name == name for item in input_rules.load_all(version.inputs)):
                errors[name] = run_form.sentence(error)
            else:
                general = run_form.sentence(error)
        else:
            query = {"job": str(admitted.job.id), "customer": customer.slug, "v": version.number}
            drawn = [item.name for item in input_rules.load_all(version.inputs) if item.randomize and item.name not in inputs]
            return redirect(f"{reverse('ops:workflow_api', args=[slug])}?{urlencode(query | ({'drawn': drawn} if drawn else {}), doseq=True)}#result")
    return _render(
        request, workflow, version, customers=customers, customer=customer, values=shown, errors=errors, general=general or "", job=None, now=now, status=422
    )


def _render(
    request: HttpRequest, workflow: Workflow, version: Version | None, *, customers: list[Customer], customer: Customer | None,
    values: Mapping[str, Any] | None, job: Job | None, now: datetime, errors: Mapping[str, str] | None = None, general: str = "", status: int = 200,
) -> HttpResponse:  # fmt: skip
    context: dict[str, Any] = {"version": version, "job": job}
    if job is not None:
        context |= job_shown.context(request, job, now=now, brief=True)
    if job is None or request.headers.get("HX-Request") != "true":
        context |= _form_context(
            request, workflow, version, customers=customers, customer=customer, values=values, errors=errors or {}, general=general, now=now
        )
    return answer(
        request, workflow, "console/workflow_api.html", context, tab="api", word="API", now=now, status=status,
        fragment="console/workflow_result.html" if job is not None and (not job.is_terminal or request.headers.get("HX-Request") == "true") else "",
    )  # fmt: skip


def _form_context(
    request: HttpRequest, workflow: Workflow, version: Version | None, *, customers: list[Customer], customer: Customer | None,
    values: Mapping[str, Any] | None, errors: Mapping[str, str], general: str, now: datetime,
) -> dict[str, Any]:  # fmt: skip
    if version is None:
        return {"fields": []}
    fields = run_form.fields(version, values=values, errors=errors, node_titles=titles_of(version.graph))
    run_form.name_files(fields, customer=customer)
    estimate = estimates.of_version(version.id, now=now)
    language = request.GET.get("lang", "curl")
    return {
        "fields": fields,
        "rows": _grouped(fields),
        "errors": errors,
        "general": general,
        "customer": customer,
        "house": customer is not None and customer.slug == billing_customers.HOUSE,
        "customers": [(c.slug, c.name) for c in customers],
        "version_choices": [v for v in workflow.versions.all() if v.runnable][:50],
        "estimate": _estimate(request, customer, estimate),
        "endpoint": f"/v1/workflows/{workflow.slug}/jobs",
        "snippets": [
            (key, word, text) for (key, word), text in zip(snippets.LANGUAGES, _snippets(workflow, version, values=None, fields=fields).values(), strict=True)
        ],
        "lang": language if language in dict(snippets.LANGUAGES) else "curl",
        "accepted": _example_accepted(workflow, version, fields),
        "refused": _example_refused(version),
        "schema_url": f"/v1/workflows/{workflow.slug}/schema",
    }


def _grouped(fields: list[run_form.Field]) -> list[tuple[str, list[run_form.Field]]]:
    """Fields in their order; neighbours that are small share a row."""
    groups: list[tuple[str, list[run_form.Field]]] = []
    for field in fields:
        kind = {"number": "nums", "colour": "nums", "select": "nums", "checkbox": "nums", "file": "files"}.get(field.widget, "one")
        if kind != "one" and groups and groups[-1][0] == kind:
            groups[-1][1].append(field)
        else:
            groups.append((kind, [field]))
    return groups


def _estimate(request: HttpRequest, customer: Customer | None, estimate: estimates.Estimate) -> str:
    time = f"About {numbers.dur(estimate.p50_s)}, p95 {numbers.dur(estimate.p95_s)}" if estimate.samples else "Not measured yet"
    if customer is None or not roles.sees_money(request):
        return time
    plan = customer.plan_revision
    most = pricing.quote(pricing.Terms(plan.price_per_job_microusd, plan.price_per_gpu_second_microusd), expected_s=estimate.p95_s)
    return f"{time}; at most {numbers.usd(most)}"


@roles.staff
@require_POST
def code(request: HttpRequest, slug: str) -> HttpResponse:
    """The snippets for what the form holds now, as JSON. Nothing is run or kept."""
    workflow = find(slug)
    version = _version(request, workflow)
    if version is None:
        raise Http404
    items = {item.name: item for item in input_rules.load_all(version.inputs)}
    text, files = {}, {}
    for name, item in items.items():
        given = request.POST.get(run_form.PREFIX + name, "").replace("\r\n", "\n")
        if item.is_file:
            if given.startswith("@"):
                files[name] = given[1:] or name
        elif item.type == "boolean" and item.enum is None:
            text[name] = "true" if given else "false"
        elif given:
            text[name] = given
    values = input_rules.from_text(version, text)
    made = snippets.all_of(base_url=settings.PUBLIC_URL, slug=workflow.slug, values=values, files=files)
    return JsonResponse({language: snippets.highlight(text) for language, text in made.items()})


def _snippets(workflow: Workflow, version: Version, *, values: Mapping[str, Any] | None, fields: list[run_form.Field]) -> dict[str, str]:
    text = {
        f.name: ("true" if f.value else "false") if f.widget == "checkbox" else str(f.value) for f in fields if f.widget != "file" and f.value not in ("", None)
    }
    files = {f.name: f.kept_name or _example_file(f) for f in fields if f.widget == "file" and (f.kept or f.required)}
    return snippets.all_of(base_url=settings.PUBLIC_URL, slug=workflow.slug, values=input_rules.from_text(version, text), files=files)


def _example_file(field: run_form.Field) -> str:
    return {"image": "input.png", "audio": "input.flac", "video": "input.mp4"}.get(field.kind, "input.bin")


def _example_accepted(workflow: Workflow, version: Version, fields: list[run_form.Field]) -> str:
    """A job as it is answered, by the code that answers."""
    at = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
    typed = {f.name: str(f.value) for f in fields if f.widget not in ("file", "checkbox") and f.value not in ("", None)}
    values = input_rules.from_text(version, typed)
    job = Job(id="019b8d6b-6fc0-7c3a-9b5e-2f4d8a6b1c0e", workflow=workflow, version=version, created_at=at, inputs=values, quote_microusd=20_000, metadata={})
    return "# 202 Accepted\n" + json.dumps(presenting.job(job, place=estimates.Place(position=4, eta_s=16.0)), indent=1, ensure_ascii=False)


def _example_refused(version: Version) -> str:
    """The refusal this version really gives: of a number past its range, or of a field it does not know."""
    exposed = input_rules.load_all(version.inputs)
    number = next((one for one in exposed if one.type in ("integer", "number") and one.enum is None and one.maximum is not None), None)
    wrong = {"promt": "a lighthouse"} if number is None else {number.name: int(number.maximum or 0) + 1}
    try:
        input_rules.validate(version, wrong)
    except WorkflowError as error:
        shown = error.envelope(request_id="019b8d6b6fc07c3a9b5e2f4d8a6b1c0e")
        shown["error"]["details"].pop("errors", None)
        return "# 422, nothing is billed\n" + json.dumps(shown, indent=1, ensure_ascii=False)
    return ""


def _version(request: HttpRequest, workflow: Workflow) -> Version | None:
    number = (request.POST.get("version") if request.method == "POST" else request.GET.get("v")) or ""
    return queries_workflows.version(workflow, int(number) if number.isdecimal() and len(number) < 7 else None)


def _customer(request: HttpRequest, customers: list[Customer]) -> Customer | None:
    slug = request.POST.get("customer") or request.GET.get("customer") or billing_customers.HOUSE
    return next((c for c in customers if c.slug == slug), customers[0] if customers else None)


def _job(request: HttpRequest, workflow: Workflow) -> Job | None:
    job_id = parse_uuid(request.GET.get("job", ""))
    job = queries_jobs.detail(job_id) if job_id else None
    return job if job is not None and job.workflow_id == workflow.id else None
