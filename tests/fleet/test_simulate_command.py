"""`manage.py simulate`: what it reads, what it says, and how it refuses."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from django.core.management import call_command

from fleet.simulation import named, traces
from fleet.simulation.peers import PEERS

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "traces"


def write(tmp_path: Path, text: str, name: str = "trace.csv") -> str:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    return str(path)


def run(*argv: str) -> str:
    out = io.StringIO()
    call_command("simulate", *argv, stdout=out)
    return out.getvalue()


def refused(capsys, *argv: str) -> dict:
    out, err = io.StringIO(), io.StringIO()
    with pytest.raises(SystemExit) as stop:
        call_command("simulate", *argv, stdout=out, stderr=err)
    assert stop.value.code == 2
    error = json.loads(out.getvalue())["error"]
    assert error["code"] in err.getvalue()
    assert error["message"]
    return error


JOBS = "t_s,service_s,kind\n" + "".join(f"{i * 20},{15 + i % 7},x\n" for i in range(200))


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
def test_single_jobs_are_played_and_summed_up(tmp_path, name):
    found = json.loads(run("--trace", write(tmp_path, JOBS, name), "--base", "1", "--max", "4", "--policy", "threshold", "--json"))
    assert (found["policy"], found["jobs"], found["busy_stops"], found["unserved"]) == ("threshold", 200, 0, 0)
    assert found["knobs"] == {"queue_per_worker": 0.8, "idle_s": 300.0}
    assert found["busy_hours"] == pytest.approx(sum(15 + i % 7 for i in range(200)) / 3600, abs=1e-3)
    assert found["gpu_hours"] >= found["busy_hours"]
    assert found["slo_met"] is (found["within"] >= 0.99)


def test_several_policies_stand_in_one_table_and_knobs_go_to_the_one_named(tmp_path):
    trace = write(tmp_path, JOBS)
    text = run("--trace", trace, "--base", "1", "--max", "4", "--policy", "threshold", "--policy", "keda", "--set", "keda.target=2", "--price", "2")
    assert "USD" in text
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["policy", "threshold", "keda"]
    both = json.loads(
        run("--trace", trace, "--policy", "threshold", "--policy", "request-count", "--set", "idle_s=7", "--set", "request-count.per_worker=3", "--json")
    )
    assert [p["knobs"] for p in both["policies"]] == [{"queue_per_worker": 0.8, "idle_s": 7.0}, {"per_worker": 3.0, "idle_s": 7.0}]


def test_counts_and_rates_are_spread_and_their_service_times_drawn(tmp_path):
    counts = write(tmp_path, "t_s,n\n0,3\n5,2\n9,0\n")
    trace = traces.read(counts, traces.Reading(mean_s=4.0, cv2=0.0))
    assert [int(a) for a in trace.arrivals] == [0, 0, 0, 5, 5]
    assert (trace.service == 4.0).all()
    rates = write(tmp_path, "t_s,qps\n" + "".join(f"{i * 60},2.0\n" for i in range(200)), "rates.csv")
    sample = write(tmp_path, "service_s\n5\n15\n", "service.csv")
    found = traces.read(rates, traces.Reading(sample=traces.sample(sample), rate_scale=0.5))
    assert len(found.arrivals) == pytest.approx(12_000, rel=0.05)
    assert set(found.service) == {5.0, 15.0}
    assert (np.diff(found.arrivals) >= 0).all()
    again = traces.read(rates, traces.Reading(sample=traces.sample(sample), rate_scale=0.5))
    assert (again.arrivals == found.arrivals).all()


def test_a_rate_holds_for_one_step_and_not_through_a_gap(tmp_path):
    rates = write(tmp_path, "t_s,qps\n0,10\n60,10\n120,10\n6000,10\n6060,10\n")
    arrivals = traces.read(rates, traces.Reading(mean_s=1.0)).arrivals
    assert not ((arrivals >= 180) & (arrivals < 6000)).any()
    assert len(arrivals) == pytest.approx(3000, rel=0.1)


def test_service_times_with_moments_are_taken_from_about_the_moment(tmp_path):
    sample = traces.sample(write(tmp_path, "t_s,service_s\n" + "".join(f"{i},{i}\n" for i in range(1000)), "near.csv"))
    trace = traces.read(write(tmp_path, "t_s\n100\n500\n900\n"), traces.Reading(sample=sample))
    assert abs(trace.service - trace.arrivals).max() <= traces.NEAR + 1


def test_lognormal_service_times_have_the_mean_and_spread_that_were_asked_for(tmp_path):
    trace = traces.read(write(tmp_path, "t_s,n\n0,40000\n"), traces.Reading(mean_s=10.0, cv2=0.5, service_scale=2.0))
    assert trace.service.mean() == pytest.approx(20, rel=0.02)
    assert trace.service.var() / trace.service.mean() ** 2 == pytest.approx(0.5, rel=0.1)


def test_a_stretch_can_be_cut_out_by_time_of_the_trace(tmp_path):
    trace = traces.read(write(tmp_path, JOBS), traces.Reading(from_s=1000, until_s=2000))
    assert (trace.arrivals.min(), trace.arrivals.max(), trace.start_s, trace.end_s) == (1000, 1980, 1000, 2000)
    found = json.loads(
        run("--trace", write(tmp_path, JOBS), "--from", "1000s", "--until", "0.5h", "--base", "2", "--policy", "static", "--set", "size=2", "--json")
    )
    assert found["jobs"] == 40


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("", "trace_empty", "header"),
        ("t_s,service_s\n", "trace_empty", "row"),
        ("when,service_s\n1,2\n", "trace_column", "t_s"),
        ("t_s,service_s\n1,2\n2,fast\n", "trace_number", "Line 3"),
        ("t_s,service_s\n1,2\n2\n", "trace_number", "Line 3"),
        ("t_s,service_s\n1,2\n2,-5\n", "trace_number", "never negative"),
        ("t_s,service_s\n-1,2\n", "trace_number", "never negative"),
        ("t_s,service_s\n1,nan\n", "trace_number", "nan"),
        ("t_s,service_s\n1,inf\n", "trace_number", "inf"),
        ("t_s,service_s\n5,2\n1,2\n", "trace_unsorted", "Sort"),
        ("t_s,n\n1,2.5\n", "trace_number", "whole"),
        ("t_s,n\n1,99999999999\n", "trace_long", "most"),
        ("t_s,n\n1,2\n", "service_unknown", "--service-sample"),
        ("t_s,a,b\n1,2,3\n", "trace_column", "--column"),
        ("t_s,qps\n1,2\n", "trace_short", "two rows"),
        ("\x00\x01\x02", "trace_column", "t_s"),
    ],
)
def test_a_bad_trace_is_refused_with_what_to_do(tmp_path, capsys, text, code, says):
    error = refused(capsys, "--trace", write(tmp_path, text), "--max", "4")
    assert error["code"] == code
    assert says in error["message"] + error["suggestion"]


def test_bytes_that_are_no_text_and_broken_gzip_are_refused(tmp_path, capsys):
    path = tmp_path / "bad.csv"
    path.write_bytes(b"t_s,service_s\n1,\xff\xfe\n")
    assert refused(capsys, "--trace", str(path))["code"] == "trace_unreadable"
    path.write_bytes(gzip.compress(JOBS.encode())[:60])
    assert refused(capsys, "--trace", str(path))["code"] == "trace_unreadable"


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        ([], "argument_invalid"),
        (["--trace", "/nowhere/at/all.csv"], "file_unreadable"),
        (["--trace", "T", "--policy", "magic"], "policy_unknown"),
        (["--trace", "T", "--set", "speed=3"], "knob_unknown"),
        (["--trace", "T", "--set", "aim"], "knob_invalid"),
        (["--trace", "T", "--set", "aim=much"], "knob_invalid"),
        (["--trace", "T", "--set", "aim=-1"], "knob_invalid"),
        (["--trace", "T", "--policy", "keda", "--set", "target=0"], "knob_invalid"),
        (["--trace", "T", "--set", "keda.target=1"], "policy_unknown"),
        (["--trace", "T", "--base", "9", "--max", "8"], "argument_invalid"),
        (["--trace", "T", "--base", "-1"], "argument_invalid"),
        (["--trace", "T", "--max", "0"], "argument_invalid"),
        (["--trace", "T", "--slo-share", "1.5"], "argument_invalid"),
        (["--trace", "T", "--price", "-2"], "argument_invalid"),
        (["--trace", "T", "--service-scale", "0"], "argument_invalid"),
        (["--trace", "T", "--tick", "0"], "argument_invalid"),
        (["--trace", "T", "--from", "10d"], "trace_empty"),
        (["--trace", "T", "--rate-scale", "2"], "trace_rate_scale"),
        (["--trace", "T", "--cold-start-sample", "T"], "sample_column"),
        (["--trace", "T", "--samples", "/nowhere/at/all.csv"], "file_unwritable"),
    ],
)
def test_what_is_not_possible_is_refused(tmp_path, capsys, argv, code):
    trace = write(tmp_path, JOBS)
    assert refused(capsys, *(trace if word == "T" else word for word in argv))["code"] == code


def test_every_policy_is_listed_with_its_knobs():
    found = json.loads(run("--list-policies", "--json"))["policies"]
    assert {p["policy"] for p in found} == set(named.ALL)
    assert {p["policy"] for p in found if not p["for_pools"]} == set(PEERS)
    assert all(p["about"] for p in found)
    assert "threshold" in run("--list-policies")


def test_every_tick_can_be_written_down(tmp_path):
    run("--trace", write(tmp_path, JOBS), "--base", "1", "--samples", str(tmp_path / "out.csv"))
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "policy,t_s,ready,coming,queue,wanted"
    assert lines[1].startswith("wait-target,0,1,0,0,")


@pytest.mark.parametrize("name", sorted(PEERS))
def test_published_rules_play_a_day_within_the_bounds(name):
    from fleet.simulation import simulate

    random = np.random.default_rng(4)
    arrivals = np.sort(random.uniform(0, 14_400, 1500))
    found = simulate(arrivals, random.exponential(20, 1500), policy=named.make(name), base=0, maximum=12, cold_start_s=60, target_s=60)
    assert found.peak <= 12
    assert found.busy_hours > 5
    if name != "hpa-waiting":  # counts waiting jobs only, and cannot see that its workers are all at work
        assert found.unserved == 0


@pytest.mark.parametrize(
    ("policy", "knobs", "hours", "within"),
    [
        ("threshold", {}, 619, 98.77),
        ("request-count", {"per_worker": 2, "idle_s": 180}, 580, 99.77),
        ("keda", {}, 703, 99.85),
        ("knative", {}, 691, 99.87),
        ("runpod-requests", {"per_worker": 1}, 655, 99.13),
    ],
)
def test_published_rows_come_out_again(policy, knobs, hours, within):
    """Figures of an independent simulator on the same trace: ours agrees within a few percent."""
    trace = SHARED / "servegen_mm_image_64.csv.gz"
    if not trace.exists():
        if os.environ.get("COMFYPLANE_REQUIRE_SHARED") == "1":
            pytest.fail("../shared/data/traces was promised")
        pytest.skip("../shared/data/traces is not there")
    from fleet.simulation import simulate

    played = traces.read(str(trace), traces.Reading(sample=traces.sample(str(SHARED / "service_sample.csv.gz"))))
    found = simulate(played.arrivals, played.service, policy=named.make(policy, knobs), base=4, maximum=64, cold_start_s=90, target_s=60, until_s=played.end_s)
    assert found.gpu_hours == pytest.approx(hours, rel=0.03)
    assert found.within * 100 == pytest.approx(within, abs=0.4)
