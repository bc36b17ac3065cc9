"""manage.py forecast: what it reads, what it prints, and what it refuses."""

from __future__ import annotations

import gzip
import io
import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from factories import make_pool, make_runnable

from controlplane.kernel.errors import Invalid
from fleet.forecasting import reading
from fleet.models import DemandMinute

SHORT = ["t_s,value", *(f"{i * 3600},{10 + i % 24}" for i in range(72))]


def run(*args: str) -> tuple[dict[str, Any], int]:
    """The JSON printed and the exit code."""
    out = io.StringIO()
    try:
        call_command("forecast", *args, "--json", stdout=out, stderr=io.StringIO())
    except SystemExit as left:
        return json.loads(out.getvalue()), int(left.code or 0)
    return json.loads(out.getvalue()), 0


def put(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_it_prints_a_point_and_a_range_for_every_step_and_what_the_backtest_found(tmp_path: Path) -> None:
    answer, code = run("--series", put(tmp_path / "s.csv", SHORT), "--horizon", "5")
    assert code == 0
    assert [row["t_s"] for row in answer["forecast"]] == [72 * 3600 + i * 3600 for i in range(5)]
    assert all(0 <= row["p10"] <= row["p50"] <= row["p90"] <= row["upper"] for row in answer["forecast"])
    assert [row["p50"] for row in answer["forecast"]] == pytest.approx([10, 11, 12, 13, 14], abs=0.5)
    assert answer["usable"] is False
    assert "3.0 days" in answer["why"]
    assert {row["method"] for row in answer["backtest"]["by_method"]} >= {"same as yesterday", "same weekday's mean"}
    assert answer["step_s"] == 3600


def test_it_prints_a_table_for_people(tmp_path: Path) -> None:
    out = io.StringIO()
    call_command("forecast", "--series", put(tmp_path / "s.csv", SHORT), "--horizon", "60", stdout=out)
    assert "usable    no. It has 3.0 days" in out.getvalue()
    assert "12 more; --json gives all" in out.getvalue()


def test_dates_gzip_and_gaps_are_read(tmp_path: Path) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    lines = ["when,jobs_served", *(f"{(start + timedelta(hours=i)).isoformat()},{i % 24 if i % 10 else ''}" for i in range(48) if i != 7)]
    path = tmp_path / "s.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    answer, code = run("--series", str(path), "--horizon", "2")
    assert code == 0
    assert answer["unknown_steps"] == 6  # five empty cells and the hour left out; the first step is empty too and stays at its place
    assert answer["forecast"][0]["at"] == "2026-03-03T00:00:00Z"


def test_a_grid_of_rates_needs_a_column_and_can_be_taken_together(tmp_path: Path) -> None:
    path = put(tmp_path / "grid.csv", ["t_s,small,large", *(f"{i * 600},{i % 6},{100}" for i in range(60))])
    answer, code = run("--series", path)
    assert code == 2
    assert "--column" in answer["error"]["suggestion"]
    found = reading.read(path, column="small", step_s=3600)
    assert found.series.values.tolist() == [2.5] * 10


def test_one_row_an_event_is_counted_by_the_step_and_the_last_one_left_out(tmp_path: Path) -> None:
    path = put(tmp_path / "events.csv", ["t_s,service_s,model", "10,3,a", "20,3,b", "3700,1,a", "10900,9,c"])
    assert reading.read(path).series.values.tolist() == [2.0, 1.0, 0.0]
    counted = put(tmp_path / "counted.csv", ["t_s,n", "0,5", "1,2", "61,4", "150,9"])
    assert reading.read(counted, step_s=60).series.values.tolist() == [7.0, 4.0]


def test_a_file_of_two_columns_needs_no_header(tmp_path: Path) -> None:
    found = reading.read(put(tmp_path / "plain.csv", ["0,1", "60,2", "120,3"]))
    assert found.series.values.tolist() == [1.0, 2.0, 3.0]
    assert found.series.step_s == 60


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([], "series_empty"),
        (["t_s,value"], "series_empty"),
        (["t_s,value", "0,1", "later,2"], "series_value"),
        (["t_s,value", "0,1", "3600,many"], "series_value"),
        (["t_s,value", "0,1", "3600,-4"], "series_value"),
        (["t_s,value", "0,1", "inf,4"], "series_value"),
        (["t_s,value", "0,1", "3600,inf"], "series_value"),
        (["a,b,c", "x,y,z"], "series_column"),
        (["1,2,3", "4,5,6"], "series_column"),
        (["t_s,service_s", "5,1"], "series_short"),
    ],
)
def test_a_bad_file_is_refused_with_what_to_do(tmp_path: Path, lines: list[str], code: str) -> None:
    answer, left = run("--series", put(tmp_path / "bad.csv", lines))
    assert left == 2
    assert answer["error"]["code"] == code
    assert answer["error"]["suggestion"]


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    assert run("--series", str(tmp_path / "missing.csv"))[0]["error"]["code"] == "file_unreadable"
    assert run("--series", str(tmp_path))[0]["error"]["code"] == "file_unreadable"
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"t_s,value\n" + b"0,1\n" * 900)[:-12])
    assert run("--series", str(tmp_path / "cut.gz"))[0]["error"]["code"] == "series_unreadable"
    (tmp_path / "odd.csv").write_bytes(b"t_s,value\n\xff\xfe,1\n")
    assert run("--series", str(tmp_path / "odd.csv"))[1] == 2


@pytest.mark.parametrize("options", [["--horizon", "0"], ["--horizon", "100000"], ["--share", "1.5"], ["--step", "0"], ["--step", "nan"], ["--column", "no"]])
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: list[str]) -> None:
    answer, code = run("--series", put(tmp_path / "s.csv", SHORT), *options)
    assert code == 2
    assert answer["error"]["message"]


def test_a_series_with_nothing_known_is_answered_honestly(tmp_path: Path) -> None:
    answer, code = run("--series", put(tmp_path / "s.csv", ["t_s,value", "0,", "3600,nan", "7200,"]), "--horizon", "3")
    assert code == 0
    assert answer["usable"] is False
    assert [row["p50"] for row in answer["forecast"]] == [0, 0, 0]


def test_a_live_pool_is_forecast_by_the_hour(db: None) -> None:
    now = datetime.now(UTC)
    pool = make_pool(now=now, slug="gpu-a")
    workflow = make_runnable(now=now, pool=pool)
    hours = [now - timedelta(hours=i) for i in range(1, 80)]
    DemandMinute.objects.bulk_create(
        [DemandMinute(pool=pool, workflow=workflow, minute=at.replace(second=0, microsecond=0), arrivals=9, work_s=90) for at in hours]
    )
    answer, code = run("--pool", "gpu-a", "--horizon", "3")
    assert code == 0
    assert [round(row["p50"]) for row in answer["forecast"]] == [9, 9, 9]
    assert answer["floor"]["workers"] == pool.base
    assert answer["published_error"]["half_hour"] is None
    assert run("--pool", "none-such")[0]["error"]["code"] == "pool_not_found"
    assert run("--pool", "gpu-a", "--step", "60")[0]["error"]["code"] == "options_together"


def test_events_without_a_finite_time_are_named_by_line(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        reading.read(put(tmp_path / "s.csv", ["t_s,service_s", "0,1", "nan,2"]))
    assert refused.value.details["line"] == 3
    assert math.isfinite(float(np.float64(1)))
