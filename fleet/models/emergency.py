"""What people do when capacity runs short: each an action with an end, and reversible."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from builds.models import Version, Workflow
from controlplane.kernel.ids import uuid7
from fleet.models.capacity import Pool


class EmergencyAction(models.Model):
    """One emergency measure. In effect from `starts_at` until it expires or is ended; ending it undoes it."""

    class Kind(models.TextChoices):
        RAISE = "raise", "Raise capacity"
        FAST = "fast", "Fast mode"
        PAUSE_CLASS = "pause_class", "Pause a class"
        SHED = "shed", "Shed load"
        CLEAR = "clear", "Clear a queue"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(max_length=12, choices=Kind)
    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="emergencies")
    workflow = models.ForeignKey(
        Workflow, null=True, blank=True, on_delete=models.CASCADE, related_name="+", help_text="Of fast mode; of the others: only this one's jobs"
    )
    base = models.PositiveIntegerField(null=True, blank=True, help_text="Of raise: workers kept meanwhile")
    max = models.PositiveIntegerField(null=True, blank=True, help_text="Of raise: the maximum meanwhile")
    version = models.ForeignKey(Version, null=True, blank=True, on_delete=models.PROTECT, related_name="+", help_text="Of fast mode: the cheaper version")
    overrides = models.JSONField(default=dict, blank=True, help_text="Of fast mode: inputs set meanwhile, e.g. {steps: 12}")
    overflow_s = models.FloatField(null=True, blank=True, help_text="Of fast mode and shed: only while a new job would wait longer than this")
    priority = models.PositiveSmallIntegerField(null=True, blank=True, help_text="Of pause_class and shed: this class and those behind it")
    terms = models.JSONField(
        default=dict,
        blank=True,
        db_default={},
        help_text="What else was said: force (of fast mode: overrides that stand over a customer's own value), waiting, customer, older_than_s, done, resubmit",
    )
    once = models.CharField(max_length=64, blank=True, default="", db_default="", help_text="Said twice with the same, it is done once")
    cleared = models.PositiveIntegerField(default=0, help_text="Of clear: jobs taken out of the queue")
    starts_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, help_text="Ended by hand before it expired")
    ended_by = models.CharField(max_length=120, blank=True)
    actor = models.CharField(max_length=120)
    reason = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-starts_at"]
        constraints = [
            models.CheckConstraint(condition=Q(expires_at__gt=F("starts_at")), name="emergency_expires"),
            models.CheckConstraint(condition=Q(base__isnull=True) | Q(max__isnull=True) | Q(max__gte=F("base")), name="emergency_bounds_possible"),
            models.CheckConstraint(condition=Q(kind__in=["raise", "fast", "pause_class", "shed", "clear"]), name="emergency_kind_known"),
            models.UniqueConstraint(fields=["once"], condition=~Q(once=""), name="emergency_once"),
        ]
        indexes = [models.Index(fields=["pool", "expires_at"], condition=Q(ended_at__isnull=True), name="emergency_open")]
