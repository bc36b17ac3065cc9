"""Forecast a demand series from a file, or a live pool's demand, and say how far to trust it."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from controlplane.kernel.commands import Refusing
from controlplane.kernel.errors import Invalid, NotFound

if TYPE_CHECKING:
    from fleet.forecasting import Made
    from fleet.forecasting.series import Series

HORIZON = 24
SHOWN = 48
"""Rows of the table for people; --json gives all."""


class Command(Refusing):
    help = (
        "Forecast a series (CSV of time and value, a rate grid, or one row an event; plain or gzip) or a pool. "
        "Exit code 2 and a JSON error when something cannot be read."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--series", metavar="CSV", help="t_s,value | t_s,several,columns | t_s,n | one row an event; - reads standard input")
        what.add_argument("--pool", metavar="SLUG", help="the jobs an hour of this pool")
        parser.add_argument("--horizon", type=int, default=HORIZON, metavar="N", help=f"steps ahead (default {HORIZON})")
        parser.add_argument("--column", default="", metavar="NAME", help="the column of values, where there are several")
        parser.add_argument("--step", type=float, metavar="S", help="seconds a step; default: the distance of the rows, of events an hour")
        parser.add_argument("--from", type=float, dest="from_s", metavar="S", help="leave out what came before this second of the file")
        parser.add_argument("--share", type=float, default=0.99, metavar="Q", help="the upper quantile shown beside the 80%% range (default 0.99)")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        answer = _pool(options, now=timezone.now()) if options["pool"] else _file(options)
        if options["json"]:
            self.stdout.write(json.dumps(answer, indent=2, allow_nan=False))
        else:
            self._print(answer)

    def _print(self, answer: dict[str, Any]) -> None:
        tested = answer["backtest"]
        self.stdout.write(f"{answer['series']}: {answer['steps']:,} steps of {answer['step_s']:g} s, {answer['history_days']:.1f} days count")
        self.stdout.write(f"method    {answer['method']}. {answer['chosen']}")
        self.stdout.write(f"usable    {'yes' if answer['usable'] else 'no'}. {answer['why']}".rstrip(". ") + ".")
        self.stdout.write(
            f"backtest  WAPE {_figure(tested['wape'])}, MASE {_figure(tested['mase'])}, 80% range held {_figure(tested['coverage'])}, "
            f"pinball {_figure(tested['pinball'])}, over {tested['folds']} days"
        )
        for row in tested["by_method"]:
            self.stdout.write(f"          {row['method']:22s} WAPE {_figure(row['wape'])}  MASE {_figure(row['mase'])}  {row['folds']} days")
        for alert in answer.get("alerts", []):
            self.stdout.write(f"alert     {alert['message']}")
        self.stdout.write(f"{'time':>20s} {'forecast':>12s} {'low 10%':>12s} {'high 10%':>12s} {answer['share']:>11.1%}")
        for row in answer["forecast"][:SHOWN]:
            when = row.get("at", f"{row['t_s']:.0f}")
            self.stdout.write(f"{when:>20s} {row['p50']:12.4g} {row['p10']:12.4g} {row['p90']:12.4g} {row['upper']:12.4g}")
        if len(answer["forecast"]) > SHOWN:
            self.stdout.write(f"… {len(answer['forecast']) - SHOWN:,} more; --json gives all.")


def _file(options: dict[str, Any]) -> dict[str, Any]:
    from fleet.forecasting import reading

    begun = time.perf_counter()
    found = reading.read(options["series"], column=options["column"], step_s=options["step"], from_s=options["from_s"])
    made = _made(found.series, options)
    start = datetime.fromtimestamp(made.start_s + found.epoch, UTC) if found.epoch is not None else None
    return {"series": options["series"], "column": found.column, "rows": found.rows, **_answer(found.series, made, start, options, begun=begun)}


def _pool(options: dict[str, Any], *, now: datetime) -> dict[str, Any]:
    from fleet import forecast_series, forecasts
    from fleet.models import Pool

    begun = time.perf_counter()
    pool = Pool.objects.filter(slug=options["pool"]).first()
    if pool is None:
        raise NotFound("pool_not_found", f"There is no pool {options['pool'][:60]!r}.", "The pools are listed on the fleet page.")
    if options["column"] or options["step"] is not None or options["from_s"] is not None:
        raise Invalid("options_together", "--column, --step and --from belong to --series.", "Leave them out: a pool is forecast by the hour.")
    hours = forecast_series.of(pool, now=now)
    made = _made(hours.series, options)
    published, floor = forecasts.published_error(pool, now=now), forecasts.floor(pool, now=now)
    answer = {"series": pool.slug, "column": "jobs an hour", **_answer(hours.series, made, forecast_series.hour_of(now), options, begun=begun)}
    answer["published_error"] = {"half_hour": published.half_hour, "two_hours": published.two_hours, "day": published.day, "words": published.words}
    answer["floor"] = {"workers": floor.workers, "why": floor.why, "usable": floor.usable}
    answer["alerts"] = [
        {"kind": a.kind, "at": a.at.isoformat(), "message": a.message, "raise_to": a.raise_to, "cost_microusd": a.cost_microusd}
        for a in forecasts.alerts(pool, now=now)
    ]
    return answer


def _made(series: Series, options: dict[str, Any]) -> Made:
    from fleet.forecasting import make

    try:
        return make(series, horizon=options["horizon"], target_share=options["share"])
    except ValueError as error:
        raise Invalid("forecast_invalid", f"{str(error)[:1].upper()}{str(error)[1:]}.", "See --help.") from None


def _answer(series: Series, made: Made, start: datetime | None, options: dict[str, Any], *, begun: float) -> dict[str, Any]:
    import numpy as np

    rows = []
    for i in range(len(made.p50)):
        row: dict[str, Any] = {"t_s": made.start_s + i * made.step_s}
        if start is not None:
            at = start + timedelta(seconds=i * made.step_s)
            row = {"t_s": at.timestamp(), "at": f"{at:%Y-%m-%dT%H:%M:%SZ}"}
        rows.append(row | {"p50": float(made.p50[i]), "p10": float(made.p10[i]), "p90": float(made.p90[i]), "upper": float(made.upper[i])})
    return {
        "step_s": made.step_s,
        "steps": len(series.values),
        "unknown_steps": int(np.isnan(series.values).sum()),
        "history_days": round(made.history_days, 4),
        "method": made.method,
        "chosen": made.chosen,
        "usable": made.usable,
        "why": made.why,
        "interval": 0.8,
        "share": options["share"],
        "backtest": made.report(),
        "forecast": rows,
        "seconds": round(time.perf_counter() - begun, 3),
    }


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
