"""Play a trace of jobs against a pool and say what each policy would have cost, and how long its jobs would have waited."""

from __future__ import annotations

import json
import math
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from controlplane.kernel.commands import Refusing
from controlplane.kernel.errors import Invalid
from controlplane.kernel.money import MICRO
from fleet.sizing import policies

MOST_WORKERS = 100_000
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """A number of seconds; 90, 90s, 2m, 36h and 4d are understood."""
    unit = UNITS.get(text[-1:].lower())
    try:
        value = float(text[:-1] if unit else text) * (unit or 1.0)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no time; write 90, 90s, 2m, 36h or 4d") from None
    if not math.isfinite(value) or not 0 <= value <= 1e10:
        raise ArgumentTypeError(f"{text!r} must be zero or more")
    return value


class Command(Refusing):
    help = "Simulate a pool on a trace (CSV, plain or gzip). Exit code 2 and a JSON error when something cannot be read or is not possible."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--trace", metavar="CSV", help="t_s,service_s | t_s,n | t_s,qps; - reads standard input")
        parser.add_argument("--policy", action="append", metavar="NAME", help=f"may be given several times (default {policies.DEFAULT}); see --list-policies")
        parser.add_argument("--set", action="append", default=[], dest="knobs", metavar="[POLICY.]KNOB=VALUE", help="a knob of the policy")
        parser.add_argument("--base", type=int, default=0, metavar="N", help="fewest workers (default 0)")
        parser.add_argument("--max", type=int, default=8, metavar="N", help="most workers (default 8)")
        parser.add_argument("--cold-start", type=seconds, default=90.0, metavar="S", help="from the order of a worker to its first job (default 90)")
        parser.add_argument("--cold-start-sample", metavar="CSV", help="cold starts to draw from: a column seconds")
        parser.add_argument("--slo-wait", type=seconds, default=60.0, metavar="S", help="a job should start within this (default 60)")
        parser.add_argument("--slo-share", type=float, default=0.99, metavar="Q", help="share of the jobs that should (default 0.99)")
        parser.add_argument("--tick", type=seconds, default=15.0, metavar="S", help="between two decisions (default 15)")
        parser.add_argument("--price", type=float, default=0.0, metavar="USD", help="of a worker's hour")
        parser.add_argument("--shape", choices=["requests", "counts", "rates"], default="", help="what a row is, when its columns do not say")
        parser.add_argument("--column", default="", metavar="NAME", help="the column of rates or counts")
        parser.add_argument("--service-sample", metavar="CSV", help="service_s to draw from; with t_s, from about that moment")
        parser.add_argument("--service-mean", type=seconds, metavar="S", help="mean seconds of a job, when nothing is to be read")
        parser.add_argument("--service-cv2", type=float, default=1.0, metavar="X", help="its variance over the squared mean (default 1)")
        parser.add_argument("--service-scale", type=float, default=1.0, metavar="X", help="jobs take so many times as long")
        parser.add_argument("--rate-scale", type=float, default=1.0, metavar="X", help="so many times as many jobs (rates only)")
        parser.add_argument("--from", type=seconds, dest="from_s", metavar="S", help="begin here; 4d, 36h, 90m are understood")
        parser.add_argument("--until", type=seconds, dest="until_s", metavar="S", help="end here")
        parser.add_argument("--seed", type=int, default=0, metavar="N", help="of whatever is drawn (default 0)")
        parser.add_argument("--samples", metavar="FILE", help="write the workers and the queue of every tick there (CSV)")
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument("--progress", action="store_true", help="say on standard error how far it is")
        parser.add_argument("--list-policies", action="store_true", help="name the policies and their knobs, and stop")

    def handle(self, *args: Any, **options: Any) -> None:
        from fleet.simulation import named

        if options["list_policies"]:
            self._list(as_json=options["json"])
            return
        names = list(dict.fromkeys(options["policy"] or [policies.DEFAULT]))
        made = [(name, named.make(name, knobs)) for name, knobs in zip(names, _knobs(names, options["knobs"]), strict=True)]
        rows = self._run(made, options)
        if options["json"]:
            self.stdout.write(json.dumps(rows[0] if len(rows) == 1 else {"policies": rows}, indent=2))
        else:
            self._table(rows, options)

    def _run(self, made: Sequence[tuple[str, Any]], options: dict[str, Any]) -> list[dict[str, Any]]:
        from fleet.simulation import simulate, traces

        _check(options)
        cold: float | list[float] = options["cold_start"]
        if options["cold_start_sample"]:
            cold = traces.values(options["cold_start_sample"], "seconds").tolist()
        reading = traces.Reading(
            shape=options["shape"],
            column=options["column"],
            sample=traces.sample(options["service_sample"]) if options["service_sample"] else None,
            mean_s=options["service_mean"],
            cv2=options["service_cv2"],
            service_scale=options["service_scale"],
            rate_scale=options["rate_scale"],
            from_s=options["from_s"],
            until_s=options["until_s"],
            seed=options["seed"],
        )
        trace = traces.read(options["trace"], reading)
        rows = []
        for name, policy in made:
            outcome = simulate(
                trace.arrivals,
                trace.service,
                policy=policy,
                base=options["base"],
                maximum=options["max"],
                cold_start_s=cold,
                target_s=options["slo_wait"],
                target_share=options["slo_share"],
                tick_s=options["tick"],
                price_per_hour_microusd=round(options["price"] * MICRO),
                start_s=trace.start_s,
                until_s=trace.end_s,
                seed=options["seed"],
                progress=self._progress(name, trace) if options["progress"] else None,
            )
            knobs = {knob: getattr(policy, knob) for knob in policy.__dataclass_fields__ if isinstance(getattr(policy, knob, None), int | float)}
            met = outcome.within >= options["slo_share"]
            rows.append(
                {"policy": name, "knobs": knobs, "slo_wait_s": options["slo_wait"], "slo_share": options["slo_share"], "slo_met": met, **outcome.as_json()}
            )
            if options["samples"]:
                _write(options["samples"], name, outcome.samples, first=len(rows) == 1)
        return rows

    def _progress(self, name: str, trace: Any) -> Callable[[float], None]:
        length = max(1.0, trace.end_s - trace.start_s)

        def say(now: float) -> None:
            self.stderr.write(f"{name}: {min(1.0, (now - trace.start_s) / length):.0%}")

        return say

    def _list(self, *, as_json: bool) -> None:
        from fleet.simulation import named
        from fleet.simulation.peers import PEERS

        rows = [{"policy": name, "for_pools": name not in PEERS, "about": named.about(name), "knobs": named.defaults(name)} for name in named.ALL]
        if as_json:
            self.stdout.write(json.dumps({"policies": rows}, indent=2))
            return
        for row in rows:
            knobs = ", ".join(f"{knob}={value:g}" for knob, value in row["knobs"].items())  # type: ignore[attr-defined]
            self.stdout.write(f"{row['policy']:<16} {'' if row['for_pools'] else '(published rule, for comparison) '}{row['about']}\n{'':<16} {knobs}")

    def _table(self, rows: Sequence[dict[str, Any]], options: dict[str, Any]) -> None:
        first = rows[0]
        wait = options["slo_wait"]
        self.stdout.write(f"{first['jobs']:,} jobs in {first['hours']:.1f} h; {options['slo_share']:.4g} of them should start within {wait:g} s.")
        head = ["policy", "GPU-h", f"<= {wait:g} s", "p50", "p95", "p99 s", "ups", "downs", "launches", "peak", "busy stops"]
        priced = options["price"] > 0
        lines = [[*head, "USD"] if priced else head]
        for row in rows:
            line = [
                row["policy"],
                f"{row['gpu_hours']:,.1f}",
                f"{row['within']:.2%}" + ("" if row["slo_met"] else " missed"),
                *(f"{row[f'wait_{p}_s']:.0f}" for p in ("p50", "p95", "p99")),
                *(f"{row[k]:,}" for k in ("ups", "downs", "launches", "peak", "busy_stops")),
            ]
            lines.append([*line, f"{row['cost_microusd'] / MICRO:,.2f}"] if priced else line)
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        for line in lines:
            self.stdout.write("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))))
        for row in rows:
            if row["unserved"]:
                self.stdout.write(f"{row['policy']}: {row['unserved']:,} jobs never started.")


def _knobs(names: Sequence[str], said: Sequence[str]) -> list[dict[str, float]]:
    """The knobs of each policy. One without a policy's name is for every one of them that has it."""
    from fleet.simulation import named

    found: list[dict[str, float]] = [{} for _ in names]
    for one in said:
        path, equals, text = one.partition("=")
        policy, _, knob = path.rpartition(".")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not equals or not knob or not math.isfinite(value):
            raise Invalid("knob_invalid", f"{one[:80]!r} is no setting.", "Write --set knob=number, such as --set idle_s=60.")
        if policy and policy not in names:
            raise Invalid("policy_unknown", f"{policy[:60]!r} is not one of the simulated policies.", f"They are {', '.join(names)}.")
        having = [i for i, name in enumerate(names) if name == policy or (not policy and (name not in named.ALL or knob in named.defaults(name)))]
        for place in having or range(len(names)):  # nobody has it: the policy itself will say so
            found[place][knob] = value
    return found


def _check(options: dict[str, Any]) -> None:
    def refuse(field: str, message: str, suggestion: str) -> None:
        raise Invalid("argument_invalid", message, suggestion, details={"field": field})

    if not options["trace"]:
        refuse("trace", "No trace is named.", "Give --trace FILE, or - for standard input.")
    if not 0 <= options["base"] <= MOST_WORKERS:
        refuse("base", f"The base must lie between 0 and {MOST_WORKERS:,}, not at {options['base']:,}.", "It is the fewest workers.")
    if not 1 <= options["max"] <= MOST_WORKERS:
        refuse("max", f"The maximum must lie between 1 and {MOST_WORKERS:,}, not at {options['max']:,}.", "It is the most workers.")
    if options["max"] < options["base"]:
        refuse("max", f"The maximum of {options['max']:,} is below the base of {options['base']:,}.", "Raise --max or lower --base.")
    if not 0 < options["slo_share"] < 1:
        refuse("slo_share", f"A share lies between 0 and 1, not at {options['slo_share']:g}.", "Write 0.99 for 99%.")
    if options["tick"] < 0.1:
        refuse("tick", "A tick must be a tenth of a second at least.", "15 is usual.")
    if not 0 <= options["price"] <= 1e6:
        refuse("price", "A price cannot be negative.", "Give dollars an hour.")
    for field, least in (("service_scale", 1e-6), ("rate_scale", 1e-9), ("service_cv2", 0.0)):
        if not least <= options[field] <= 1e6:
            refuse(field, f"--{field.replace('_', '-')} must be above zero.", "1 changes nothing.")
    if options["seed"] < 0:
        refuse("seed", "A seed cannot be negative.", "Any whole number from 0 will do.")


def _write(name: str, policy: str, samples: Sequence[Any], *, first: bool) -> None:
    try:
        with Path(name).open("w" if first else "a", encoding="utf-8") as out:
            if first:
                out.write("policy,t_s,ready,coming,queue,wanted\n")
            out.writelines(f"{policy},{t:g},{ready},{coming},{queue},{wanted}\n" for t, ready, coming, queue, wanted in samples)
    except OSError as error:
        raise Invalid("file_unwritable", f"Cannot write {name[:200]}: {error.strerror}.", "Check the path given with --samples.") from None
