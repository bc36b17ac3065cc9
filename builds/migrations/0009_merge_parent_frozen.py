from django.db import migrations

from controlplane.kernel.appendonly import AppendOnly, create_sql, drop_sql

BEFORE = ("graph", "ui_graph", "inputs", "schema", "sha256", "number", "workflow_id", "parent_id", "author", "message", "lock", "timeout_s", "stall_s", "created_at")


class Refreeze(AppendOnly):
    """Freeze other columns than before."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        self._freeze(schema_editor, self.columns)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        self._freeze(schema_editor, BEFORE)

    def _freeze(self, schema_editor, columns):
        vendor = schema_editor.connection.vendor
        for statement in [*drop_sql(vendor, self.table), *create_sql(vendor, self.table, columns)]:
            schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):
    dependencies = [("builds", "0008_version_lock_findings")]

    operations = [Refreeze("builds_version", (*BEFORE, "merged_from_id"))]
