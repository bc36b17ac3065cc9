"""Admin for pools; everything that happened is for reading. Jobs change through the queue, never through a form."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline

from controlplane.kernel.admin import ReadOnly
from fleet.models import (
    Attempt,
    CustomerFile,
    EmergencyAction,
    FairShare,
    Forecast,
    Job,
    MinuteRollup,
    Output,
    PlannedDemand,
    PolicyRevision,
    Pool,
    PoolDay,
    PoolOffer,
    Quote,
    SavingsDay,
    ScalingDecision,
    SmokeRun,
    Worker,
    WorkerHour,
)
from fleet.pools import TERMS


class OfferRows(TabularInline):
    model = PoolOffer
    extra = 0
    fields = (
        "rank",
        "gpu",
        "market",
        "price_per_hour_microusd",
        "most",
        "placement",
        "interruptions",
        "worker_hours",
        "unavailable_until",
        "unavailable_reason",
    )
    readonly_fields = ("interruptions", "worker_hours", "unavailable_until", "unavailable_reason")


@admin.register(Pool)
class PoolAdmin(ModelAdmin):
    """Sizing is changed on the pool's page, where every change is a revision with a replay; here it is for reading."""

    list_display = ("slug", "name", "provider", "gpu", "policy", "base", "max", "price_per_hour_microusd", "halted_at")
    search_fields = ("slug", "name")
    fields = ("name", "slug", "provider", "gpu", "vram_bytes", *TERMS, "token_epoch", "halted_at", "halted_reason", "created_at")
    readonly_fields = ("slug", "provider", *TERMS, "token_epoch", "halted_at", "halted_reason", "created_at")
    inlines = (OfferRows,)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object | None = None) -> bool:
        return False


class _Rows(TabularInline):
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: object | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object | None = None) -> bool:
        return False


class AttemptRows(_Rows):
    model = Attempt
    fields = ("number", "worker", "state", "claimed_at", "ended_at", "failure_class", "busy_s", "cost_microusd")


class OutputRows(_Rows):
    model = Output
    fields = ("attempt", "index", "name", "kind", "media_type", "size_bytes", "published")


@admin.register(Job)
class JobAdmin(ReadOnly):
    list_display = ("id", "workflow", "customer", "status", "failure_class", "attempt", "created_at", "finished_at", "price_microusd")
    list_filter = ("status", "failure_class", "priority", "source")
    search_fields = ("=id",)
    list_select_related = ("workflow", "customer")
    inlines = (AttemptRows, OutputRows)
    show_full_result_count = False


@admin.register(Attempt)
class AttemptAdmin(ReadOnly):
    list_display = ("job_id", "number", "worker", "state", "claimed_at", "ended_at", "failure_class", "busy_s")
    list_filter = ("state", "failure_class")
    search_fields = ("=job__id",)
    list_select_related = ("worker",)
    show_full_result_count = False


@admin.register(Output)
class OutputAdmin(ReadOnly):
    list_display = ("name", "job_id", "attempt", "index", "kind", "media_type", "size_bytes", "published")
    list_filter = ("kind", "published")
    search_fields = ("=job__id", "blob__sha256")
    show_full_result_count = False


@admin.register(Worker)
class WorkerAdmin(ReadOnly):
    list_display = ("name", "pool", "state", "state_since", "seen_at", "jobs_done", "stop_reason")
    list_filter = ("pool", "state", "stop_reason")
    search_fields = ("name", "instance")
    exclude = ("token_digest",)
    list_select_related = ("pool",)


@admin.register(ScalingDecision)
class ScalingDecisionAdmin(ReadOnly):
    list_display = ("at", "pool", "action", "wanted", "applied", "reason", "cost_change_microusd", "repeats")
    list_filter = ("pool", "action")
    list_select_related = ("pool",)


@admin.register(CustomerFile)
class CustomerFileAdmin(ReadOnly):
    list_display = ("name", "customer", "media_type", "created_at")
    search_fields = ("name", "customer__slug", "blob__sha256")
    list_select_related = ("customer",)


@admin.register(MinuteRollup)
class MinuteRollupAdmin(ReadOnly):
    list_display = ("minute", "version", "customer", "pool", "succeeded", "failed", "canceled", "expired")
    list_select_related = ("version__workflow", "customer", "pool")
    show_full_result_count = False


@admin.register(FairShare)
class FairShareAdmin(ReadOnly):
    list_display = ("customer", "pool", "finish_tag")
    list_select_related = ("customer", "pool")


@admin.register(SmokeRun)
class SmokeRunAdmin(ReadOnly):
    list_display = ("version", "trigger", "state", "requested_by", "requested_at", "finished_at")
    list_filter = ("state", "trigger")
    list_select_related = ("version__workflow",)


@admin.register(PolicyRevision)
class PolicyRevisionAdmin(ReadOnly):
    list_display = ("pool", "number", "author", "reason", "created_at")
    list_select_related = ("pool",)


@admin.register(PlannedDemand)
class PlannedDemandAdmin(ReadOnly):
    list_display = ("pool", "kind", "name", "starts_at", "ends_at", "jobs", "factor", "workers", "created_by", "canceled_at")
    list_select_related = ("pool",)


@admin.register(Forecast)
class ForecastAdmin(ReadOnly):
    list_display = ("pool", "workflow", "made_at", "method", "usable", "why")
    list_select_related = ("pool", "workflow")
    show_full_result_count = False


@admin.register(WorkerHour)
class WorkerHourAdmin(ReadOnly):
    list_display = ("pool", "worker", "hour", "total_ms", "busy_ms", "idle_ms", "total_microusd")
    list_select_related = ("pool", "worker")
    show_full_result_count = False


@admin.register(PoolDay)
class PoolDayAdmin(ReadOnly):
    list_display = ("pool", "day", "workers", "total_ms", "busy_ms", "idle_ms", "total_microusd")
    list_select_related = ("pool",)
    show_full_result_count = False


@admin.register(SavingsDay)
class SavingsDayAdmin(ReadOnly):
    list_display = ("pool", "day", "jobs", "actual_microusd", "replayed_microusd", "seed_microusd", "static_microusd")
    list_select_related = ("pool",)


@admin.register(EmergencyAction)
class EmergencyActionAdmin(ReadOnly):
    list_display = ("pool", "kind", "workflow", "actor", "starts_at", "expires_at", "ended_at")
    list_select_related = ("pool", "workflow")


@admin.register(Quote)
class QuoteAdmin(ReadOnly):
    list_display = ("id", "customer", "workflow", "jobs", "price_microusd", "finish_p50_at", "created_at", "expires_at")
    list_select_related = ("customer", "workflow")
    show_full_result_count = False
