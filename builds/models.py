"""What to run: workflows, their immutable versions, and what a ComfyUI of a given make can do."""

from __future__ import annotations

from typing import Any

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


class NodeLibrary(models.Model):
    """`object_info` of one ComfyUI version with one set of packs: what its nodes take and give."""

    name = models.CharField(max_length=120, unique=True, help_text="e.g. embedded 0.1.0, ComfyUI 0.8.0")
    comfyui_version = models.CharField(max_length=40, blank=True)
    sha256 = models.CharField(max_length=64)
    object_info = models.JSONField()
    source = models.CharField(max_length=300, blank=True)
    current = models.BooleanField(default=False)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "node libraries"
        constraints = [models.UniqueConstraint(fields=["current"], condition=Q(current=True), name="one_current_node_library")]

    def __str__(self) -> str:
        return self.name

    @property
    def classes(self) -> dict[str, Any]:
        """Node class name → its object_info entry."""
        info: dict[str, Any] = self.object_info
        return info
