"""Admin for the ground floor: all of it is for reading; the outbox can tell something again."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.admin import ModelAdmin

from controlplane.kernel import audit, outbox
from controlplane.kernel.models import AuditEntry, AuditHead, Blob, LoopLease, OutboxEntry


class ReadOnly(ModelAdmin):
    """What happened is looked at, never edited."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly):
    list_display = ("seq", "at", "actor", "action", "object_type", "object_id", "reason")
    list_filter = ("action", "object_type")
    search_fields = ("actor", "=object_id", "=request_id")
    date_hierarchy = "at"


@admin.register(AuditHead)
class AuditHeadAdmin(ReadOnly):
    list_display = ("id", "seq", "hash")


@admin.register(LoopLease)
class LoopLeaseAdmin(ReadOnly):
    list_display = ("name", "holder", "epoch", "ticked_at", "tick_ms", "ticks", "failures_in_a_row", "note")
    search_fields = ("name",)


@admin.register(Blob)
class BlobAdmin(ReadOnly):
    list_display = ("sha256", "media_type", "size_bytes", "created_at")
    list_filter = ("media_type",)
    search_fields = ("sha256",)


@admin.register(OutboxEntry)
class OutboxEntryAdmin(ReadOnly):
    list_display = ("id", "topic", "key", "state", "attempts", "due_at", "ended_at", "last_error")
    list_filter = ("topic", "state")
    search_fields = ("=id", "key")
    actions = ("deliver_again",)

    def has_deliver_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("kernel.change_outboxentry")

    @admin.action(description="Deliver again", permissions=["deliver"])
    def deliver_again(self, request: HttpRequest, queryset: QuerySet[OutboxEntry]) -> None:
        now, told = timezone.now(), 0
        for entry in queryset:
            if outbox.again(entry_id=entry.id, now=now):
                told += 1
                audit.record(
                    actor=f"user:{request.user.get_username()}",
                    action="outbox.again",
                    object_type="outbox",
                    object_id=entry.id,
                    before={"state": entry.state, "attempts": entry.attempts},
                    origin="admin",
                    request_id=str(getattr(request, "request_id", "")),
                    now=now,
                )
        self.message_user(request, f"{told} due now; they go out with the next tick of their loop.", messages.SUCCESS)
