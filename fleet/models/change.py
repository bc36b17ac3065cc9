"""What happened to a worker beside its first start and its end: the moments its row has no column for."""

from __future__ import annotations

from django.db import models

from fleet.models.capacity import Worker


class WorkerChange(models.Model):
    """One such moment. Rare: a handful in a worker's life, none for a job."""

    class Kind(models.TextChoices):
        STARTING = "starting", "ComfyUI comes up again"
        LOADING = "loading", "Warm-up runs again"
        READY = "ready", "Ready again"
        CORDONED = "cordoned", "Cordoned"
        UNCORDONED = "uncordoned", "Uncordoned"
        FAULTED = "faulted", "Taken out"
        CLEARED = "cleared", "Put back to work"
        NOTICE = "notice", "Told that the provider takes it away"
        REPLACING = "replacing", "To be replaced"

    worker = models.ForeignKey(Worker, on_delete=models.CASCADE, related_name="changes", db_index=False)
    at = models.DateTimeField()
    kind = models.CharField(max_length=12, choices=Kind)
    note = models.CharField(max_length=500, blank=True)
    actor = models.CharField(max_length=120, blank=True)

    class Meta:
        ordering = ["at", "id"]
        indexes = [models.Index(fields=["worker", "at"], name="change_by_worker")]

    def __str__(self) -> str:
        return f"{self.worker_id} {self.kind}"
