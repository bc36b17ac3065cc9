"""Minute rollups: what pages, loops and /metrics read in place of raw jobs."""

from __future__ import annotations

from django.db import models

from billing.models import Customer
from builds.models import Version
from fleet.models.capacity import Pool


class MinuteRollup(models.Model):
    """Jobs that ended in one minute, by version, customer and pool (`fleet.rollups`). Recomputed, never incremented."""

    minute = models.DateTimeField()
    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="+", db_index=False)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+", db_index=False)
    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="+", db_index=False)
    succeeded = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    failed_ours = models.PositiveIntegerField(default=0, help_text="Of the failed and expired: class platform or capacity")
    canceled = models.PositiveIntegerField(default=0)
    expired = models.PositiveIntegerField(default=0)
    wait = models.JSONField(default=dict, help_text="kernel.stats histogram of seconds from queued to started")
    run = models.JSONField(default=dict, help_text="kernel.stats histogram of seconds from started to finished")
    total = models.JSONField(default=dict, help_text="kernel.stats histogram of seconds from created to finished")
    busy_s = models.FloatField(default=0)
    cost_microusd = models.BigIntegerField(default=0)
    price_microusd = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["minute", "version", "customer", "pool"], name="rollup_once")]
        indexes = [models.Index(fields=["version", "minute"], name="rollup_by_version")]
