"""Locks, the builds that turn them into images, and what each build said."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from builds.models.workflow import Version
from controlplane.kernel.ids import uuid7


class Lock(models.Model):
    """All that is needed to make the same image again; its id is the SHA-256 of `document` as canonical JSON."""

    sha256 = models.CharField(primary_key=True, max_length=64)
    document = models.JSONField()
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=120)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.sha256[:12]


class VersionLock(models.Model):
    """Which lock a version was given, and when. The newest one counts."""

    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="locks")
    lock = models.ForeignKey(Lock, on_delete=models.PROTECT, related_name="versions")
    made_at = models.DateTimeField()
    made_by = models.CharField(max_length=120)
    findings = models.JSONField(default=list, blank=True, help_text="What was not exact when it was made: [{level, code, message, suggestion}]")

    class Meta:
        ordering = ["-made_at", "-id"]
        constraints = [models.UniqueConstraint(fields=["version", "lock"], name="version_lock_once")]

    def __str__(self) -> str:
        return f"{self.version} {self.lock}"


class Build(models.Model):
    """One try to make the image of a lock. At most one of a lock is waiting, running or done well."""

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELED = "canceled"

    OPEN = (State.QUEUED, State.RUNNING)
    HOLDING = (State.QUEUED, State.RUNNING, State.SUCCEEDED)

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    lock = models.ForeignKey(Lock, on_delete=models.PROTECT, related_name="builds")
    version = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="builds", help_text="The version it was asked for")
    state = models.CharField(max_length=9, choices=State, default=State.QUEUED)
    token = models.UUIDField(null=True, blank=True, help_text="Of the process that builds; a stale one changes nothing")
    lease_until = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0, help_text="Times a process began it")
    requested_at = models.DateTimeField()
    requested_by = models.CharField(max_length=120)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    cancel_asked_at = models.DateTimeField(null=True, blank=True)
    platform = models.CharField(max_length=40, default="linux/amd64")
    dockerfile = models.TextField(blank=True)
    image = models.CharField(max_length=300, blank=True, help_text="Name and tag")
    image_id = models.CharField(max_length=80, blank=True, help_text="sha256:… of the image's configuration")
    digest = models.CharField(max_length=80, blank=True, help_text="sha256:… in the registry it was pushed to")
    size_bytes = models.BigIntegerField(null=True, blank=True)
    classes = models.JSONField(default=dict, blank=True, help_text="What the check inside the container found")
    sbom_sha256 = models.CharField(max_length=64, blank=True, help_text="Blob of the CycloneDX document")
    vulnerabilities = models.JSONField(null=True, blank=True, help_text="Report, or why there is none")
    failed_step = models.CharField(max_length=200, blank=True)
    notes = models.JSONField(default=list, blank=True, help_text="What somebody should know about the image, one sentence each")
    error = models.JSONField(null=True, blank=True, help_text="{code, message, suggestion, details}")

    class Meta:
        ordering = ["-requested_at"]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=["queued", "running", "succeeded", "failed", "canceled"]), name="build_state_known"),
            models.UniqueConstraint(fields=["lock", "platform"], condition=Q(state__in=["queued", "running", "succeeded"]), name="build_once_per_lock"),
            models.CheckConstraint(condition=~Q(state="running") | Q(token__isnull=False, lease_until__isnull=False), name="running_build_has_token"),
            models.CheckConstraint(condition=~Q(state="succeeded") | ~Q(image_id=""), name="built_image_has_id"),
            models.CheckConstraint(condition=~Q(state="failed") | Q(error__isnull=False), name="failed_build_says_why"),
            models.CheckConstraint(condition=Q(state__in=["queued", "running"]) | Q(finished_at__isnull=False), name="ended_build_has_time"),
        ]
        indexes = [models.Index(fields=["state", "requested_at"], name="build_by_state")]

    def __str__(self) -> str:
        return f"{self.lock} {self.state}"


class BuildStep(models.Model):
    """One step of a build: a layer of the Dockerfile, or a check after it."""

    class State(models.TextChoices):
        RUNNING = "running"
        CACHED = "cached"
        DONE = "done"
        FAILED = "failed"
        CANCELED = "canceled"

    build = models.ForeignKey(Build, on_delete=models.CASCADE, related_name="steps")
    position = models.PositiveIntegerField()
    name = models.CharField(max_length=300)
    stage = models.CharField(max_length=60, blank=True)
    state = models.CharField(max_length=8, choices=State)
    started_at = models.DateTimeField(null=True, blank=True)
    seconds = models.FloatField(null=True, blank=True)
    size_bytes = models.BigIntegerField(null=True, blank=True)

    class Meta:
        ordering = ["build", "position"]
        constraints = [
            models.UniqueConstraint(fields=["build", "position"], name="build_step_once"),
            models.CheckConstraint(condition=Q(state__in=["running", "cached", "done", "failed", "canceled"]), name="build_step_state_known"),
        ]

    def __str__(self) -> str:
        return self.name


class BuildLine(models.Model):
    """One line of a build's log, as it came."""

    build = models.ForeignKey(Build, on_delete=models.CASCADE, related_name="lines")
    seq = models.PositiveIntegerField()
    step = models.PositiveIntegerField(null=True, blank=True, help_text="Position of the step that said it")
    at = models.DateTimeField()
    text = models.CharField(max_length=2000)

    class Meta:
        ordering = ["build", "seq"]
        constraints = [models.UniqueConstraint(fields=["build", "seq"], name="build_line_once")]

    def __str__(self) -> str:
        return self.text[:80]
