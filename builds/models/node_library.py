"""What a ComfyUI of a given make can do."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Q


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
