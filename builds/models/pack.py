"""Node packs and models as the public lists know them, and what people decided where the lists are unsure."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from builds.models.workflow import Workflow
from controlplane.kernel.ids import uuid7


class NodeList(models.Model):
    """One import of a public list; facts say which list they come from."""

    class Kind(models.TextChoices):
        NODE_MAP = "node_map", "Node class to pack"
        PACK_LIST = "pack_list", "Packs"
        MODEL_LIST = "model_list", "Models"

    kind = models.CharField(max_length=10, choices=Kind)
    source = models.CharField(max_length=500, help_text="Path or address it was read from")
    sha256 = models.CharField(max_length=64)
    entries = models.PositiveIntegerField()
    imported_at = models.DateTimeField()
    imported_by = models.CharField(max_length=120)

    class Meta:
        ordering = ["-imported_at"]
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=["node_map", "pack_list", "model_list"]), name="node_list_kind_known"),
            models.UniqueConstraint(fields=["kind", "sha256"], name="node_list_content_once"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.imported_at:%Y-%m-%d}"


class Pack(models.Model):
    """A custom node pack. `key` is `cnr:<registry id>` where it has one, else its repository address in one spelling."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    key = models.CharField(max_length=300, unique=True)
    registry_id = models.CharField(max_length=120, blank=True)
    repository = models.CharField(max_length=300, blank=True, help_text="https address, lower case host, without .git")
    title = models.CharField(max_length=200, blank=True)
    author = models.CharField(max_length=120, blank=True)
    description = models.CharField(max_length=500, blank=True)
    slug = models.CharField(max_length=120, blank=True, help_text="The repository's own name, small letters and hyphens; registry ids mostly equal it")
    list_id = models.CharField(max_length=120, blank=True, help_text="Short name in the public list; not always the registry's id")
    stars = models.IntegerField(null=True, blank=True)
    updated_at = models.DateTimeField(null=True, blank=True, help_text="Last change known to the list")
    deprecated = models.BooleanField(default=False)
    patterns = models.JSONField(default=list, blank=True, help_text="Regular expressions of class names it claims")
    seen_at = models.DateTimeField(help_text="Last import that named it")

    class Meta:
        ordering = ["key"]
        constraints = [
            models.UniqueConstraint(fields=["registry_id"], condition=~Q(registry_id=""), name="pack_registry_id_once"),
            models.UniqueConstraint(fields=["repository"], condition=~Q(repository=""), name="pack_repository_once"),
        ]
        indexes = [models.Index(fields=["slug"], name="pack_by_slug"), models.Index(fields=["list_id"], name="pack_by_list_id")]

    def __str__(self) -> str:
        return self.title or self.key


class PackClass(models.Model):
    """A pack says, or was seen, to bring a node class."""

    class Evidence(models.TextChoices):
        LISTED = "listed", "A public list says so"
        BUILT = "built", "A finished build saw it"

    pack = models.ForeignKey(Pack, on_delete=models.CASCADE, related_name="classes")
    class_name = models.CharField(max_length=200)
    evidence = models.CharField(max_length=8, choices=Evidence, default=Evidence.LISTED)
    preferred = models.BooleanField(default=False, help_text="The list says this pack goes before others for the class")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["pack", "class_name", "evidence"], name="pack_class_once"),
            models.CheckConstraint(condition=Q(evidence__in=["listed", "built"]), name="pack_class_evidence_known"),
        ]
        indexes = [models.Index(fields=["class_name"], name="pack_class_by_name")]

    def __str__(self) -> str:
        return self.class_name


class Pin(models.Model):
    """A person's word on where a node class comes from; for one workflow, or for all."""

    class_name = models.CharField(max_length=200)
    workflow = models.ForeignKey(Workflow, null=True, blank=True, on_delete=models.CASCADE, related_name="pins", help_text="Empty: for all workflows")
    pack = models.ForeignKey(Pack, on_delete=models.PROTECT, related_name="pins")
    version = models.CharField(max_length=80, blank=True, help_text="Full commit or registry version; empty leaves it to the lock")
    reason = models.CharField(max_length=300)
    author = models.CharField(max_length=120)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["class_name"]
        constraints = [
            models.UniqueConstraint(fields=["class_name", "workflow"], name="pin_once_per_workflow"),
            models.UniqueConstraint(fields=["class_name"], condition=Q(workflow__isnull=True), name="pin_once_for_all"),
            models.CheckConstraint(condition=~Q(reason=""), name="pin_has_reason"),
        ]

    def __str__(self) -> str:
        return f"{self.class_name} from {self.pack}"


class KnownModel(models.Model):
    """A model file some list, template or person knows: where it goes and where it can be had."""

    filename = models.CharField(max_length=300)
    directory = models.CharField(max_length=120, help_text="Folder under models/, e.g. checkpoints")
    url = models.CharField(max_length=1000, blank=True)
    sha256 = models.CharField(max_length=64, blank=True)
    size_bytes = models.BigIntegerField(null=True, blank=True)
    family = models.CharField(max_length=60, blank=True, help_text="Base it belongs to, e.g. sdxl, flux")
    licence = models.CharField(max_length=120, blank=True)
    header = models.JSONField(default=dict, blank=True, help_text="Facts read from its safetensors header")
    source = models.CharField(max_length=300, help_text="Who says so")
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ["filename"]
        constraints = [
            models.UniqueConstraint(fields=["filename", "directory", "url"], name="known_model_once"),
            models.CheckConstraint(condition=Q(size_bytes__isnull=True) | Q(size_bytes__gte=0), name="known_model_size_not_negative"),
        ]
        indexes = [models.Index(fields=["filename"], name="known_model_by_filename"), models.Index(fields=["sha256"], name="known_model_by_sha256")]

    def __str__(self) -> str:
        return f"{self.directory}/{self.filename}"
