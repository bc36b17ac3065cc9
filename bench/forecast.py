"""The backtest of forecasts on the shared traces: per series the method chosen, its errors and how often its 80 % range held, and every candidate's.

Origins are spread over all hours of the day and everything at an origin, the choice of the method and the width of the range too, rests on what was
known then. MASE is scaled by "as a day before" within the history known at each origin, and once more by that of the first week; the error is also
given as a share of that of "same as last week" in the same days, which needs no scale.

    python bench/forecast.py [--traces ../shared/data/traces] [--every 6] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fleet.forecasting import Series, backtest, make, making, reading  # noqa: E402
from fleet.forecasting.candidates import LastWeek  # noqa: E402
from fleet.forecasting.making import walk  # noqa: E402

LONGEST_S = 5.0
COMMAND_S = 4.0
TIMES = 5
DAY = 86_400.0


def cases(folder: Path) -> list[tuple[str, Series]]:
    """The series that are long enough; the image requests from the day their service went live."""
    image = folder / "gentd26_image_requests.csv.gz"
    rates = str(folder / "servegen_rate_10min.csv.gz")
    found = [("image requests, hourly", reading.read(str(image), from_s=4 * DAY).series)]
    for column in ("m_small", "m_large"):
        found.append((f"{column}, hourly", reading.read(rates, column=column, step_s=3600).series))
        found.append((f"{column}, 10 min", reading.read(rates, column=column).series))
    return found


def command(values: np.ndarray) -> list[float]:
    """Seconds of `manage.py forecast` with its start, several times."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "series.csv"
        path.write_text("t_s,value\n" + "".join(f"{i * 3600},{v:g}\n" for i, v in enumerate(values)))
        took = []
        for _ in range(TIMES):
            begun = time.perf_counter()
            line = [sys.executable, "manage.py", "forecast", "--series", str(path), "--horizon", "24", "--json"]
            subprocess.run(line, cwd=ROOT, env={**os.environ, "DATA_DIR": folder}, check=True, stdout=subprocess.DEVNULL)
            took.append(time.perf_counter() - begun)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--traces", type=Path, default=ROOT.parent / "shared" / "data" / "traces")
    parser.add_argument("--every", type=int, default=6, metavar="H", help="hours between origins (default 6)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not (options.traces / "gentd26_image_requests.csv.gz").exists():
        print("bench/forecast.py: the traces are not here; nothing measured")
        return
    answer = []
    print("24 hours ahead; a week of history before the first origin where there is more, else what there is")
    print(f"{'series':24s} {'method':22s} {'MASE':>6s} {'week':>6s} {'WAPE':>6s} {'pinball':>8s} {'80 %':>6s} {'days':>5s} {'of last week':>13s}")
    for name, series in cases(options.traces):
        folds: list[backtest.Fold] = []
        held: list[tuple[float, int]] = []
        losses: list[float] = []
        rows: list[tuple[np.ndarray, np.ndarray, float]] = []
        methods: dict[str, int] = {}
        day = series.per_day
        for late in range(0, 24, options.every):
            part = Series(series.values[: len(series.values) - late * day // 24], series.step_s, series.start_s)
            own = backtest.run(part, steps=day)
            if not own:
                continue
            now, walked = walk(part, own, own[-1].made, target_share=0.99)
            methods[now.choice.name] = methods.get(now.choice.name, 0) + 1
            full = [f for f in own if f.origin >= 7 * day]
            folds += full if len(full) >= 2 else own
            held.append((walked.coverage, walked.errors.steps))
            losses.append(walked.pinball)
            rows.append((np.array([walked.errors.mae]), np.zeros(1), 0.0))
            last_week = backtest.errors(making.full(own, day), LastWeek.name, steps=day)
            of_week = walked.errors.mae / last_week.mae if last_week.folds == walked.errors.folds else None
            found = {"mase": walked.errors.mase, "wape": walked.errors.wape, "coverage": walked.coverage, "of_week": of_week}
            answer.append({"series": name, "late": late, **found})
        mine = [a for a in answer if a["series"] == name]
        first_week = backtest.day_scale(series.values[: 7 * day], day)
        maes = [row[0][0] for row in rows]
        coverage = sum(c * n for c, n in held) / sum(n for _, n in held)
        shares = [a["of_week"] for a in mine if a["of_week"] is not None]
        share = f"{np.mean(shares):.2f}" if shares else ""
        print(
            f"{name:24s} {max(methods, key=lambda m: methods[m]):22s} {np.mean([a['mase'] for a in mine]):6.3f} {np.mean(maes) / first_week:6.3f} "
            f"{np.mean([a['wape'] for a in mine]):6.3f} {np.mean(losses):8.3g} {coverage:6.1%} {len(folds):5d} {share:>13s}"
        )
        for kind in dict.fromkeys(n for f in folds for n in f.made):
            errors = backtest.errors(folds, kind, steps=day)
            print(f"{'':24s} {kind:22s} {errors.mase:6.3f} {errors.mae / first_week:6.3f} {errors.wape:6.3f} {'':8s} {'':6s} {errors.folds:5d}")
    print()
    hours = np.arange(60 * 24)
    busy = np.random.default_rng(7).poisson(50 * (1 + 0.8 * np.sin(2 * np.pi * hours / 24)) * np.where(hours // 24 % 7 >= 5, 0.4, 1.0)).astype(float)
    for name, series, horizon in (
        ("60 days hourly, a week ahead", Series(busy, 3600.0), 168),
        ("14 days of 10 min, a day ahead", Series(np.repeat(busy[:336], 6), 600.0), 144),
    ):
        make(Series(busy[:240], 3600.0), horizon=1)  # libraries loaded, as in a task process
        took, cpu = [], []
        for _ in range(TIMES):
            begun, worked = time.perf_counter(), time.process_time()
            make(series, horizon=horizon)
            took.append(time.perf_counter() - begun)
            cpu.append(time.process_time() - worked)
        least = min(took)
        print(f"forecast of one pool, {name}: {least:.2f} s ({min(cpu):.2f} s of processor), {least / LONGEST_S:.2f} of the {LONGEST_S:g} s allowed")
    runs = command(busy)
    print(
        f"manage.py forecast --horizon 24, 60 days hourly: {min(runs):.1f} s with its start (least of {TIMES}, {max(runs):.1f} the most; "
        f"load {os.getloadavg()[0]:.1f}), {min(runs) / COMMAND_S:.2f} of the {COMMAND_S:g} s aimed at"
    )
    if options.json:
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
