"""`manage.py plan --growth`: what growth needs, what each way to add capacity costs and holds, and when it runs out."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict, fields, replace
from typing import Any

from django.utils import timezone

from controlplane.kernel import money
from controlplane.kernel.commands import Refusing
from controlplane.kernel.errors import Invalid, NotFound
from fleet import growing
from fleet.models import Pool
from fleet.planning import business_days, growth, presets
from fleet.planning.growth import Case, Option
from fleet.planning.presets import Preset


class Command(Refusing):
    help = "Plan for growth from a preset or a pool's own figures. Money of --set in dollars. Refusals exit with 2."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--growth", action="store_true", required=True, help="a growth plan (the only kind there is)")
        start = parser.add_mutually_exclusive_group(required=True)
        start.add_argument("--preset", help=f"a case with a name: {', '.join(presets.PRESETS)}")
        start.add_argument("--pool", help="start from this pool's last seven days")
        parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=f"a figure: {', '.join(f.name for f in fields(Case))}")
        parser.add_argument(
            "--option", action="append", default=[], metavar="NAME:KIND:USD:WORKERS[:WORK[:ONCE_USD]]",
            help="an option in place of the preset's, e.g. Hybrid:hybrid:600:2:0.7; repeatable",
        )  # fmt: skip
        parser.add_argument("--no-waits", action="store_true", help="leave the simulated waits out")
        parser.add_argument("--json", action="store_true", help="print the whole plan as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        start = _start(options)
        case = _case(start.case, options["set"])
        ways = tuple(_option(text) for text in options["option"]) or start.options
        made = growth.plan(case, ways, simulate=None if options["no_waits"] else business_days.waits)
        if options["json"]:
            extra = {"assumed": list(start.assumed), "claims": [asdict(claim) for claim in start.claims]}
            self.stdout.write(json.dumps(made.as_json() | extra, indent=2))
            return
        for sentence in made.said:
            self.stdout.write(sentence)
        for result in made.results:
            first, last = result.months[0], result.months[-1]
            waits = f"  wait p95 {result.waits.p95_s:,.0f} s" if result.waits else ""
            held = f"{result.capacity / case.workers * 100:.0f}% of today"
            jobs = f"{money.display(first.job_microusd)} a job now, {money.display(last.job_microusd)} in month {last.month}"
            self.stdout.write(f"  {result.option.name:<12} +{money.display(result.option.monthly_microusd)} a month, holds {held}, {jobs}{waits}")
        for even in made.break_even:
            since = "never" if even.month is None else "from the start" if even.month == 0 else f"from month {even.month} on"
            self.stdout.write(f"  {even.cheaper} has cost less than {even.than} {since}.")
        for claim in start.claims:
            verdict = "" if claim.holds is None else " holds:" if claim.holds else " does not hold:"
            self.stdout.write(f"  {claim.what}: stated {claim.stated},{verdict} {claim.worked_out}. {claim.why}")


def _start(options: dict[str, Any]) -> Preset:
    if options["preset"] is not None:
        if options["preset"] not in presets.PRESETS:
            raise Invalid("preset_unknown", f"There is no preset {options['preset'][:60]!r}.", f"There are {', '.join(presets.PRESETS)}.")
        return presets.PRESETS[options["preset"]]
    pool = Pool.objects.filter(slug=options["pool"]).first()
    if pool is None:
        raise NotFound("pool_not_found", f"There is no pool called {options['pool'][:60]!r}.", "Check its name.")
    return growing.of_pool(pool, now=timezone.now())


def _case(case: Case, given: list[str]) -> Case:
    known = {f.name for f in fields(Case)}
    changes: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in known:
            raise Invalid("figure_unknown", f"There is no figure {name[:60]!r}.", f"There are {', '.join(sorted(known))}.")
        try:
            changes[name] = money.from_usd(value) if name.endswith("_microusd") else int(value) if name == "months" else float(value)
        except ValueError:
            raise Invalid("figure_invalid", f"{name} must be a number, not {value[:40]!r}.", "Correct it.") from None
    return replace(case, **changes)


def _option(text: str) -> Option:
    parts = text.split(":")
    try:
        name, kind, usd, workers, *rest = parts
        work, once = float(rest[0]) if rest else 1.0, money.from_usd(rest[1]) if len(rest) > 1 else 0
        made = Option(name, kind, money.from_usd(usd), float(workers), work, once)
    except (ValueError, IndexError):
        raise Invalid("option_invalid", f"{text[:80]!r} is no option.", "Write Name:kind:dollars:workers, such as Hybrid:hybrid:600:2:0.7.") from None
    if kind not in ("vertical", "horizontal", "hybrid") or len(rest) > 2:
        raise Invalid("option_invalid", f"{text[:80]!r} is no option.", "Its kind is vertical, horizontal or hybrid.")
    return made
