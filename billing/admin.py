"""Admin for rare edits of customers and plans. The ledger, accounts and plan revisions are for reading: history does not change here."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from billing.models import Account, ApiKey, Customer, Plan, PlanRevision, UsageEntry
from controlplane.kernel.admin import ReadOnly


@admin.register(Customer)
class CustomerAdmin(ModelAdmin):
    list_display = ("slug", "name", "status", "plan_revision", "created_at")
    list_filter = ("status", "plan_revision__plan")
    search_fields = ("slug", "name")
    readonly_fields = ("id", "created_at")
    list_select_related = ("plan_revision__plan",)

    def has_delete_permission(self, request: HttpRequest, obj: object | None = None) -> bool:
        return False


@admin.register(Plan)
class PlanAdmin(ModelAdmin):
    list_display = ("slug", "name")
    search_fields = ("slug", "name")


@admin.register(PlanRevision)
class PlanRevisionAdmin(ReadOnly):
    list_display = (
        "plan",
        "number",
        "price_per_job_microusd",
        "price_per_gpu_second_microusd",
        "monthly_limit_microusd",
        "max_active_jobs",
        "requests_per_minute",
    )
    list_filter = ("plan",)
    list_select_related = ("plan",)


@admin.register(Account)
class AccountAdmin(ReadOnly):
    list_display = ("customer", "period", "settled_microusd", "reserved_microusd", "active_jobs")
    search_fields = ("customer__slug",)
    list_select_related = ("customer",)


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnly):
    """Keys are issued, rotated and revoked in the console, where the secret is shown once."""

    list_display = ("name", "customer", "prefix", "last4", "created_at", "expires_at", "last_used_at", "revoked_at")
    list_filter = ("revoked_at",)
    search_fields = ("name", "last4", "customer__slug")
    exclude = ("digest",)
    list_select_related = ("customer",)


@admin.register(UsageEntry)
class UsageEntryAdmin(ReadOnly):
    list_display = ("booked_at", "customer", "workflow_slug", "meter", "quantity", "amount_microusd", "outcome", "reverses")
    list_filter = ("meter", "outcome", "period")
    search_fields = ("=job_id", "customer__slug", "workflow_slug")
    list_select_related = ("customer", "reverses")
    show_full_result_count = False
