from django.db import migrations

from controlplane.kernel.appendonly import AppendOnly


class Migration(migrations.Migration):
    dependencies = [("builds", "0001_initial")]

    operations = [
        AppendOnly(
            "builds_version",
            ("graph", "ui_graph", "inputs", "schema", "sha256", "number", "workflow_id", "parent_id", "author", "message", "lock", "timeout_s", "stall_s", "created_at"),
        ),
    ]
