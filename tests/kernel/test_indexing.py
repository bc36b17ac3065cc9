"""Indexes are made without keeping writers waiting, and can be made again after an attempt that was cut off."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from django.apps import apps
from django.db import connection, migrations, models
from django.db.migrations.state import ProjectState

from controlplane.kernel.indexing import AddIndexLive

ROOT = Path(__file__).resolve().parents[2]
SINCE = 15
"""Tables of jobs and attempts are full where the product runs: their indexes are made live from this migration of the fleet on."""


@pytest.mark.django_db(transaction=True)
def test_an_index_is_made_made_again_and_taken_away() -> None:
    index = models.Index(fields=["finished_at"], name="tried_live")
    act, state = AddIndexLive(model_name="job", index=index), ProjectState.from_apps(apps)
    after = state.clone()
    act.state_forwards("fleet", after)

    def names() -> set[str]:
        with connection.cursor() as cursor:
            return {name for name in connection.introspection.get_constraints(cursor, "fleet_job") if name == "tried_live"}

    try:
        with connection.schema_editor(atomic=False) as editor:
            act.database_forwards("fleet", editor, state, after)
        assert names()
        if connection.vendor == "postgresql":  # what a cut-off attempt leaves is in the way of nothing
            with connection.schema_editor(atomic=False, collect_sql=True) as editor:
                act.database_forwards("fleet", editor, state, after)
            assert [line.split(" IF")[0] for line in editor.collected_sql if "INDEX" in line][:1] == ["DROP INDEX CONCURRENTLY"]
            assert any("CREATE INDEX CONCURRENTLY" in line for line in editor.collected_sql)
            with connection.schema_editor(atomic=False) as editor:
                act.database_forwards("fleet", editor, state, after)
            assert names()
    finally:
        with connection.schema_editor(atomic=False) as editor:
            act.database_backwards("fleet", editor, after, state)
    assert not names()


@pytest.mark.parametrize("path", sorted((ROOT / "fleet" / "migrations").glob("0*.py")), ids=lambda path: path.stem)
def test_full_tables_get_their_indexes_live(path: Path) -> None:
    migration = importlib.import_module(f"fleet.migrations.{path.stem}").Migration
    added = [one for one in migration.operations if isinstance(one, migrations.AddIndex) and one.model_name in ("job", "attempt")]
    if added and int(path.stem[:4]) >= SINCE:
        assert all(isinstance(one, AddIndexLive) for one in added) and len(migration.operations) == len(added) == 1
        assert migration.atomic is False
