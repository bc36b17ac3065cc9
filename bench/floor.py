"""What a floor moved by forecast saves on a real trace: worker hours and waits with a fixed base, with the forecast's floor, with hindsight.

The image trace (service times twice as long), 0 to 8 workers, cold start 90 s, 99 % of the waits at most 60 s. Every day at 00:00 a forecast is
made from what came before it, and its plan is the floor until the next. The policy above the floor is the default one with its defaults.

The last columns are the cheapest setting of the policy (its aim, its hold, learning or not; found in hindsight) that meets the target.

    python bench/floor.py [--policy wait-target] [--quick] [--traces ../shared/data/traces] [--json]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fleet.forecasting import floor as floors  # noqa: E402
from fleet.forecasting import make, series, trial  # noqa: E402
from fleet.forecasting.choice import Verdict  # noqa: E402
from fleet.simulation import Outcome, named, simulate  # noqa: E402

DAY = 86_400.0
MAXIMUM, COLD_S, TARGET_S, SHARE = 8, 90.0, 60.0, 0.99
BASE = 2
LIVE_FROM = 4
"""The service of the trace goes live on its fifth day."""
WINDOWS = ((LIVE_FROM + 7.0, 17.6), (12.6, 17.6), (float(LIVE_FROM), 9.0))
"""In days of the trace: all with a week of history, the last five days, and the five days of the published table (no week of history yet)."""
SETTINGS = [{"aim": aim, "hold_s": hold, "learn": learn} for learn in (0, 1) for hold in (0, 150, 300) for aim in (0.15, 0.2, 0.25, 0.3, 0.4, 0.5)]


def load(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with gzip.open(folder / "gentd26_image_requests.csv.gz", "rt") as stream:
        rows = sorted((float(row["t_s"]), 2 * float(row["service_s"])) for row in csv.DictReader(stream))
    table = np.array(rows)
    return table[:, 0], table[:, 1]


class Floor:
    """A floor per moment: each day's plan, made from what was known at its midnight."""

    def __init__(self, at: np.ndarray, service: np.ndarray, *, since: float, days: tuple[float, float], hindsight: bool, always: bool = False) -> None:
        self.plans: dict[int, tuple[int, ...]] = {}
        self.seconds: list[float] = []
        for day in range(int(days[0]), int(np.ceil(days[1]))):
            now = day * DAY
            known = (at < now) & (at >= since)
            terms = floors.Terms(0, BASE, MAXIMUM, TARGET_S, SHARE, COLD_S, float(service[known][-1000:].mean()) if known.any() else 30.0)
            if hindsight:
                coming = at[(at >= now) & (at < now + 2 * DAY)]
                jobs = np.bincount(((coming - now) // 3600).astype(int), minlength=48)[:48].astype(float)
                table, usable, sure = np.stack([jobs, jobs, jobs], axis=1), True, True
            else:
                begun = time.perf_counter()
                made = make(series.from_events(at[known], step_s=3600, start_s=since, until_s=now), horizon=48, target_share=SHARE)
                self.seconds.append(time.perf_counter() - begun)
                record = trial.tried(made.past, step_s=made.past_step_s, terms=terms, sure=made.usable)
                stands = day - 1 in self.plans and set(self.plans[day - 1]) != {BASE}
                verdict, sure = trial.judge(Verdict(made.usable), record, terms, stands=stands), made.usable
                table, usable = np.stack([made.p10, made.p50, made.p90], axis=1), verdict.usable or always
            drawn = floors.plan(table, step_s=3600, terms=terms).floors if usable else (BASE,) * 48
            self.plans[day] = tuple(trial.allowed(drawn, terms, sure=sure))
        self.fallen_back = sum(1 for plan in self.plans.values() if set(plan) == {BASE})

    def __call__(self, t_s: float) -> int:
        day = min(max(self.plans), max(min(self.plans), int(t_s // DAY)))
        found = floors.at(self.plans[day], into_s=t_s - day * DAY, step_s=3600, lead_s=COLD_S)
        return BASE if found is None else found


def cheapest(tried: list[Outcome]) -> Outcome | None:
    """The cheapest that meets the target; None when none does."""
    return min((one for one in tried if one.within >= SHARE), key=lambda one: one.gpu_hours, default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--traces", type=Path, default=ROOT.parent / "shared" / "data" / "traces")
    parser.add_argument("--policy", default="wait-target")
    parser.add_argument("--quick", action="store_true", help="leave the tuned settings out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not (options.traces / "gentd26_image_requests.csv.gz").exists():
        print("bench/floor.py: the traces are not here; nothing measured")
        return
    at, service = load(options.traces)
    rows = []
    for start, end in WINDOWS:
        inside = (at >= start * DAY) & (at < end * DAY)
        work = float(service[inside].sum() / 3600)

        def play(
            base: int, floor: Floor | None, knobs: dict[str, float] | None = None, start: float = start, end: float = end, inside: np.ndarray = inside
        ) -> Outcome:
            return simulate(
                at[inside], service[inside], policy=named.make(options.policy, knobs or {}), base=base, maximum=MAXIMUM, cold_start_s=COLD_S, target_s=TARGET_S,
                target_share=SHARE, floor=floor, start_s=start * DAY, until_s=end * DAY,
            )  # fmt: skip

        since = LIVE_FROM * DAY
        own = Floor(at, service, since=since, days=(start, end), hindsight=False)
        cases: list[tuple[str, int, Floor | None, str]] = [
            ("base fixed 2", 2, None, ""),
            ("base fixed 1", 1, None, ""),
            ("base fixed 0", 0, None, ""),
            ("forecast floor 0..", BASE, own, f"{own.fallen_back} of {len(own.plans)} days fell back to the base"),
        ]
        if own.fallen_back:
            cases.append(("forecast floor, never falling back", BASE, Floor(at, service, since=since, days=(start, end), hindsight=False, always=True), ""))
        cases.append(("plan with hindsight of every hour", BASE, Floor(at, service, since=since, days=(start, end), hindsight=True), ""))
        print(f"\ndays {start:g} to {end:g}: {int(inside.sum()):,} jobs, {work:.0f} worker hours of work; {options.policy}, at most {MAXIMUM}")
        print(
            f"{'floor':36s} {'GPU-h':>7s} {'in 120 h':>9s} {'per work':>9s} {'<= 60 s':>8s} {'p99 s':>6s} {'launches':>9s}  {'tuned, in 120 h':>15s} {'<= 60 s':>8s}"
        )
        for name, base, floor, note in cases:
            outcome = play(base, floor)
            tuned = None if options.quick else cheapest([play(base, floor, knobs) for knobs in SETTINGS])
            best = f"{tuned.gpu_hours * 120 / ((end - start) * 24):15.1f} {tuned.within:8.2%}" if tuned else f"{'':15s} {'':8s}"
            per5 = outcome.gpu_hours * 120 / ((end - start) * 24)
            print(
                f"{name:36s} {outcome.gpu_hours:7.1f} {per5:9.1f} {outcome.gpu_hours / work:9.2f} {outcome.within:8.2%} {outcome.wait_p99_s:6.0f} {outcome.launches:9d}  {best}  {note}"
            )
            rows.append({"days": [start, end], "floor": name, "gpu_hours": outcome.gpu_hours, "within": outcome.within, "launches": outcome.launches})
        print(f"a forecast took {np.median(own.seconds):.1f} s (median)")
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
