"""Indexes for tables that are written to while a migration runs."""

from __future__ import annotations

from typing import Any

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


class AddIndexLive(migrations.AddIndex):
    """AddIndex that keeps no writer waiting: on PostgreSQL CREATE INDEX CONCURRENTLY, elsewhere as usual.

    Its migration says `atomic = False` and holds nothing else, so that it can be run again: what an attempt left half built is dropped first.
    """

    def database_forwards(self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any) -> None:
        if not self._dropped(app_label, schema_editor, to_state):
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        schema_editor.add_index(to_state.apps.get_model(app_label, self.model_name), self.index, concurrently=True)  # type: ignore[call-arg]

    def database_backwards(self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any) -> None:
        if not self._dropped(app_label, schema_editor, from_state):
            super().database_backwards(app_label, schema_editor, from_state, to_state)

    def _dropped(self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, state: Any) -> bool:
        """Drop the index without a lock, whole or half built; False where that is not this operation's to do."""
        model = state.apps.get_model(app_label, self.model_name)
        if schema_editor.connection.vendor != "postgresql" or not self.allow_migrate_model(schema_editor.connection.alias, model):
            return False
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema_editor.quote_name(self.index.name)}")
        return True
