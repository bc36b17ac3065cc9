"""Jobs, their attempts and outputs. Transitions happen only in `fleet.queue` and `fleet.admission`."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from billing.models import ApiKey, Customer, PlanRevision
from builds.models import Version, Workflow
from controlplane.kernel.ids import uuid7
from controlplane.kernel.models import Blob
from fleet.models.capacity import Pool, Worker


class Job(models.Model):
    """One customer request."""

    class Status(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELED = "canceled"
        EXPIRED = "expired"

    SMOKE = "smoke"
    """The source of smoke jobs: ours, so that no customer's figure counts them."""
    TERMINAL = (Status.SUCCEEDED, Status.FAILED, Status.CANCELED, Status.EXPIRED)

    class FailureClass(models.TextChoices):
        CUSTOMER_INPUT = "customer_input"
        CUSTOMER_CANCEL = "customer_cancel"
        WORKFLOW = "workflow"
        QUALITY = "quality"
        PLATFORM = "platform"
        CAPACITY = "capacity"
        EXTERNAL = "external"

    class Priority(models.IntegerChoices):
        """Lower is served first."""

        HIGH = 0, "high"
        NORMAL = 1, "normal"
        LOW = 2, "low"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="jobs", db_index=False)
    api_key = models.ForeignKey(ApiKey, null=True, on_delete=models.PROTECT, related_name="+", db_index=False)
    plan_revision = models.ForeignKey(PlanRevision, on_delete=models.PROTECT, related_name="+", db_index=False, help_text="Prices agreed at admission")
    workflow = models.ForeignKey(Workflow, on_delete=models.PROTECT, related_name="jobs", db_index=False)
    version = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="jobs", db_index=False)
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="jobs", db_index=False)
    source = models.CharField(max_length=12, default="api", help_text="api, console, demo, cache, smoke")
    request_id = models.CharField(max_length=64, blank=True)

    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED)
    revision = models.PositiveIntegerField(default=1, help_text="Raised by every visible change; the event id of the stream")
    priority = models.PositiveSmallIntegerField(choices=Priority, default=Priority.NORMAL)
    fair_tag = models.BigIntegerField(help_text="Start tag of fair queueing; 0 puts a requeued job in front")
    warm_key = models.CharField(max_length=64, blank=True)

    inputs = models.JSONField(default=dict, help_text="As validated, defaults and seed filled in")
    metadata = models.JSONField(default=dict)
    fast = models.JSONField(null=True, blank=True, help_text="Of a job that fast mode changed: {action, reason, asked_version, asked_version_id, asked_inputs}")
    webhook_url = models.CharField(max_length=500, blank=True)
    idempotency_key = models.CharField(max_length=255, blank=True)
    body_sha256 = models.CharField(max_length=64, blank=True)
    result_key = models.CharField(max_length=64, blank=True, help_text="Hash of version and inputs, for the result cache")
    copied_from = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="copies", help_text="The job a cached result came from")

    created_at = models.DateTimeField()
    queued_at = models.DateTimeField(help_text="Last time it entered the queue")
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    deadline_at = models.DateTimeField(null=True)
    cancel_asked_at = models.DateTimeField(null=True)

    attempt = models.PositiveSmallIntegerField(default=0, help_text="Number of the last attempt")
    max_attempts = models.PositiveSmallIntegerField(default=3)
    worker = models.ForeignKey(Worker, null=True, on_delete=models.PROTECT, related_name="jobs", db_index=False)
    lease_until = models.DateTimeField(null=True)
    progress = models.FloatField(default=0)
    node = models.CharField(max_length=120, blank=True, help_text="Node now running")

    failure_class = models.CharField(max_length=20, choices=FailureClass, blank=True)
    error = models.JSONField(null=True, help_text="code, message, suggestion, alternative_endpoint, details")
    quote_microusd = models.BigIntegerField(default=0, help_text="Reserved; the price never passes it")
    price_microusd = models.BigIntegerField(null=True, help_text="Final price")
    cost_microusd = models.BigIntegerField(default=0, help_text="What its attempts cost us")
    billable_s = models.FloatField(default=0)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(status__in=["queued", "running", "succeeded", "failed", "canceled", "expired"]), name="job_status_known"),
            models.CheckConstraint(
                condition=Q(status="running", lease_until__isnull=False, worker__isnull=False) | ~Q(status="running") & Q(lease_until__isnull=True),
                name="job_lease_iff_running",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["queued", "running"], finished_at__isnull=True)
                | Q(status__in=["succeeded", "failed", "canceled", "expired"], finished_at__isnull=False, price_microusd__isnull=False),
                name="job_finished_iff_terminal",
            ),
            models.CheckConstraint(condition=Q(price_microusd__isnull=True) | Q(price_microusd__lte=models.F("quote_microusd")), name="job_price_within_quote"),
            models.CheckConstraint(condition=Q(attempt__lte=models.F("max_attempts")), name="job_attempts_bounded"),
            models.CheckConstraint(condition=Q(progress__gte=0) & Q(progress__lte=1), name="job_progress_is_a_share"),
            models.UniqueConstraint(fields=["customer", "idempotency_key"], condition=~Q(idempotency_key=""), name="job_once_per_idempotency_key"),
        ]
        indexes = [
            # queue.claim: the head of one pool's queue
            models.Index(fields=["pool", "priority", "fair_tag", "id"], condition=Q(status="queued"), name="job_claim_order"),
            models.Index(fields=["lease_until"], condition=Q(status="running"), name="job_lease_expiry"),
            models.Index(fields=["worker"], condition=Q(status="running"), name="job_running_by_worker"),
            models.Index(fields=["deadline_at"], condition=Q(status="queued", deadline_at__isnull=False), name="job_queued_deadline"),
            models.Index(fields=["customer", "-id"], name="job_by_customer"),
            models.Index(fields=["workflow", "-id"], name="job_by_workflow"),
            models.Index(fields=["finished_at"], name="job_by_end"),
            models.Index(fields=["pool", "finished_at"], condition=Q(finished_at__isnull=False, worker__isnull=False), name="job_last_runs"),
            models.Index(fields=["status", "-id"], name="job_by_status"),
            models.Index(fields=["result_key"], condition=Q(status="succeeded") & ~Q(result_key=""), name="job_result_cache"),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in self.TERMINAL


class Attempt(models.Model):
    """One try of a job on one worker. Every report names it; a stale one changes nothing."""

    class State(models.TextChoices):
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELED = "canceled"
        LOST = "lost"

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(Job, on_delete=models.PROTECT, related_name="attempts", db_index=False)
    number = models.PositiveSmallIntegerField()
    worker = models.ForeignKey(Worker, on_delete=models.PROTECT, related_name="attempts")
    state = models.CharField(max_length=10, choices=State, default=State.RUNNING)
    claimed_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    failure_class = models.CharField(max_length=20, blank=True)
    error = models.JSONField(null=True)
    timings = models.JSONField(default=dict)
    nodes = models.JSONField(default=list, help_text="Seconds per node: [{node, class_type, start_s, run_s, cached}]")
    busy_s = models.FloatField(default=0)
    cost_microusd = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["job", "number"]
        constraints = [
            models.UniqueConstraint(fields=["job", "number"], name="attempt_number_once"),
            models.UniqueConstraint(fields=["job"], condition=Q(state="running"), name="one_running_attempt_per_job"),
            models.CheckConstraint(condition=Q(state__in=["running", "succeeded", "failed", "canceled", "lost"]), name="attempt_state_known"),
            models.CheckConstraint(
                condition=Q(state="running", ended_at__isnull=True) | ~Q(state="running") & Q(ended_at__isnull=False), name="attempt_ended_iff_over"
            ),
        ]
        indexes = [models.Index(fields=["ended_at"], condition=Q(ended_at__isnull=False), name="attempt_by_end")]

    def __str__(self) -> str:
        return f"{self.job_id}#{self.number}"


class Output(models.Model):
    """One file a job produced, with what was measured on it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    job = models.ForeignKey(Job, on_delete=models.PROTECT, related_name="outputs", db_index=False)
    attempt = models.PositiveSmallIntegerField()
    index = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=10)
    node = models.CharField(max_length=120, blank=True)
    media_type = models.CharField(max_length=100)
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="+")
    size_bytes = models.BigIntegerField()
    width = models.PositiveIntegerField(null=True)
    height = models.PositiveIntegerField(null=True)
    duration_s = models.FloatField(null=True)
    measurements = models.JSONField(default=dict)
    published = models.BooleanField(default=False, help_text="Its attempt succeeded; only then a customer sees it")
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["job", "attempt", "index"]
        constraints = [
            models.UniqueConstraint(fields=["job", "attempt", "index"], name="output_once_per_index"),
            models.CheckConstraint(condition=Q(kind__in=["image", "video", "audio", "text", "file"]), name="output_kind_known"),
        ]

    def __str__(self) -> str:
        return self.name


class FairShare(models.Model):
    """Where a customer stands in a pool's queue: the finish tag of its last admitted job."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+")
    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="+")
    finish_tag = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["customer", "pool"], name="fair_share_once")]


class Choice(models.Model):
    """Why a job's workflow was chosen for its customer, kept so that a replayed request gives the same answer."""

    job = models.OneToOneField(Job, primary_key=True, on_delete=models.CASCADE, related_name="choice")
    document = models.JSONField(help_text="fleet.choosing.Choice.body")

    def __str__(self) -> str:
        return str(self.job_id)
