"""Who pays: customers, their keys and plans, the account a reservation is taken from, and the ledger."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from controlplane.kernel.ids import uuid7


class Plan(models.Model):
    """A named offer. Its terms are revisions, which never change."""

    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=80)

    def __str__(self) -> str:
        return self.name


class PlanRevision(models.Model):
    """Prices and limits as sold. Immutable: a change is a new revision."""

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="revisions")
    number = models.PositiveIntegerField()
    price_per_job_microusd = models.DecimalField(max_digits=18, decimal_places=6)
    price_per_gpu_second_microusd = models.DecimalField(max_digits=18, decimal_places=6)
    monthly_limit_microusd = models.BigIntegerField(help_text="Hard limit a calendar month (UTC)")
    max_active_jobs = models.PositiveIntegerField(help_text="Queued and running together")
    requests_per_minute = models.PositiveIntegerField()
    weight = models.PositiveIntegerField(default=100, help_text="Share of the queue against other customers")
    max_priority = models.CharField(max_length=6, default="normal")
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["plan", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["plan", "number"], name="plan_revision_once"),
            models.CheckConstraint(
                condition=Q(price_per_job_microusd__gte=0) & Q(price_per_gpu_second_microusd__gte=0) & Q(monthly_limit_microusd__gte=0),
                name="plan_prices_not_negative",
            ),
            models.CheckConstraint(condition=Q(weight__gte=1), name="plan_weight_positive"),
            models.CheckConstraint(condition=Q(max_priority__in=["low", "normal", "high"]), name="plan_priority_known"),
        ]

    def __str__(self) -> str:
        return f"{self.plan.name} r{self.number}"


class Customer(models.Model):
    """Somebody with keys and an invoice."""

    class Status(models.TextChoices):
        ACTIVE = "active"
        SUSPENDED = "suspended"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=120)
    status = models.CharField(max_length=10, choices=Status, default=Status.ACTIVE)
    plan_revision = models.ForeignKey(PlanRevision, on_delete=models.PROTECT, related_name="customers")
    webhook_epoch = models.PositiveIntegerField(default=1, help_text="Raised to rotate the webhook signing secret")
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["slug"]
        constraints = [models.CheckConstraint(condition=Q(status__in=["active", "suspended"]), name="customer_status_known")]

    def __str__(self) -> str:
        return self.name


class Account(models.Model):
    """What a customer has spent and promised this month. Its row lock makes hard limits exact (`billing.quotas`)."""

    customer = models.OneToOneField(Customer, on_delete=models.PROTECT, primary_key=True, related_name="account")
    period = models.CharField(max_length=7, help_text="YYYY-MM, UTC")
    settled_microusd = models.BigIntegerField(default=0)
    reserved_microusd = models.BigIntegerField(default=0)
    active_jobs = models.IntegerField(default=0)
    minute = models.BigIntegerField(default=0, help_text="Unix minute the request counter belongs to")
    minute_requests = models.IntegerField(default=0)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(settled_microusd__gte=0), name="account_settled_not_negative"),
            models.CheckConstraint(condition=Q(reserved_microusd__gte=0), name="account_reserved_not_negative"),
            models.CheckConstraint(condition=Q(active_jobs__gte=0), name="account_active_not_negative"),
        ]

    def __str__(self) -> str:
        return str(self.customer_id)


class ApiKey(models.Model):
    """A customer's key: looked up by prefix, compared by SHA-256, shown once."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="keys")
    name = models.CharField(max_length=80)
    prefix = models.CharField(max_length=16, unique=True)
    digest = models.CharField(max_length=64)
    last4 = models.CharField(max_length=4)
    scopes = models.JSONField(default=list)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    rotated_from = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="rotations")

    class Meta:
        verbose_name = "API key"
        ordering = ["customer", "-created_at"]

    def __str__(self) -> str:
        return f"{self.name} …{self.last4}"


class UsageEntry(models.Model):
    """One line of the ledger: a job, a meter, a quantity, a price. Append-only; a correction is a reversal and a replacement."""

    class Meter(models.TextChoices):
        JOB = "job"
        GPU_SECOND = "gpu_second"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="usage", db_index=False)
    plan_revision = models.ForeignKey(PlanRevision, on_delete=models.PROTECT, db_index=False)
    job_id = models.UUIDField()
    meter = models.CharField(max_length=12, choices=Meter)
    quantity = models.DecimalField(max_digits=18, decimal_places=6)
    unit_price_microusd = models.DecimalField(max_digits=18, decimal_places=6)
    amount_microusd = models.BigIntegerField()
    workflow_slug = models.CharField(max_length=60)
    version_number = models.PositiveIntegerField()
    outcome = models.CharField(max_length=12)
    failure_class = models.CharField(max_length=20, blank=True)
    revision = models.PositiveSmallIntegerField(default=1, help_text="1, or higher for a replacement after a reversal")
    reverses = models.OneToOneField("self", null=True, blank=True, on_delete=models.PROTECT, related_name="reversed_by")
    period = models.CharField(max_length=7, help_text="Month it is booked in, YYYY-MM")
    occurred_at = models.DateTimeField(help_text="When the job ended")
    recorded_at = models.DateTimeField(help_text="When this line was written")
    booked_at = models.DateTimeField(help_text="When it counts on an invoice")

    class Meta:
        verbose_name_plural = "usage entries"
        constraints = [
            models.UniqueConstraint(fields=["job_id", "meter", "revision"], condition=Q(reverses__isnull=True), name="usage_once_per_job_and_meter"),
            models.CheckConstraint(condition=Q(meter__in=["job", "gpu_second"]), name="usage_meter_known"),
            models.CheckConstraint(condition=Q(reverses__isnull=False) | Q(quantity__gte=0) & Q(amount_microusd__gte=0), name="usage_only_reversals_negative"),
            models.CheckConstraint(condition=Q(recorded_at__gte=F("occurred_at")), name="usage_recorded_after_it_happened"),
        ]
        indexes = [models.Index(fields=["customer", "-booked_at"], name="usage_by_customer")]

    def __str__(self) -> str:
        return f"{self.job_id} {self.meter}"
