"""Locks and builds, for reading: they change through their own doors."""

from __future__ import annotations

from django.contrib import admin

from builds.models import Build, BuildLine, BuildStep, Lock, VersionLock
from controlplane.kernel.admin import ReadOnly


@admin.register(Lock)
class LockAdmin(ReadOnly):
    list_display = ("sha256", "created_by", "created_at")
    search_fields = ("sha256",)


@admin.register(VersionLock)
class VersionLockAdmin(ReadOnly):
    list_display = ("version", "lock", "made_by", "made_at")
    list_select_related = ("version__workflow", "lock")


@admin.register(Build)
class BuildAdmin(ReadOnly):
    list_display = ("id", "lock", "version", "state", "requested_by", "requested_at", "finished_at", "size_bytes")
    list_filter = ("state", "platform")
    search_fields = ("=id", "lock__sha256", "digest", "image_id")
    exclude = ("token",)
    list_select_related = ("lock", "version__workflow")


@admin.register(BuildStep)
class BuildStepAdmin(ReadOnly):
    list_display = ("build_id", "position", "name", "stage", "state", "seconds", "size_bytes")
    list_filter = ("state",)
    search_fields = ("=build__id",)
    show_full_result_count = False


@admin.register(BuildLine)
class BuildLineAdmin(ReadOnly):
    list_display = ("build_id", "seq", "step", "at", "text")
    search_fields = ("=build__id",)
    show_full_result_count = False
