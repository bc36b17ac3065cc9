"""Sizing policies on real traces at equal wait target: GPU-hours, waits, changes, and what hindsight could have done.

    python bench/scaling_table.py [--only day,mm] [--quick] [--without-bound] [--json FILE]

Every rule is tuned in hindsight on the very trace it is measured on: its main knob by bisection or from a list, a second one from a short
list, the cheapest setting that meets the target; where none does, the one that comes closest. `wait-target` is shown so as well, and with its
one set of defaults.
Needs the traces in ../shared/data/traces; says so and stops when they are not there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from fleet.simulation import Outcome, clairvoyant, named, simulate, traces

TRACES = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "traces"
BISECTIONS = 6
QUICK = 4


@dataclass(frozen=True)
class Scenario:
    name: str
    about: str
    trace: traces.Trace
    base: int
    maximum: int
    cold_s: float = 90.0
    target_s: float = 60.0
    share: float = 0.99

    def run(self, policy: str, knobs: dict[str, float]) -> Outcome:
        t = self.trace
        return simulate(
            t.arrivals, t.service, policy=named.make(policy, knobs), base=self.base, maximum=self.maximum, cold_start_s=self.cold_s,
            target_s=self.target_s, target_share=self.share, start_s=t.start_s, until_s=t.end_s,
        )  # fmt: skip


def scenarios() -> Iterator[tuple[str, Callable[[], Scenario]]]:
    """By name, made only when wanted."""
    sample = lambda: traces.sample(str(TRACES / "service_sample.csv.gz"))  # noqa: E731

    def counted(file: str, **how: object) -> traces.Trace:
        return traces.read(str(TRACES / file), traces.Reading(sample=sample(), **how))  # type: ignore[arg-type]

    def day() -> Scenario:
        near = traces.sample(str(TRACES / "gentd26_cluster_day_latency.csv.gz"))
        read = traces.read(str(TRACES / "gentd26_cluster_day_qps.csv.gz"), traces.Reading(sample=near, rate_scale=0.6, from_s=0))
        return Scenario("day", "GenTD26 cluster day", read, 4, 64)

    def img() -> Scenario:
        how = traces.Reading(service_scale=2.0, from_s=4 * 86400, until_s=9 * 86400)
        return Scenario("img", "GenTD26 image requests, 5 days, service time x2", traces.read(str(TRACES / "gentd26_image_requests.csv.gz"), how), 2, 8)

    yield "img", img
    yield "day", day
    yield "mm", lambda: Scenario("mm", "ServeGen image understanding", counted("servegen_mm_image_64.csv.gz"), 4, 64)
    yield "small", lambda: Scenario("small", "ServeGen m-small, two days", counted("servegen_m_small_64.csv.gz", until_s=2 * 86400), 4, 64)
    yield "large", lambda: Scenario("large", "ServeGen m-large, one day", counted("servegen_m_large_512.csv.gz", until_s=86400), 16, 512)


Knobs = dict[str, float]
OURS, OURS_TUNED = "**wait-target, defaults**", "**wait-target (aim + hold tuned)**"


def bisected(
    scenario: Scenario, policy: str, knob: str, safe: float, thrifty: float, more: Knobs, *, times: int = BISECTIONS
) -> Iterator[tuple[Knobs, Outcome]]:
    """Settings from the safe end to the thrifty one, by halving on a logarithmic scale."""
    low, high = math.log(safe), math.log(thrifty)
    for _ in range(times):
        middle = (low + high) / 2
        knobs = {knob: float(f"{math.exp(middle):.3g}"), **more}
        found = scenario.run(policy, knobs)
        yield knobs, found
        if found.within >= scenario.share:
            low = middle
        else:
            high = middle


def listed(scenario: Scenario, policy: str, knob: str, values: list[float], more: Knobs) -> Iterator[tuple[Knobs, Outcome]]:
    for value in values:
        knobs = {knob: value, **more}
        yield knobs, scenario.run(policy, knobs)


def static(scenario: Scenario) -> Iterator[tuple[Knobs, Outcome]]:
    low, high = scenario.base, scenario.maximum
    while low < high:
        middle = (low + high) // 2
        found = scenario.run("static", {"size": middle})
        yield {"size": middle}, found
        low, high = (low, middle) if found.within >= scenario.share else (middle + 1, high)
    yield {"size": low}, scenario.run("static", {"size": low})


def rows(scenario: Scenario, *, quick: bool) -> Iterator[tuple[str, Knobs | None, Iterator[tuple[Knobs, Outcome]]]]:
    """Each rule with its published setting and the settings that are tried."""
    times = QUICK if quick else BISECTIONS
    counts = [1, 1.5, 2, 2.5] if quick else [1, 1.25, 1.5, 2, 2.5, 3]
    idles = [60.0, 180.0] if quick else [30.0, 60.0, 120.0, 180.0, 300.0]

    def many(policy: str, knob: str, safe: float, thrifty: float, second: str, values: list[float]) -> Iterator[tuple[Knobs, Outcome]]:
        for value in values[:1] if quick else values:
            yield from bisected(scenario, policy, knob, safe, thrifty, {second: value}, times=times)

    yield "static peak", None, static(scenario)
    yield "seed rule (k tuned)", {}, bisected(scenario, "threshold", "queue_per_worker", 0.15, 3, {}, times=times)
    yield "seed rule (k + idle tuned)", None, many("threshold", "queue_per_worker", 0.15, 3, "idle_s", [60, 120, 180])
    yield "HPA utilisation", {}, bisected(scenario, "hpa-utilisation", "target", 0.3, 0.95, {}, times=times)
    yield "HPA waiting/replica", {}, bisected(scenario, "hpa-waiting", "target", 0.05, 2, {}, times=times)
    yield "KEDA queue (in flight)", {}, bisected(scenario, "keda", "target", 0.5, 3, {}, times=times)
    yield "KEDA (target + window tuned)", None, many("keda", "target", 0.5, 3, "down_window_s", [90, 30, 180])
    yield "Knative KPA", {}, bisected(scenario, "knative", "target", 0.4, 2, {}, times=times)
    yield "KPA (util + delay tuned)", None, many("knative", "target", 0.4, 2, "delay_s", [60, 180])
    yield "RunPod queue delay (idle tuned)", {}, many("runpod-delay", "delay_s", 1, 60, "idle_s", [60, 5, 180])
    yield "RunPod request count", {}, listed(scenario, "runpod-requests", "per_worker", counts, {})
    yield "request count (both tuned)", {}, (x for idle in idles for x in listed(scenario, "request-count", "per_worker", counts, {"idle_s": idle}))
    aims, holds = [0.3, 0.4, 0.5, 0.7, 1, 1.5, 2.5], [0.0] if quick or scenario.maximum > 64 else [0.0, 45.0, 120.0, 180.0]
    ours = (x for learn in (0, 1) for hold in holds for x in listed(scenario, "wait-target", "aim", aims, {"hold_s": hold, "learn": learn}))
    yield OURS_TUNED, None, ours
    yield OURS, None, iter([({}, scenario.run("wait-target", {}))])


def best(tried: list[tuple[Knobs, Outcome]], share: float) -> tuple[Knobs, Outcome]:
    good = [one for one in tried if one[1].within >= share]
    return min(good, key=lambda one: one[1].gpu_hours) if good else max(tried, key=lambda one: one[1].within)


def line(name: str, knobs: Knobs, found: Outcome, published: Outcome | None, scenario: Scenario, achieved: float | None) -> str:
    missed = "" if found.within >= scenario.share else f" ({found.within:.2%} < {scenario.share:.0%})"
    ratio = f"{found.gpu_hours / achieved:.2f}" if achieved else ""
    default = f"{published.gpu_hours:.0f}, {published.within:.2%}" if published else ""
    waits = f"{found.wait_p50_s:.0f} / {found.wait_p95_s:.0f} / {found.wait_p99_s:.0f}"
    set_to = ", ".join(f"{k}={v:g}" for k, v in knobs.items())
    changes = f"{found.ups + found.downs:,} | {found.launches:,} | {found.busy_stops:,}"
    return f"| {name} | {set_to} | {found.gpu_hours:.0f}{missed} | {ratio} | {waits} | {found.within:.2%} | {changes} | {default} |"


def measure(scenario: Scenario, *, quick: bool, bound: bool) -> dict[str, float]:
    t = scenario.trace
    hours, work = (t.end_s - t.start_s) / 3600, t.service.sum() / 3600
    print(f"\n### {scenario.name}: {scenario.about}; fleet {scenario.base}..{scenario.maximum}")
    print(
        f"{hours:.1f} h, {len(t.arrivals):,} jobs, mean service {t.service.mean():.1f} s, work {work:.0f} GPU-h, base alone {hours * scenario.base:.0f} GPU-h, "
        f"cold start {scenario.cold_s:g} s; target {scenario.share:.0%} of waits <= {scenario.target_s:g} s"
    )
    limit = None
    if bound:
        began = time.perf_counter()
        limit = clairvoyant.bound(
            t.arrivals - t.start_s, t.service, base=scenario.base, maximum=scenario.maximum, cold_start_s=scenario.cold_s, target_s=scenario.target_s,
            target_share=scenario.share, until_s=t.end_s - t.start_s, step_s=30.0 if hours < 60 else 60.0, rounds=4 if quick else 7,
        )  # fmt: skip
        reached = f"{limit.achieved.gpu_hours:.1f} ({limit.achieved.within:.2%})" if limit.achieved else "none"
        print(f"clairvoyant: lower {limit.lower_hours:.1f}, achieved {reached} GPU-h ({clairvoyant.BACKLOGS} backlogs, {time.perf_counter() - began:.0f} s)")
    achieved = limit.achieved.gpu_hours if limit and limit.achieved else None
    print(
        "\n| policy | knobs | GPU-h | x clairvoyant | p50 / p95 / p99 wait s | <= target | changes | launches | busy stops | published default: GPU-h, <= target |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    result: dict[str, float] = {"achieved": achieved or math.nan, "lower": limit.lower_hours if limit else math.nan}
    for name, default, tried in rows(scenario, quick=quick):
        policy = {"seed rule (k tuned)": "threshold", "HPA utilisation": "hpa-utilisation", "HPA waiting/replica": "hpa-waiting", "KEDA queue (in flight)": "keda", "Knative KPA": "knative", "RunPod queue delay (idle tuned)": "runpod-delay", "RunPod request count": "runpod-requests", "request count (both tuned)": "request-count"}.get(name, "")  # fmt: skip
        knobs, found = best(list(tried), scenario.share)
        published = scenario.run(policy, default) if default is not None else None
        print(line(name, knobs, found, published, scenario, achieved), flush=True)
        result[name] = found.gpu_hours if found.within >= scenario.share or name == OURS else math.nan
        if name == OURS:
            result["within"], result["busy_stops"] = found.within, found.busy_stops
    return result


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--only", default="", help="names, comma separated: img, day, mm, small, large")
    asked.add_argument("--quick", action="store_true", help="fewer values of every knob")
    asked.add_argument("--without-bound", action="store_true", help="leave the clairvoyant bound out: it takes longest")
    asked.add_argument("--json", metavar="FILE", help="write the sums there")
    options = asked.parse_args()
    if not TRACES.is_dir():
        print("../shared/data/traces is not there: nothing to measure.")
        sys.exit(1 if os.environ.get("COMFYPLANE_REQUIRE_SHARED") == "1" else 0)
    wanted = [name for name in options.only.split(",") if name]
    results: dict[str, dict[str, float]] = {}
    for name, make in scenarios():
        if not wanted or name in wanted:
            results[name] = measure(make(), quick=options.quick, bound=not options.without_bound)
    for ours in (OURS, OURS_TUNED):
        print(f"\n### {ours.strip('*')}, against the others tuned in hindsight\n")
        print("| trace | <= target | x clairvoyant | x KEDA (best) | x KPA (best) | x request count (best) | x seed rule (best) | busy stops |")
        print("|---|---|---|---|---|---|---|---|")
        for name, found in results.items():

            def over(*others: str, cost: float = found[ours], found: dict[str, float] = found) -> str:
                costs = [found[o] for o in others if not math.isnan(found.get(o, math.nan))]
                return f"{cost / min(costs):.3f}" if costs else "missed"

            within = f"{found['within']:.2%}" if ours == OURS else "met" if not math.isnan(found[ours]) else "missed"
            cells = [within, over("achieved"), over("KEDA queue (in flight)", "KEDA (target + window tuned)"), over("Knative KPA", "KPA (util + delay tuned)"), over("request count (both tuned)"), over("seed rule (k tuned)", "seed rule (k + idle tuned)"), f"{found['busy_stops']:.0f}"]  # fmt: skip
            print(f"| {name} | " + " | ".join(cells) + " |")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
