"""`manage.py controller`: lead the control loops of every room. Start two; one works, the other takes over."""

from __future__ import annotations

import os
import signal
import socket
import threading
from importlib import import_module
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from controlplane.kernel import heartbeat, loops
from controlplane.kernel.ids import token

ROOMS = ("fleet",)  # each exports LOOPS in its loops.py


class Command(BaseCommand):
    help = (
        "Run the control loops: autoscaling, lease expiry, webhooks, rollups and so on. Every loop is led by one database row, so any number of "
        "controllers may run; one leads each loop and another takes over within seconds when it stops. SIGTERM and SIGINT end the running ticks, "
        "release the leads and exit."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="Tick each loop once, now, print its note and exit (1 when one failed).")
        parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="Run these loops only.")
        parser.add_argument("--list", action="store_true", help="Print every loop with its leader and age, and exit.")

    def handle(self, *args: Any, **options: Any) -> None:
        known = {loop.name: loop for room in ROOMS for loop in import_module(f"{room}.loops").LOOPS}
        if unknown := sorted(set(options["only"]) - set(known)):
            raise CommandError(f"No loop is named {', '.join(unknown)}. There are: {', '.join(sorted(known))}.")
        chosen = [loop for name, loop in known.items() if not options["only"] or name in options["only"]]
        if options["list"]:
            return self._list(chosen)
        holder = f"{socket.gethostname()[:60]}:{os.getpid()}:{token('', 4)}"
        if options["once"]:
            return self._once(chosen, holder)
        loops.forget(keep=known, now=timezone.now())
        stop = threading.Event()
        _stop_on_signals(stop)
        self.stderr.write(f"controller {holder}: {len(chosen)} loops")
        if not loops.run(chosen, stop=stop, holder=holder, clock=timezone.now, beat=heartbeat.beat):
            raise CommandError("A loop did not end in time; its lead ends with its lease.")
        return None

    def _once(self, chosen: list[loops.Loop], holder: str) -> None:
        failed = False
        for loop in chosen:
            try:
                note = loops.run_once(loop, holder=holder, clock=timezone.now)
            except RuntimeError as error:
                failed = True
                self.stderr.write(f"{loop.name}: failed\n{error}")
            else:
                self.stdout.write(f"{loop.name}: {note}")
        if failed:
            raise CommandError("At least one loop failed.")

    def _list(self, chosen: list[loops.Loop]) -> None:
        ages = {age.name: age for age in loops.ages(timezone.now())}
        for loop in chosen:
            age = ages.get(loop.name)
            if age is None or age.age_s is None:
                state = "never ran"
            else:
                state = f"{age.age_s:.1f} s ago, epoch {age.epoch}, led by {age.holder or 'nobody'}, {age.failures_in_a_row} failures in a row: {age.note}"
            self.stdout.write(f"{loop.name:24} every {loop.every_s:g} s  {state}")


def _stop_on_signals(stop: threading.Event) -> None:
    def asked(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise SystemExit(130)  # asked twice: do not wait for the ticks
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked)
