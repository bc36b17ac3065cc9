"""Smoke runs: one small job of a version, run to see that it works where it is to run."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from builds.models import Build, Version
from controlplane.kernel.ids import uuid7
from fleet.models.job import Job


class SmokeRun(models.Model):
    """One smoke run. `build` says on which image; empty is whatever the version's pool runs."""

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        PASSED = "passed"
        FAILED = "failed"

    class Trigger(models.TextChoices):
        IMPORT = "import"
        BUILD = "build"
        DEPLOY = "deploy"
        CALENDAR = "calendar"
        PERSON = "person"

    OPEN = (State.QUEUED, State.RUNNING)

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="smoke_runs")
    build = models.ForeignKey(Build, null=True, blank=True, on_delete=models.PROTECT, related_name="smoke_runs")
    job = models.OneToOneField(Job, null=True, blank=True, on_delete=models.PROTECT, related_name="smoke_run")
    trigger = models.CharField(max_length=8, choices=Trigger)
    state = models.CharField(max_length=7, choices=State, default=State.QUEUED)
    requested_at = models.DateTimeField()
    requested_by = models.CharField(max_length=120)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    report = models.JSONField(default=dict, blank=True, help_text="What was measured: {run_s, outputs, blank, cached, image_id}")
    error = models.JSONField(null=True, blank=True, help_text="{code, message, suggestion}")

    class Meta:
        ordering = ["-requested_at"]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=["queued", "running", "passed", "failed"]), name="smoke_run_state_known"),
            models.CheckConstraint(condition=Q(trigger__in=["import", "build", "deploy", "calendar", "person"]), name="smoke_run_trigger_known"),
            models.CheckConstraint(condition=Q(state__in=["queued", "running"]) | Q(finished_at__isnull=False), name="ended_smoke_run_has_time"),
            models.CheckConstraint(condition=~Q(state="failed") | Q(error__isnull=False), name="failed_smoke_run_says_why"),
            models.UniqueConstraint(fields=["version", "build"], condition=Q(state__in=["queued", "running"]), name="smoke_run_open_once_per_build"),
            models.UniqueConstraint(
                fields=["version"], condition=Q(state__in=["queued", "running"], build__isnull=True), name="smoke_run_open_once_per_version"
            ),
        ]
        indexes = [
            models.Index(fields=["version", "-requested_at"], name="smoke_run_by_version"),
            models.Index(fields=["requested_at"], condition=Q(state__in=["queued", "running"]), name="smoke_run_open"),
        ]

    def __str__(self) -> str:
        return f"{self.version} {self.state}"
