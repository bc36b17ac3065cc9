"""Where the workers' time and money went, hour by hour, and what sizing saved, day by day."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from fleet.models.capacity import Pool, Worker


class WorkerHour(models.Model):
    """One worker in one hour: every millisecond in exactly one bucket, and their money adds up to what the provider bills. Recomputed."""

    BUCKETS = ("starting", "loading", "busy", "idle", "draining", "faulted")

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="+", db_index=False)
    worker = models.ForeignKey(Worker, on_delete=models.CASCADE, related_name="hours", db_index=False)
    hour = models.DateTimeField()
    total_ms = models.BigIntegerField()
    starting_ms = models.BigIntegerField(default=0)
    loading_ms = models.BigIntegerField(default=0, help_text="Models on their way into memory: warm-up, and the loading part of jobs")
    busy_ms = models.BigIntegerField(default=0)
    idle_ms = models.BigIntegerField(default=0)
    draining_ms = models.BigIntegerField(default=0)
    faulted_ms = models.BigIntegerField(default=0)
    total_microusd = models.BigIntegerField()
    starting_microusd = models.BigIntegerField(default=0)
    loading_microusd = models.BigIntegerField(default=0)
    busy_microusd = models.BigIntegerField(default=0)
    idle_microusd = models.BigIntegerField(default=0)
    draining_microusd = models.BigIntegerField(default=0)
    faulted_microusd = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["worker", "hour"], name="worker_hour_once"),
            models.CheckConstraint(
                condition=Q(total_ms=F("starting_ms") + F("loading_ms") + F("busy_ms") + F("idle_ms") + F("draining_ms") + F("faulted_ms")),
                name="worker_hour_ms_conserved",
            ),
            models.CheckConstraint(
                condition=Q(
                    total_microusd=F("starting_microusd")
                    + F("loading_microusd")
                    + F("busy_microusd")
                    + F("idle_microusd")
                    + F("draining_microusd")
                    + F("faulted_microusd")
                ),
                name="worker_hour_money_conserved",
            ),
            models.CheckConstraint(condition=Q(total_ms__gte=0) & Q(total_ms__lte=3_600_000), name="worker_hour_is_an_hour"),
        ]
        indexes = [models.Index(fields=["pool", "hour"], name="worker_hour_by_pool")]


class SavingsDay(models.Model):
    """A pool's day: what sizing cost, and what the seed rule and a static peak would have cost on the same arrivals. Recomputed."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="savings", db_index=False)
    day = models.DateField(help_text="UTC")
    jobs = models.PositiveIntegerField(default=0)
    actual_microusd = models.BigIntegerField()
    actual_within = models.FloatField(null=True, help_text="Share of the waits within the target")
    replayed_microusd = models.BigIntegerField(help_text="Our policy on the same arrivals in the simulator: the fair side of the comparison")
    replayed_within = models.FloatField(null=True)
    seed_microusd = models.BigIntegerField(help_text="The seed's threshold rule on the same arrivals")
    seed_within = models.FloatField(null=True)
    static_microusd = models.BigIntegerField(help_text="The pool's maximum, all day")
    static_within = models.FloatField(null=True)
    made_at = models.DateTimeField()

    class Meta:
        ordering = ["-day"]
        constraints = [models.UniqueConstraint(fields=["pool", "day"], name="savings_day_once")]
