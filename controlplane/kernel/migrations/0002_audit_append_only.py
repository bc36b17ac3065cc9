"""Freeze the audit trail and create the row that orders its writers."""

from typing import Any

from django.db import migrations

from controlplane.kernel.appendonly import AppendOnly


def create_head(apps: Any, schema_editor: Any) -> None:
    apps.get_model("kernel", "AuditHead").objects.get_or_create(id=1)


class Migration(migrations.Migration):
    dependencies = [("kernel", "0001_initial")]

    operations = [
        AppendOnly("kernel_auditentry"),
        migrations.RunPython(create_head, migrations.RunPython.noop),
    ]
