"""Admin pages: catalogue data may be edited; versions, channels and node libraries are read, because they change only through their own doors."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.admin import ModelAdmin

from builds.models import Branch, BranchMove, Channel, NodeLibrary, SmokeInput, Version, Workflow
from controlplane.kernel.admin import ReadOnly


@admin.register(Workflow)
class WorkflowAdmin(ModelAdmin):
    list_display = ("slug", "name", "category", "pool_slug", "owner", "created_at", "archived_at")
    list_filter = ("category", "pool_slug")
    search_fields = ("slug", "name", "owner")
    readonly_fields = ("id", "slug", "created_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Version)
class VersionAdmin(ReadOnly):
    list_display = ("workflow", "number", "short", "runnable", "author", "message", "created_at")
    list_filter = ("runnable", "workflow")
    list_select_related = ("workflow",)
    search_fields = ("sha256", "workflow__slug", "message", "author")
    fields = (
        *("id", "workflow", "number", "sha256", "parent", "merged_from", "author", "message", "created_at", "runnable", "warm_key", "timeout_s", "stall_s"),
        *("findings_json", "inputs_json", "schema_json", "graph_json"),
    )

    @admin.display(description="hash")
    def short(self, version: Version) -> str:
        return version.sha256[:12]

    @admin.display(description="findings")
    def findings_json(self, version: Version) -> str:
        return _pretty(version.findings)

    @admin.display(description="inputs")
    def inputs_json(self, version: Version) -> str:
        return _pretty(version.inputs)

    @admin.display(description="schema")
    def schema_json(self, version: Version) -> str:
        return _pretty(version.schema)

    @admin.display(description="graph")
    def graph_json(self, version: Version) -> str:
        return _pretty(version.graph)


@admin.register(Channel)
class ChannelAdmin(ReadOnly):
    list_display = ("workflow", "name", "version", "moved_at", "moved_by")
    list_filter = ("name",)
    list_select_related = ("workflow", "version__workflow")


@admin.register(NodeLibrary)
class NodeLibraryAdmin(ReadOnly):
    list_display = ("name", "comfyui_version", "current", "source", "created_at")
    fields = ("name", "comfyui_version", "current", "sha256", "source", "created_at", "classes_count")

    @admin.display(description="node classes")
    def classes_count(self, library: NodeLibrary) -> int:
        return len(library.classes)


@admin.register(Branch)
class BranchAdmin(ReadOnly):
    list_display = ("workflow", "name", "head", "created_by", "moved_at")
    list_select_related = ("workflow", "head__workflow")


@admin.register(BranchMove)
class BranchMoveAdmin(ReadOnly):
    list_display = ("branch", "reason", "before", "after", "by", "at")
    list_filter = ("reason",)
    list_select_related = ("branch__workflow", "before__workflow", "after__workflow")


@admin.register(SmokeInput)
class SmokeInputAdmin(ReadOnly):
    list_display = ("version", "origin", "author", "created_at")
    list_filter = ("origin",)
    list_select_related = ("version__workflow",)


def _pretty(value: Any) -> str:
    """Indented JSON, escaped, and cut where a page would become too heavy."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return format_html('<pre style="white-space:pre-wrap;max-height:40rem;overflow:auto">{}</pre>', text if len(text) <= 100_000 else text[:100_000] + "…")
