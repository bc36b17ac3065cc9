"""Pools, the kinds of machine they may order, and the workers in them."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from controlplane.kernel.ids import uuid7


class Pool(models.Model):
    """Equal workers behind one queue, kept between `base` and `max`."""

    class Provider(models.TextChoices):
        LOCAL = "local", "Local processes"
        DOCKER = "docker", "Docker containers"
        KUBERNETES = "kubernetes", "Kubernetes pods"
        EXTERNAL = "external", "Started by somebody else"

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=120)
    provider = models.CharField(max_length=12, choices=Provider, default=Provider.LOCAL)
    gpu = models.CharField(max_length=60, default="cpu")
    vram_bytes = models.BigIntegerField(default=0)
    base = models.PositiveIntegerField(default=1)
    max = models.PositiveIntegerField(default=2)
    price_per_hour_microusd = models.BigIntegerField(default=0, help_text="What one worker costs us an hour")
    policy = models.CharField(max_length=20, default="wait-target", help_text="Name of the sizing policy (fleet.sizing)")
    knobs = models.JSONField(default=dict, blank=True, help_text="What differs from the policy's defaults")
    shadows = models.JSONField(default=list, blank=True, help_text="Policies asked beside it, without effect: [{policy, knobs}]")
    memory = models.JSONField(default=dict, blank=True, editable=False, help_text="What its policies remember between ticks, by policy")
    target_s = models.FloatField(default=60.0, help_text="Wait target: this share of the jobs starts within so many seconds")
    target_share = models.FloatField(default=0.99)
    forecast_floor = models.BooleanField(default=True, help_text="Whether a good forecast may raise and, down to forecast_base, lower the floor")
    forecast_base = models.PositiveIntegerField(null=True, blank=True, help_text="How far a good forecast may lower the base; empty: not at all")
    budget_per_hour_microusd = models.BigIntegerField(null=True, blank=True, help_text="Workers are ordered up to this cost an hour; the base always")
    budget_per_day_microusd = models.BigIntegerField(null=True, blank=True)
    on_demand_share = models.FloatField(default=1.0, help_text="Of the workers above the base, how many are never spot")
    image = models.CharField(max_length=300, blank=True, help_text="What containers and pods of this pool run, by digest where there is one")
    previous_image = models.CharField(max_length=300, blank=True, help_text="What they ran before; tried when the new one cannot start")
    settings = models.JSONField(default=dict, blank=True, help_text="What the provider needs: network, memory, node selector and so on")
    start_s = models.FloatField(null=True, blank=True, help_text="Startup budget; empty: WORKER_START_S")
    paused_until = models.DateTimeField(null=True, blank=True, help_text="Sizing changes nothing until then")
    paused_reason = models.CharField(max_length=200, blank=True)
    token_epoch = models.PositiveIntegerField(default=1, help_text="Raised to rotate the pool token")
    virtual_time = models.BigIntegerField(default=0, help_text="Fair tag of the last claimed job")
    halted_at = models.DateTimeField(null=True, blank=True, help_text="Ordering stopped after a crash loop")
    halted_reason = models.CharField(max_length=300, blank=True)
    provider_heard_at = models.DateTimeField(null=True, blank=True, help_text="When its provider last listed its workers, or said that one changed")
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["slug"]
        constraints = [
            models.CheckConstraint(condition=Q(max__gte=F("base")), name="pool_max_at_least_base"),
            models.CheckConstraint(condition=Q(price_per_hour_microusd__gte=0), name="pool_price_not_negative"),
            models.CheckConstraint(condition=Q(target_s__gt=0) & Q(target_share__gt=0) & Q(target_share__lt=1), name="pool_target_possible"),
            models.CheckConstraint(condition=Q(forecast_base__isnull=True) | Q(forecast_base__lte=F("base")), name="pool_forecast_base_within_base"),
            models.CheckConstraint(condition=Q(on_demand_share__gte=0) & Q(on_demand_share__lte=1), name="pool_on_demand_is_a_share"),
        ]

    def __str__(self) -> str:
        return self.slug


class PoolOffer(models.Model):
    """A kind of machine a pool may order, in the order they are tried. A pool without offers orders its own `gpu` at its own price."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="offers")
    rank = models.PositiveSmallIntegerField(help_text="Lower is tried first")
    gpu = models.CharField(max_length=60)
    market = models.CharField(max_length=10, choices=[("on_demand", "on demand"), ("spot", "spot")], default="on_demand")
    price_per_hour_microusd = models.BigIntegerField()
    most = models.PositiveIntegerField(null=True, blank=True, help_text="At most so many workers of it")
    placement = models.JSONField(default=dict, blank=True, help_text="What the provider needs: zone, node selector, tolerations, devices")
    interruptions = models.PositiveIntegerField(default=0, help_text="Workers of it the provider took away")
    worker_hours = models.FloatField(default=0, help_text="Hours its workers ran: with interruptions, the risk of the next hour")
    unavailable_until = models.DateTimeField(null=True, blank=True, help_text="It had no capacity: not tried again before")
    unavailable_reason = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["pool", "rank"]
        constraints = [
            models.UniqueConstraint(fields=["pool", "rank"], name="offer_rank_once"),
            models.CheckConstraint(condition=Q(price_per_hour_microusd__gte=0), name="offer_price_not_negative"),
            models.CheckConstraint(condition=Q(market__in=["on_demand", "spot"]), name="offer_market_known"),
        ]

    def __str__(self) -> str:
        return f"{self.pool.slug} {self.gpu} {self.market}"


