"""`manage.py emergency raise|fast|pause|shed|clear|end|list`: take, undo and list emergency measures."""

from __future__ import annotations

import getpass
import json
import re
from argparse import ArgumentParser
from typing import Any

from django.utils import timezone

from controlplane.kernel.commands import Refusing
from controlplane.kernel.errors import Invalid, NotFound
from fleet import emergencies, emergency_calls
from fleet.models import Pool

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LENGTH = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smhd]?)")


class Command(Refusing):
    help = "Emergency measures of a pool. Each ends by itself, and `end ID` undoes it. --dry-run says what a measure would do. Exits 2 when refused."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="raise|fast|pause|shed|clear|end|list")
        for kind, help_ in emergency_calls.WORDS.items():
            verb = verbs.add_parser(kind, help=help_.lower())
            verb.add_argument("pool", metavar="POOL")
            verb.add_argument("--reason", default="", help="kept in the audit log")
            verb.add_argument("--actor", default=f"manage.py by {getpass.getuser()}")
            verb.add_argument("--once", default="", metavar="TOKEN", help="said twice with the same token, it is done once")
            verb.add_argument("--dry-run", action="store_true", help="say what it would do, and do nothing")
            verb.add_argument("--json", action="store_true")
            _ADD[kind](verb)
        end = verbs.add_parser("end", help="undo a measure now")
        end.add_argument("measure", metavar="ID")
        end.add_argument("--reason", default="")
        end.add_argument("--actor", default=f"manage.py by {getpass.getuser()}")
        end.add_argument("--json", action="store_true")
        listed = verbs.add_parser("list", help="measures in force; with a pool, also those that are over")
        listed.add_argument("pool", metavar="POOL", nargs="?")
        listed.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        said = self._act(options)
        if options["json"]:
            self.stdout.write(json.dumps(said, indent=2))
            return
        for one in said if isinstance(said, list) else [said]:
            if "would" in one:
                self.stdout.write("\n".join(one["would"]))
            else:
                self.stdout.write(f"{one['id']}  {one['pool']}  {one['state']}  {one['said']}, until {one['expires_at']}, by {one['actor']}")

    def _act(self, options: dict[str, Any]) -> Any:
        verb, now = options["verb"], timezone.now()
        if verb == "end":
            ended = emergencies.end(emergencies.named(options["measure"]), actor=options["actor"], reason=options["reason"], now=now)
            return emergency_calls.shown(ended, now=now)
        if verb == "list":
            rows = emergencies.recent(_pool(options["pool"]), now=now) if options["pool"] else emergencies.active(now=now)
            return [emergency_calls.shown(row, now=now) for row in rows]
        pool = _pool(options["pool"])
        terms = {name: options[name] for name in emergency_calls.TERMS[verb] if options.get(name) not in (None, [])}
        if verb == "fast":
            terms["overrides"] = _overrides(options["set"] or [])
        if options["dry_run"]:
            would = emergency_calls.preview(pool, verb, terms, now=now)
            return {"dry_run": True, "would": would.lines, **would.figures}
        action = emergency_calls.take(pool, verb, terms, actor=options["actor"], reason=options["reason"], once=options["once"], now=now)
        return emergency_calls.shown(action, now=now)


def _length(verb: ArgumentParser) -> None:
    end = verb.add_mutually_exclusive_group(required=True)
    end.add_argument("--for", dest="for_s", type=_seconds, metavar="LENGTH", help="such as 90m, 4h or 1d; at most 7d")
    end.add_argument("--until", metavar="TIME", help="RFC 3339, such as 2026-03-02T06:00:00Z")


def _raise(verb: ArgumentParser) -> None:
    verb.add_argument("--base", type=int, metavar="N", help="workers kept meanwhile")
    verb.add_argument("--max", type=int, metavar="N", help="most workers meanwhile")
    _length(verb)


def _fast(verb: ArgumentParser) -> None:
    verb.add_argument("--workflow", required=True, metavar="SLUG")
    verb.add_argument("--version", type=int, metavar="N", help="the cheaper version")
    verb.add_argument("--set", action="append", metavar="NAME=VALUE", help="an input to set; VALUE is JSON or text")
    verb.add_argument("--force", action="append", metavar="NAME", help="set it even where a customer gave a value")
    verb.add_argument("--overflow", dest="overflow_s", type=_seconds, default=600.0, metavar="LENGTH", help="only jobs that would wait longer; 10m")
    verb.add_argument("--include-waiting", action="store_true", help="change jobs that wait already, too")
    _length(verb)


def _pause(verb: ArgumentParser) -> None:
    verb.add_argument("--class", dest="priority", required=True, metavar="CLASS", help="normal or low, with those behind it")
    _length(verb)


def _shed(verb: ArgumentParser) -> None:
    _pause(verb)
    verb.add_argument("--overflow", dest="overflow_s", type=_seconds, default=600.0, metavar="LENGTH", help="only while a job would wait longer; 10m")


def _clear(verb: ArgumentParser) -> None:
    verb.add_argument("--workflow", metavar="SLUG")
    verb.add_argument("--customer", metavar="SLUG")
    verb.add_argument("--class", dest="priority", metavar="CLASS", help="high, normal or low; this one only")
    verb.add_argument("--older-than", dest="older_than_s", type=_seconds, metavar="LENGTH")


_ADD = {"raise": _raise, "fast": _fast, "pause": _pause, "shed": _shed, "clear": _clear}


def _seconds(text: str) -> float:
    found = _LENGTH.fullmatch(text.strip())
    if found is None:
        raise ValueError(text)
    return float(found[1]) * _UNITS[found[2] or "s"]


def _overrides(pairs: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise Invalid("override_unreadable", f"--set {pair[:60]!r} is not NAME=VALUE.", "Write --set steps=12.")
        try:
            made[name.strip()] = json.loads(text)
        except ValueError:
            made[name.strip()] = text
    return made


def _pool(slug: str) -> Pool:
    found = Pool.objects.filter(slug=slug).first()
    if found is None:
        raise NotFound("pool_not_found", f"There is no pool called {slug[:60]!r}.", "Check its short name.")
    return found
