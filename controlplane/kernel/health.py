"""Whether this process can do its work: the database answers, its tables are those of this code, the loops tick."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from controlplane.kernel import loops


@dataclass(frozen=True)
class Check:
    """One thing that must hold, and what was found."""

    name: str
    ok: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def readiness(now: datetime) -> list[Check]:
    """Every check, cheapest first; when the database is away the others are not asked."""
    database = _database()
    if not database.ok:
        return [database, *(Check(name, False, "the database does not answer") for name in ("migrations", "loops"))]
    migrations = _migrations()
    if not migrations.ok:
        return [database, migrations, Check("loops", False, "migrations come first")]
    return [database, migrations, _loops(now)]


def _database() -> Check:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()
    except DatabaseError as error:
        return Check("database", False, f"{type(error).__name__}: {error}".strip()[:200])
    return Check("database", True, connection.vendor)


_migrated = False  # once true it stays true for this code; looking costs more than all other checks together


def _migrations() -> Check:
    global _migrated
    if not _migrated:
        executor = MigrationExecutor(connection)
        missing = [f"{migration.app_label}.{migration.name}" for migration, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())]
        if missing:
            return Check("migrations", False, f"{len(missing)} to apply: {', '.join(missing[:5])}")
        _migrated = True
    return Check("migrations", True, "all applied")


def _loops(now: datetime) -> Check:
    ages = loops.ages(now)
    if not ages:
        return Check("loops", False, "no controller has run yet: start `manage.py controller`")
    late = [age.name if age.age_s is None else f"{age.name} ({age.age_s:.0f} s ago)" for age in ages if age.late]
    if late:
        return Check("loops", False, f"late: {', '.join(late)}")
    return Check("loops", True, f"{len(ages)} loops on time")