class Worker(models.Model):
    """One agent with its ComfyUI."""

    class State(models.TextChoices):
        ORDERED = "ordered"  # asked of the provider, not yet registered
        STARTING = "starting"  # registered: its ComfyUI comes up
        LOADING = "loading"  # its warm-up runs
        IDLE = "idle"
        BUSY = "busy"
        DRAINING = "draining"
        FAULTED = "faulted"  # taken out by the two-way test or by hand: takes no jobs, kept for study, then replaced
        STOPPED = "stopped"
        LOST = "lost"

    LIVE = (State.ORDERED, State.STARTING, State.LOADING, State.IDLE, State.BUSY, State.DRAINING, State.FAULTED)
    COMING = (State.ORDERED, State.STARTING, State.LOADING)
    READY = (State.IDLE, State.BUSY)
    GONE = (State.STOPPED, State.LOST)

    class Market(models.TextChoices):
        ON_DEMAND = "on_demand", "on demand"
        SPOT = "spot"

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
    cordoned_at = models.DateTimeField(null=True, help_text="Takes no new jobs; stays until it is uncordoned or drained")
    faulted_at = models.DateTimeField(null=True)
    preempt_at = models.DateTimeField(null=True, help_text="The provider takes it away then")
    replaces = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="replaced_by", db_index=False)
    offer = models.ForeignKey("PoolOffer", null=True, on_delete=models.SET_NULL, related_name="workers", db_index=False)
    market = models.CharField(max_length=10, choices=Market, default=Market.ON_DEMAND, db_default="on_demand")
    gpu = models.CharField(max_length=60, blank=True, db_default="")
    zone = models.CharField(max_length=60, blank=True, db_default="")
    image = models.CharField(max_length=300, blank=True, db_default="")
    price_per_hour_microusd = models.BigIntegerField(default=0, help_text="Agreed when it was ordered", db_default=0)
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
            models.CheckConstraint(
                condition=Q(state__in=["ordered", "starting", "loading", "idle", "busy", "draining", "faulted", "stopped", "lost"]), name="worker_state_known"
            ),
            models.CheckConstraint(condition=Q(state__in=["stopped", "lost"]) | Q(stopped_at__isnull=True), name="worker_stopped_has_time"),
            models.CheckConstraint(condition=Q(price_per_hour_microusd__gte=0), name="worker_price_not_negative"),
        ]
        indexes = [
            models.Index(fields=["pool", "state"], name="worker_by_pool_and_state"),
            models.Index(fields=["replaces"], condition=Q(replaces__isnull=False), name="worker_by_replaced"),
        ]

    def __str__(self) -> str:
        return self.name
