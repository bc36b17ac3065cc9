"""Plain statements for the few hot paths, the same text on PostgreSQL and SQLite.

The ORM compiles a statement anew each time; where a path runs a thousand times a second that costs more than the
database does. These statements name tables and columns; the models stay the one place where those are defined.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import connection, models

M = TypeVar("M", bound=models.Model)


def rows(statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run a statement that returns rows. `%s` marks parameters; datetimes, UUIDs, decimals and JSON values are adapted."""
    with _executed(statement, parameters) as cursor:
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


def run(statement: str, parameters: Sequence[Any] = ()) -> int:
    """Run a statement and return how many rows it changed."""
    with _executed(statement, parameters) as cursor:
        return int(cursor.rowcount)


def send(statement: str, parameters: Sequence[Any] = ()) -> None:
    """Run a statement whose result nobody reads; inside `together` it is only sent."""
    if connection.vendor == "sqlite" or not settings.DB_PREPARE:
        run(statement, parameters)
        return
    import psycopg

    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors:
        psycopg.RawCursor(connection.connection).execute(_numbered(statement), adapted(parameters), prepare=True)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Send the statements of a block without waiting for each answer (PostgreSQL's pipeline); the first error is raised at its end."""
    if connection.vendor == "sqlite" or not settings.DB_PREPARE:
        yield
        return
    connection.ensure_connection()
    with connection.wrap_database_errors, connection.connection.pipeline():
        yield


def insert(instance: models.Model, *, returning: str = "") -> None:
    """Insert a model instance whose primary key is set, without the ORM's compiling. `returning` may call a function, e.g. pg_notify."""
    fields = instance._meta.concrete_fields
    statement = _inserts.get(type(instance))
    if statement is None:
        columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
        statement = _inserts[type(instance)] = f"INSERT INTO {instance._meta.db_table} ({columns}) VALUES ({marks(len(fields))})"  # noqa: S608  names of our own models
    values = [field.get_db_prep_save(field.pre_save(instance, True), connection) for field in fields]
    run(f"{statement} RETURNING {returning}" if returning else statement, values)
    instance._state.adding = False
    instance._state.db = connection.alias


_inserts: dict[type[models.Model], str] = {}


def columns(model: type[models.Model], alias: str) -> str:
    """The columns of a model under `alias`, in the order `instance` takes them."""
    return ", ".join(f"{alias}.{connection.ops.quote_name(str(field.column))}" for field in model._meta.concrete_fields)


def instance(model: type[M], values: Sequence[Any]) -> M:
    """A model instance out of a row read with `columns`, without the ORM's compiling."""
    fields = model._meta.concrete_fields
    return model.from_db(connection.alias, [str(field.attname) for field in fields], [_of(field, value) for field, value in zip(fields, values, strict=True)])


def _of(field: Any, value: Any) -> Any:
    if value is None:
        return None
    target = field.target_field if field.is_relation else field
    if isinstance(target, models.JSONField):
        return to_json(value)
    if isinstance(target, models.UUIDField):
        return to_uuid(value)
    if isinstance(target, models.DateTimeField):
        return to_datetime(value)
    if isinstance(target, models.DecimalField):
        return value if isinstance(value, Decimal) else target.to_python(str(value))
    return bool(value) if isinstance(target, models.BooleanField) else value


@contextlib.contextmanager
def _executed(statement: str, parameters: Sequence[Any]) -> Iterator[Any]:
    """A cursor after the statement. On PostgreSQL it is prepared once a connection, which spares parsing and planning it."""
    if connection.vendor == "sqlite" or not settings.DB_PREPARE:
        with connection.cursor() as cursor:
            cursor.execute(statement, adapted(parameters))
            yield cursor
        return
    import psycopg

    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors, psycopg.RawCursor(connection.connection) as cursor:
        cursor.execute(_numbered(statement), adapted(parameters), prepare=True)
        yield cursor


@lru_cache(maxsize=512)
def _numbered(statement: str) -> bytes:
    """`%s` as `$1, $2, …`: what the server reads. psycopg does this on every call for a long statement; here it is done once."""
    first, *rest = statement.split("%s")
    return (first + "".join(f"${n}{part}" for n, part in enumerate(rest, start=1))).replace("%%", "%").encode()


def adapted(parameters: Sequence[Any]) -> list[Any]:
    """Parameters as this database takes them."""
    if connection.vendor == "sqlite":
        return [_for_sqlite(value) for value in parameters]
    return [json.dumps(value) if isinstance(value, dict | list) else value for value in parameters]


def _for_sqlite(value: Any) -> Any:
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ")
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict | list):
        return json.dumps(value)
    return value


def marks(count: int) -> str:
    """`%s, %s, …` for an IN list."""
    return ", ".join(["%s"] * count)


def locking(clause: str) -> str:
    """`clause` (e.g. "FOR UPDATE SKIP LOCKED") on PostgreSQL; nothing on SQLite, whose immediate transaction is the lock."""
    return clause if connection.vendor == "postgresql" else ""


def to_uuid(value: Any) -> UUID:
    """A UUID column as read by a plain statement."""
    return value if isinstance(value, UUID) else UUID(value)


def to_datetime(value: Any) -> datetime | None:
    """A timestamp column as read by a plain statement, aware, UTC."""
    if value is None:
        return None
    at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def to_json(value: Any) -> Any:
    """A JSON column as read by a plain statement."""
    return json.loads(value) if isinstance(value, str) else value
