"""Quotes for batches: what they would cost and when they would be done."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from billing.models import Customer
from builds.models import Version, Workflow
from controlplane.kernel.ids import uuid7
from fleet.models.capacity import Pool
from fleet.models.demand import PlannedDemand


class Quote(models.Model):
    """An answer to `POST /v1/quotes`, kept so that it can be read again and announced."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="quotes")
    workflow = models.ForeignKey(Workflow, on_delete=models.PROTECT, related_name="+")
    version = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="+")
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="+")
    jobs = models.PositiveIntegerField()
    starts_at = models.DateTimeField()
    price_microusd = models.BigIntegerField(help_text="Expected")
    most_microusd = models.BigIntegerField(help_text="Never more than this for these jobs")
    finish_p50_at = models.DateTimeField()
    finish_p90_at = models.DateTimeField()
    basis = models.JSONField(help_text="What it rests on: workers, queue ahead, seconds per job and how many runs that is from")
    planned = models.ForeignKey(PlannedDemand, null=True, on_delete=models.SET_NULL, related_name="+", help_text="The announcement made of it")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ["-created_at"]
        constraints = [models.CheckConstraint(condition=Q(price_microusd__gte=0) & Q(most_microusd__gte=0) & Q(jobs__gt=0), name="quote_amounts_possible")]
