"""What every room's tests may ask for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest


@pytest.fixture
def now() -> datetime:
    """One fixed moment, aware, on a whole minute: a Monday at noon."""
    return datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """What a process keeps of measured times belongs to one test: databases of tests use the same ids again."""
    from fleet import job_times, measures, overflow, watching

    job_times.forget()
    measures.forget()
    overflow.forget()
    watching.forget()
