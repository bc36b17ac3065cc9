"""Pools, the workers in them, and why their number changed."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from controlplane.kernel.ids import uuid7


class Pool(models.Model):
    """Equal workers behind one queue, kept between `base` and `max`."""

    class Provider(models.TextChoices):
        LOCAL = "local", "Local processes"
        EXTERNAL = "external", "Started by somebody else"

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=120)
    provider = models.CharField(max_length=12, choices=Provider, default=Provider.LOCAL)
    gpu = models.CharField(max_length=60, default="cpu")
    vram_bytes = models.BigIntegerField(default=0)
    base = models.PositiveIntegerField(default=1)
    max = models.PositiveIntegerField(default=2)
    price_per_hour_microusd = models.BigIntegerField(default=0, help_text="What one worker costs us an hour")
    queue_per_worker = models.FloatField(default=0.8, help_text="Scale up when queue > this × workers")
    idle_s = models.PositiveIntegerField(default=300, help_text="Scale down after this long idle")
    token_epoch = models.PositiveIntegerField(default=1, help_text="Raised to rotate the pool token")
    virtual_time = models.BigIntegerField(default=0, help_text="Fair tag of the last claimed job")
    halted_at = models.DateTimeField(null=True, blank=True, help_text="Ordering stopped after a crash loop")
    halted_reason = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["slug"]
        constraints = [
            models.CheckConstraint(condition=Q(max__gte=F("base")), name="pool_max_at_least_base"),
            models.CheckConstraint(condition=Q(queue_per_worker__gt=0), name="pool_queue_factor_positive"),
        ]

    def __str__(self) -> str:
        return self.slug


class Worker(models.Model):
    """One agent with its ComfyUI."""

    class State(models.TextChoices):
        ORDERED = "ordered"  # asked of the provider, not yet registered
        STARTING = "starting"
        IDLE = "idle"
        BUSY = "busy"
        DRAINING = "draining"
        STOPPED = "stopped"
        LOST = "lost"

    LIVE = (State.ORDERED, State.STARTING, State.IDLE, State.BUSY, State.DRAINING)

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="workers")
    name = models.CharField(max_length=60)
    instance = models.CharField(max_length=120, unique=True, help_text="The provider's name for it")
    provider_ref = models.JSONField(default=dict, help_text="How the provider finds it again, e.g. pid and start time")
    state = models.CharField(max_length=10, choices=State, default=State.ORDERED)
    state_since = models.DateTimeField()
    token_digest = models.CharField(max_length=64, blank=True)
    fingerprint = models.JSONField(default=dict)
    usage = models.JSONField(default=dict, help_text="Last reported memory, disk and GPU figures")
    warm = models.JSONField(default=list)
    ordered_at = models.DateTimeField()
    registered_at = models.DateTimeField(null=True)
    ready_at = models.DateTimeField(null=True, help_text="First claim: its warm-up had passed")
    seen_at = models.DateTimeField(null=True)
    idle_since = models.DateTimeField(null=True)
    drain_asked_at = models.DateTimeField(null=True)
    stopped_at = models.DateTimeField(null=True)
    stop_reason = models.CharField(max_length=20, blank=True)
    stop_message = models.CharField(max_length=500, blank=True)
    warmup = models.JSONField(default=dict, blank=True, help_text="How its warm-up went: {state, done, of, seconds, message, log}")
    engine_log = models.JSONField(default=list, blank=True, help_text="Last lines of the ComfyUI that did not come up or crashed")
    jobs_done = models.PositiveIntegerField(default=0)
    busy_s = models.FloatField(default=0)

    class Meta:
        ordering = ["pool", "-ordered_at"]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=["ordered", "starting", "idle", "busy", "draining", "stopped", "lost"]), name="worker_state_known"),
            models.CheckConstraint(condition=Q(state__in=["stopped", "lost"]) | Q(stopped_at__isnull=True), name="worker_stopped_has_time"),
        ]
        indexes = [models.Index(fields=["pool", "state"], name="worker_by_pool_and_state")]

    def __str__(self) -> str:
        return self.name


class ScalingDecision(models.Model):
    """What the scaler saw, wanted, was bounded by, did, and why. Kept so that it can be replayed."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="decisions")
    at = models.DateTimeField()
    last_seen_at = models.DateTimeField(help_text="Equal decisions in a row are one row; this is the last of them")
    repeats = models.PositiveIntegerField(default=1)
    policy = models.CharField(max_length=40)
    inputs = models.JSONField()
    action = models.CharField(max_length=8, help_text="up, down, hold, halted")
    wanted = models.IntegerField(help_text="Change wanted in workers")
    applied = models.IntegerField(help_text="Change made in workers")
    bound = models.CharField(max_length=200, blank=True)
    reason = models.CharField(max_length=300)
    outcome = models.CharField(max_length=300, blank=True)
    cost_change_microusd = models.BigIntegerField(default=0, help_text="Per hour; negative is money saved")
    epoch = models.BigIntegerField()

    class Meta:
        ordering = ["-at", "-id"]
        constraints = [models.CheckConstraint(condition=Q(action__in=["up", "down", "hold", "halted"]), name="decision_action_known")]
        indexes = [models.Index(fields=["pool", "-at"], name="decision_by_pool")]

    def __str__(self) -> str:
        return f"{self.pool.slug} {self.action} {self.reason}"
