"""Workflows, their immutable versions, and the names that move over them: channels and branches."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from controlplane.kernel.ids import uuid7


class Workflow(models.Model):
    """A named endpoint. What it runs is a version; channels point at versions."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=120)
    description = models.CharField(max_length=500, blank=True)
    category = models.CharField(max_length=40, default="image")
    owner = models.CharField(max_length=80, blank=True)
    quality = models.CharField(max_length=20, blank=True, help_text="Catalogue label, e.g. draft, high, highest")
    capabilities = models.JSONField(default=dict, blank=True)
    pool_slug = models.SlugField(max_length=60, default="default", help_text="Pool that runs it")
    result_cache_s = models.PositiveIntegerField(default=0, help_text="Answer equal inputs from an earlier result this old; 0 is never")
    created_at = models.DateTimeField()
    archived_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class Version(models.Model):
    """One immutable state of a workflow; `sha256` is the hash of its canonical JSON (`builds.versions`)."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    workflow = models.ForeignKey(Workflow, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    sha256 = models.CharField(max_length=64)
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="children")
    merged_from = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="merged_into", help_text="The other parent, when a merge made it"
    )
    author = models.CharField(max_length=120)
    message = models.CharField(max_length=500, blank=True)
    graph = models.JSONField(help_text="API-format graph")
    ui_graph = models.JSONField(null=True, blank=True, help_text="The canvas file it came from, if any")
    inputs = models.JSONField(default=list, help_text="Exposed node inputs, in order (`builds.inputs.ExposedInput`)")
    schema = models.JSONField(default=dict, help_text="JSON Schema of the customer's inputs")
    lock = models.JSONField(null=True, blank=True)
    findings = models.JSONField(default=list, help_text="What keeps it from running: [{level, code, node, field, message, suggestion}]")
    runnable = models.BooleanField(default=True)
    warm_key = models.CharField(max_length=64, blank=True, help_text="Hash of the models it loads; empty when it loads none")
    timeout_s = models.PositiveIntegerField(default=300)
    stall_s = models.PositiveIntegerField(default=120)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["workflow", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["workflow", "number"], name="version_number_once"),
            models.UniqueConstraint(fields=["workflow", "sha256"], name="version_content_once"),
        ]

    def __str__(self) -> str:
        return f"{self.workflow.slug} v{self.number}"


class Channel(models.Model):
    """A moving name for a version: lab, staging, limited or production."""

    class Name(models.TextChoices):
        LAB = "lab"
        STAGING = "staging"
        LIMITED = "limited"
        PRODUCTION = "production"

    workflow = models.ForeignKey(Workflow, on_delete=models.CASCADE, related_name="channels")
    name = models.CharField(max_length=12, choices=Name)
    version = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="channels")
    moved_at = models.DateTimeField()
    moved_by = models.CharField(max_length=120)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workflow", "name"], name="channel_once_per_workflow"),
            models.CheckConstraint(condition=Q(name__in=["lab", "staging", "limited", "production"]), name="channel_name_known"),
        ]

    def __str__(self) -> str:
        return f"{self.workflow.slug}:{self.name}"


class Branch(models.Model):
    """A line of work on a workflow; its head is the newest version of that line."""

    workflow = models.ForeignKey(Workflow, on_delete=models.CASCADE, related_name="branches")
    name = models.CharField(max_length=60)
    head = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="headed")
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=120)
    moved_at = models.DateTimeField()

    class Meta:
        ordering = ["workflow", "name"]
        verbose_name_plural = "branches"
        constraints = [models.UniqueConstraint(fields=["workflow", "name"], name="branch_once_per_workflow")]

    def __str__(self) -> str:
        return f"{self.workflow.slug}/{self.name}"


class BranchMove(models.Model):
    """One step of a branch's head, kept so that every move can be undone by another."""

    class Reason(models.TextChoices):
        CREATE = "create"
        COMMIT = "commit"
        MERGE = "merge"
        RESTORE = "restore"

    branch = models.ForeignKey(Branch, on_delete=models.CASCADE, related_name="moves")
    before = models.ForeignKey(Version, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    after = models.ForeignKey(Version, on_delete=models.PROTECT, related_name="+")
    reason = models.CharField(max_length=8, choices=Reason)
    message = models.CharField(max_length=500, blank=True)
    by = models.CharField(max_length=120)
    at = models.DateTimeField()

    class Meta:
        ordering = ["-at", "-id"]
        constraints = [models.CheckConstraint(condition=Q(reason__in=["create", "commit", "merge", "restore"]), name="branch_move_reason_known")]
        indexes = [models.Index(fields=["branch", "-at"], name="branch_move_by_branch")]

    def __str__(self) -> str:
        return f"{self.reason} to v{self.after.number}"


class SmokeInput(models.Model):
    """The inputs a version's smoke job runs with: made from its schema, or recorded from a job that went well."""

    class Origin(models.TextChoices):
        GENERATED = "generated"
        RECORDED = "recorded"
        WRITTEN = "written"

    version = models.OneToOneField(Version, on_delete=models.CASCADE, related_name="smoke_input")
    inputs = models.JSONField(default=dict)
    origin = models.CharField(max_length=10, choices=Origin, default=Origin.GENERATED)
    author = models.CharField(max_length=120)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(origin__in=["generated", "recorded", "written"]), name="smoke_input_origin_known")]

    def __str__(self) -> str:
        return f"{self.version} ({self.origin})"
