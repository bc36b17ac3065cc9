"""Choose a workflow for a customer's request: the catalogue's facts as that customer meets them, and the job with its reasons.

What a workflow costs is what this customer's plan pays for a measured run, never what it costs us.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction

from billing import pricing
from billing.models import Customer, PlanRevision
from builds import catalogue
from builds import inputs as input_rules
from builds.models import Channel, Version, Workflow
from controlplane.kernel import money
from controlplane.kernel.errors import Invalid, WorkflowError
from fleet import choosing, estimates, input_files, queries_measured, releases
from fleet.admission import Admitted
from fleet.choosing import Facts
from fleet.models import Choice, Job

MAX_TASK = 60
MOST = 1_000
_TASK = re.compile(r"[\s_]+")
# A file is judged by its kind, not by its megabytes, so each is looked at once however many workflows there are.
_FILE_HEAD = re.compile(r"data:[a-zA-Z0-9.+-]{1,40}/[a-zA-Z0-9.+-]{1,80}(?:;[a-zA-Z0-9_.+=-]{1,80})*;base64,")


def task_named(given: Any) -> str:
    """The task of a request, as categories are written: text to image is text-to-image."""
    if given is None:
        raise Invalid("missing_field", "task is missing.", "Send the task, for instance text-to-image.", details={"field": "task"})
    if not isinstance(given, str) or not 1 <= len(given.strip()) <= MAX_TASK:
        raise Invalid("wrong_type", f"task must be text of 1 to {MAX_TASK} characters.", "Send the category of a workflow.", details={"field": "task"})
    return _TASK.sub("-", given.strip().lower())


def choose(*, task: str, wanted: Mapping[str, Any], inputs: Any, prefer: str, plan: PlanRevision, now: datetime) -> tuple[choosing.Choice, Workflow, Version]:
    """The choice with its workflow and version. Raises Invalid when the task is not offered or nothing meets the requirements."""
    offered = _offered(task)
    figures = queries_measured.measured([workflow.id for workflow, _ in offered], now=now)
    given = _light(inputs)
    facts = [_facts(workflow, version, figures[workflow.id], inputs=given, plan=plan) for workflow, version in offered]
    made = choosing.choose(facts, wanted, prefer=prefer)
    if made.chosen is None:
        raise _no_match(task, made)
    workflow, version = next(pair for pair in offered if pair[0].slug == made.chosen.workflow)
    return made, workflow, version


def admit(submit: Callable[[], Admitted], *, choice: dict[str, Any]) -> Admitted:
    """Admit the job and keep the reasons with it, both or neither."""
    with transaction.atomic():
        admitted = submit()
        if not admitted.replayed:
            Choice.objects.create(job=admitted.job, document=choice)
    return admitted


def of_job(job: Job) -> dict[str, Any] | None:
    """The reasons kept with a job."""
    return Choice.objects.filter(job=job).values_list("document", flat=True).first()


def quote(version: Version, *, plan: PlanRevision, now: datetime) -> int:
    """The most a job of `version` would cost on `plan`, in micro-dollars: what would be reserved."""
    return pricing.quote(
        pricing.Terms(plan.price_per_job_microusd, plan.price_per_gpu_second_microusd), expected_s=estimates.of_version(version.id, now=now).p95_s
    )


def price_usd(measured: queries_measured.Measured, plan: PlanRevision) -> float | None:
    """What `plan` pays for a measured run; None when none was measured."""
    if measured.busy_s_per_job is None:
        return None
    terms = pricing.Terms(plan.price_per_job_microusd, plan.price_per_gpu_second_microusd)
    microusd = money.amount(1, terms.per_job) + money.amount(Decimal(str(round(measured.busy_s_per_job, 6))), terms.per_gpu_second)
    return microusd / money.MICRO


def check(version: Version, inputs: Any, *, customer: Customer) -> dict[str, Any]:
    """The inputs a job would run with; raises as POST jobs would, and keeps nothing."""
    values = input_rules.validate(version, inputs)
    sent = {name: value for name, value in values.items() if not (isinstance(value, str) and value.startswith("data:"))}
    input_files.check_owned(version, sent, customer_id=customer.id)
    return values


def kept(version: Version, inputs: Any, *, customer: Customer, now: datetime) -> dict[str, Any]:
    """The checked inputs with files inside them stored: done before the transaction of `admit`, which must not wait for bytes."""
    return input_files.keep_inline(version, input_rules.validate(version, inputs), customer=customer, now=now)


def _offered(task: str) -> list[tuple[Workflow, Version]]:
    rows = Channel.objects.filter(name=Channel.Name.PRODUCTION, workflow__archived_at__isnull=True).select_related("workflow").order_by("workflow__slug")
    every = list(rows[:MOST])
    found = [row for row in every if _TASK.sub("-", row.workflow.category.strip().lower()) == task]
    if not found:
        tasks = sorted({row.workflow.category for row in every})
        raise Invalid(
            "task_unknown",
            f"No workflow does {task!r}.",
            f"Tasks are: {', '.join(tasks[:20])}." if tasks else "Nothing is offered yet.",
            alternative_endpoint="/v1/workflows",
            details={"field": "task", "tasks": tasks[:100]},
        )
    return [(row.workflow, releases.version(row.version_id)) for row in found]


def _facts(workflow: Workflow, version: Version, measured: queries_measured.Measured, *, inputs: Any, plan: PlanRevision) -> Facts:
    shown = {**catalogue.capabilities_of(version.graph, input_rules.exposed_of(version)), **(workflow.capabilities or {})}
    facts = Facts(
        workflow=workflow.slug,
        version=version.number,
        task=workflow.category,
        seconds=measured.p95_s,
        cost_usd=price_usd(measured, plan),
        success=measured.success_rate,
        quality=workflow.quality,
        capabilities=frozenset(name for name, has in shown.items() if has is True),
        source=measured.source or "",
        runs=measured.smoke_runs if measured.source == "smoke_runs" else measured.runs,
    )
    try:
        input_rules.validate(version, inputs)
    except WorkflowError:
        return replace(facts, accepts=False)
    return facts


def _light(inputs: Any) -> Any:
    """`inputs` with the bytes of files inside them left out."""
    if not isinstance(inputs, Mapping):
        return inputs
    return {
        name: f"{head[0]}AAAA" if isinstance(value, str) and len(value) > 1_000 and (head := _FILE_HEAD.match(value[:400])) else value
        for name, value in inputs.items()
    }


def _no_match(task: str, made: choosing.Choice) -> Invalid:
    alternatives = [{**one.body(), "endpoint": f"/v1/workflows/{one.facts.workflow}/jobs"} for one in made.rejected[:10]]
    nearest = made.rejected[0]
    return Invalid(
        "no_workflow_matches",
        f"None of the {len(made.rejected):,} workflows for {task} meets every requirement. Nearest is {nearest.facts.workflow}: {nearest.lacks[0].message}",
        f"Loosen {', '.join(lack.requirement for lack in nearest.lacks)}, or call {nearest.facts.workflow} itself.",
        alternative_endpoint=alternatives[0]["endpoint"],
        details={"field": "requirements", "task": task, "alternatives": alternatives},
    )
