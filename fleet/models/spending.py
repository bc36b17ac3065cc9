"""Where the workers' time and money went, hour by hour, and what sizing saved, day by day."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from fleet.models.capacity import Pool, Worker


def _adds_up(unit: str) -> Q:
    parts = F(f"starting_{unit}") + F(f"loading_{unit}") + F(f"busy_{unit}") + F(f"idle_{unit}") + F(f"draining_{unit}") + F(f"faulted_{unit}")
    return Q(**{f"total_{unit}": parts})


class Buckets(models.Model):
    """Time and money by bucket."""

    BUCKETS = ("starting", "loading", "busy", "idle", "draining", "faulted")

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
        abstract = True


class WorkerHour(Buckets):
    """One worker in one hour: every millisecond in exactly one bucket, and their money adds up to what the provider bills. Recomputed."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="+", db_index=False)
    worker = models.ForeignKey(Worker, on_delete=models.CASCADE, related_name="hours", db_index=False)
    hour = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["worker", "hour"], name="worker_hour_once"),
            models.CheckConstraint(condition=_adds_up("ms"), name="worker_hour_ms_conserved"),
            models.CheckConstraint(condition=_adds_up("microusd"), name="worker_hour_money_conserved"),
            models.CheckConstraint(condition=Q(total_ms__gte=0) & Q(total_ms__lte=3_600_000), name="worker_hour_is_an_hour"),
        ]
        indexes = [
            models.Index(fields=["pool", "hour"], name="worker_hour_by_pool"),
            models.Index(fields=["hour"], name="worker_hour_by_hour"),  # the last one written, and the oldest to fold
        ]


class PoolDay(Buckets):
    """What a pool's workers took and cost on a day whose hours are folded away: the sum of their rows. Never recomputed."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="+", db_index=False)
    day = models.DateField(help_text="UTC")
    workers = models.PositiveIntegerField(help_text="Workers that had an hour of it")

    class Meta:
        ordering = ["-day"]
        constraints = [
            models.UniqueConstraint(fields=["pool", "day"], name="pool_day_once"),
            models.CheckConstraint(condition=_adds_up("ms"), name="pool_day_ms_conserved"),
            models.CheckConstraint(condition=_adds_up("microusd"), name="pool_day_money_conserved"),
        ]
        indexes = [models.Index(fields=["day"], name="pool_day_by_day")]


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
