"""Demand and capacity minute by minute, what is announced, and what is forecast."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from billing.models import Customer
from builds.models import Workflow
from controlplane.kernel.ids import uuid7
from fleet.models.capacity import Pool


class DemandMinute(models.Model):
    """Jobs that arrived in one minute. Recomputed, never incremented (`fleet.demand`)."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="+", db_index=False)
    workflow = models.ForeignKey(Workflow, on_delete=models.CASCADE, related_name="+", db_index=False)
    minute = models.DateTimeField()
    arrivals = models.PositiveIntegerField(default=0)
    work_s = models.FloatField(default=0, help_text="Seconds of one worker those arrivals need, by what such jobs took lately")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pool", "minute", "workflow"], name="demand_once")]


class CapacityMinute(models.Model):
    """What a pool had at the end of a minute: its last tick in it."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="+", db_index=False)
    minute = models.DateTimeField()
    ready = models.PositiveIntegerField(default=0)
    busy = models.PositiveIntegerField(default=0)
    coming = models.PositiveIntegerField(default=0)
    draining = models.PositiveIntegerField(default=0)
    faulted = models.PositiveIntegerField(default=0)
    queue = models.PositiveIntegerField(default=0)
    oldest_wait_s = models.FloatField(default=0)
    wanted = models.PositiveIntegerField(default=0, help_text="What the policy asked for, before any bound")
    floor = models.PositiveIntegerField(default=0)
    shadows = models.JSONField(default=dict, help_text="What the policies in shadow asked for: {name: workers}")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pool", "minute"], name="capacity_minute_once")]


class PlannedDemand(models.Model):
    """Demand somebody told us of: a batch of N jobs, or a calendar event that multiplies demand or asks for workers."""

    class Kind(models.TextChoices):
        BATCH = "batch"
        EVENT = "event"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(max_length=8, choices=Kind)
    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="planned")
    workflow = models.ForeignKey(Workflow, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    customer = models.ForeignKey(Customer, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=120, blank=True)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(help_text="A batch arrives evenly from starts_at until then; equal times: all at once")
    jobs = models.PositiveIntegerField(default=0)
    work_s = models.FloatField(default=0, help_text="Seconds of one worker the whole batch needs")
    factor = models.FloatField(default=1.0, help_text="Of an event: demand is so many times the usual")
    workers = models.PositiveIntegerField(default=0, help_text="Of an event: at least so many workers")
    created_by = models.CharField(max_length=120)
    created_at = models.DateTimeField()
    canceled_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["starts_at"]
        constraints = [
            models.CheckConstraint(condition=Q(ends_at__gte=F("starts_at")), name="planned_ends_after_start"),
            models.CheckConstraint(condition=Q(factor__gt=0) & Q(work_s__gte=0), name="planned_amounts_possible"),
        ]
        indexes = [models.Index(fields=["pool", "ends_at"], condition=Q(canceled_at__isnull=True), name="planned_by_pool")]


class Forecast(models.Model):
    """One forecast of a pool's demand (or of one workflow's on it), with how wrong such forecasts have been."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="forecasts")
    workflow = models.ForeignKey(Workflow, null=True, on_delete=models.CASCADE, related_name="+")
    made_at = models.DateTimeField()
    starts_at = models.DateTimeField(help_text="Of the first step forecast")
    step_s = models.PositiveIntegerField()
    method = models.CharField(max_length=60)
    history_days = models.FloatField()
    points = models.JSONField(help_text="Per step, in workers' worth of work: [[p50, p10, p90, target_share quantile], …]")
    arrivals = models.JSONField(default=list, help_text="Per step, jobs: [[p50, p10, p90], …]")
    backtest = models.JSONField(help_text="wape, mase, coverage, pinball, folds, by_method: [{method, wape, mase, coverage}]")
    plan = models.JSONField(default=dict, help_text="Of a pool: floors per step, and what they were drawn from (`fleet.forecasts`)")
    usable = models.BooleanField(help_text="Good enough to move the floor")
    why = models.CharField(max_length=300, blank=True, help_text="Why it is not usable, or what limits it")

    class Meta:
        ordering = ["-made_at"]
        indexes = [models.Index(fields=["pool", "workflow", "-made_at"], name="forecast_latest")]
