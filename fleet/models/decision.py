"""How a pool is sized: its policy's revisions, and what was decided, tick by tick."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from fleet.models.capacity import Pool


class PolicyRevision(models.Model):
    """A pool's sizing as it was saved, with what the replay said before. Never changed afterwards."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    terms = models.JSONField(help_text="policy, knobs, base, max, target_s and every other setting of the pool that sizing reads")
    replay = models.JSONField(default=dict, blank=True, help_text="What it would have done on the pool's own history, shown before saving")
    reason = models.CharField(max_length=300, blank=True)
    author = models.CharField(max_length=120)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["pool", "-number"]
        constraints = [models.UniqueConstraint(fields=["pool", "number"], name="policy_revision_once")]

    def __str__(self) -> str:
        return f"{self.pool.slug} policy r{self.number}"


class ScalingDecision(models.Model):
    """What the scaler saw, wanted, was bounded by, did, and why. Kept so that it can be replayed."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="decisions")
    at = models.DateTimeField()
    last_seen_at = models.DateTimeField(help_text="Equal decisions in a row are one row; this is the last of them")
    repeats = models.PositiveIntegerField(default=1)
    policy = models.CharField(max_length=40)
    inputs = models.JSONField()
    action = models.CharField(max_length=8, help_text="up, down, hold, halted, image")
    wanted = models.IntegerField(help_text="Change wanted in workers")
    applied = models.IntegerField(help_text="Change made in workers")
    bound = models.CharField(max_length=200, blank=True)
    reason = models.CharField(max_length=300)
    outcome = models.CharField(max_length=300, blank=True)
    shadow = models.JSONField(default=dict, blank=True, help_text="What other policies wanted: {name: {wanted, reason}}")
    alternatives = models.JSONField(
        default=list, blank=True, help_text="What else could have been done and its cost: [{label, workers, cost_per_hour_microusd, wait_s}]"
    )
    predicted_wait_s = models.FloatField(null=True, help_text="p-share wait expected after it; empty when nothing is measured")
    cost_change_microusd = models.BigIntegerField(default=0, help_text="Per hour; negative is money saved")
    epoch = models.BigIntegerField()

    class Meta:
        ordering = ["-at", "-id"]
        constraints = [models.CheckConstraint(condition=Q(action__in=["up", "down", "hold", "halted", "image"]), name="decision_action_known")]
        indexes = [models.Index(fields=["pool", "-at"], name="decision_by_pool")]

    def __str__(self) -> str:
        return f"{self.pool.slug} {self.action} {self.reason}"
