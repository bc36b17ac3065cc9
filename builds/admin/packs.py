"""Packs, public lists, pins and known models, for reading: lists change by import, pins where their reason is asked."""

from __future__ import annotations

from django.contrib import admin

from builds.models import KnownModel, NodeList, Pack, PackClass, Pin
from controlplane.kernel.admin import ReadOnly


@admin.register(NodeList)
class NodeListAdmin(ReadOnly):
    list_display = ("kind", "source", "entries", "imported_at", "imported_by")
    list_filter = ("kind",)


@admin.register(Pack)
class PackAdmin(ReadOnly):
    list_display = ("key", "title", "author", "stars", "updated_at", "deprecated")
    list_filter = ("deprecated",)
    search_fields = ("key", "title", "registry_id", "repository")


@admin.register(PackClass)
class PackClassAdmin(ReadOnly):
    list_display = ("class_name", "pack", "evidence")
    list_filter = ("evidence",)
    search_fields = ("class_name",)
    list_select_related = ("pack",)
    show_full_result_count = False


@admin.register(Pin)
class PinAdmin(ReadOnly):
    list_display = ("class_name", "workflow", "pack", "version", "reason", "author", "created_at")
    search_fields = ("class_name", "pack__key")
    list_select_related = ("workflow", "pack")


@admin.register(KnownModel)
class KnownModelAdmin(ReadOnly):
    list_display = ("filename", "directory", "family", "size_bytes", "licence", "source")
    search_fields = ("filename", "sha256")
    show_full_result_count = False
