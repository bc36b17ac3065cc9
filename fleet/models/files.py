"""Files customers sent, to be used as inputs."""

from __future__ import annotations

from django.db import models

from billing.models import Customer
from controlplane.kernel.ids import uuid7
from controlplane.kernel.models import Blob


class CustomerFile(models.Model):
    """A customer's claim on a blob: the same bytes may belong to several customers, who never learn of each other."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="files")
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="+")
    name = models.CharField(max_length=200)
    media_type = models.CharField(max_length=100)
    width = models.PositiveIntegerField(null=True)
    height = models.PositiveIntegerField(null=True)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["customer", "blob"], name="file_once_per_customer")]

    def __str__(self) -> str:
        return self.name
