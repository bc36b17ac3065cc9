"""`python -m fleet.agent.store`: look at the store and act on it, in JSON, for whoever is on call."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fleet.agent import logs
from fleet.agent.store import holders, ranges, settings
from fleet.agent.store.failures import Misconfigured, StoreError
from fleet.agent.store.store import Store
from fleet.agent.store.wanted import Wanted, safe_path, sha256_of

CHUNK = 4 * 1024 * 1024


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m fleet.agent.store",
        description="The model store of this host. Answers in JSON; exit 1 when something is wrong with the store, 2 when the call is refused.",
        epilog=settings.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--store-dir", default="", help="the store (env COMFYPLANE_STORE_DIR)")
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("status", help="what is here, what is promised, what was counted since the store was made")
    fetch = commands.add_parser("fetch", help="have a file here")
    fetch.add_argument("url", nargs="+", metavar="URL", help="sources in order: https://, s3://bucket/key, hf://org/repo@revision/path, file:///path")
    fetch.add_argument("--sha256", required=True)
    fetch.add_argument("--size", type=int, metavar="BYTES", help="exact size, if known")
    fetch.add_argument("--name", default="", help="file name, default that of the address")
    fetch.add_argument("--pin", action="store_true", help="and never remove it")
    verify = commands.add_parser("verify", help="hash files again; damaged ones are removed and fetched anew when a job wants them")
    verify.add_argument("sha256", nargs="*", help="default: all")
    evict = commands.add_parser("evict", help="remove a file, or what was used longest ago")
    which = evict.add_mutually_exclusive_group(required=True)
    which.add_argument("sha256", nargs="?", help="file to remove")
    which.add_argument("--room", metavar="SIZE", help="remove until so much fits, e.g. 20GiB")
    for name, text in (("pin", "never remove these"), ("unpin", "these may go again")):
        commands.add_parser(name, help=text).add_argument("sha256", nargs="+")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    logs.configure("critical")  # what went wrong is in the answer
    try:
        chosen = settings.from_env(root=args.store_dir)
        if chosen is None:
            raise Misconfigured("No store is named.", "Set COMFYPLANE_STORE_DIR or give --store-dir.")
        if args.command != "fetch" and not (chosen.root / "ledger.sqlite3").exists():
            raise Misconfigured(f"There is no store in {chosen.root}.", "Name the directory that the workers use.", code="store_missing")
        with Store(chosen) as store:
            answer, code = COMMANDS[args.command](store, args)
    except StoreError as error:
        print(json.dumps({"error": error.body()}), file=sys.stderr)  # noqa: T201
        return 2
    print(json.dumps(answer, indent=2))  # noqa: T201
    return code


def status(store: Store, _: argparse.Namespace) -> tuple[dict[str, Any], int]:
    ledger, keeping = store.keeping.ledger, store.keeping
    pins: dict[str, int] = dict(ledger.ask("SELECT sha256, count(*) FROM pin GROUP BY sha256"))  # type: ignore[arg-type]
    rows = [
        {
            "sha256": row.sha256,
            "name": row.name,
            "state": "whole" if row.whole else "fetching" if holders.claimed(keeping.lock(row.sha256)) else "broken off",
            "size_bytes": row.size_bytes,
            "here_bytes": row.size_bytes if row.whole else ranges.total(row.done),
            "used_at": datetime.fromtimestamp(row.used_at, UTC).isoformat(timespec="seconds"),
            "pinned": row.kept,
            "in_use": pins.get(row.sha256, 0),
        }
        for row in ledger.files()
    ]
    figures = store.figures()
    here = {name: figures[name] for name in ("id", "cap_bytes", "used_bytes", "pinned_bytes", "partial_bytes")}
    counted = {name: round(value, 3) if name.endswith("_s") else int(value) for name, value in sorted(ledger.tallies().items())}
    return {"directory": str(keeping.root), **here, "counted": counted, "files": rows}, 0


def fetch(store: Store, args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    sha256 = sha256_of(args.sha256)
    name = args.name or unquote(urlsplit(args.url[0]).path.rsplit("/", 1)[-1]) or "model"
    one = Wanted(sha256, "models", safe_path(name, "filename"), args.size, tuple(args.url))
    path = store.ensure([one], job="by hand")[sha256]
    if args.pin:
        store.keeping.keep(sha256, kept=True)
    store.release("by hand")
    counts = store.counts
    return {
        "sha256": sha256,
        "path": str(path),
        "size_bytes": path.stat().st_size,
        "was_here": bool(counts.hits),
        "fetched_bytes": counts.fetched_bytes,
        "seconds": round(counts.fetched_s, 3),
    }, 0


def verify(store: Store, args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    asked = [sha256_of(text) for text in args.sha256]
    known = [row.sha256 for row in store.keeping.ledger.files() if row.whole]
    damaged, sound = [], []
    for sha256 in asked or known:
        path = store.keeping.whole(sha256)
        if sha256 in known and _digest(path) == sha256:
            sound.append(sha256)
        elif sha256 in known and store.keeping.ledger.file(sha256) is None:
            continue  # it made way meanwhile
        else:
            damaged.append(sha256)
            store.keeping.drop_damaged(sha256)
    return {"sound": sound, "damaged": damaged}, 1 if damaged else 0


def evict(store: Store, args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    if args.room is not None:
        store.keeping.make_room(settings.size_of(args.room, 0, "ROOM"))
    else:
        store.keeping.evict(sha256_of(args.sha256))
    return {"evictions": store.keeping.evictions, "evicted_bytes": store.keeping.evicted_bytes, "used_bytes": store.figures()["used_bytes"]}, 0


def pin(store: Store, args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    kept = args.command == "pin"
    known = {text: store.keeping.keep(sha256_of(text), kept=kept) for text in args.sha256}
    return {"pinned" if kept else "unpinned": [s for s, found in known.items() if found], "unknown": [s for s, found in known.items() if not found]}, int(
        not all(known.values())
    )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(CHUNK):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


COMMANDS = {"status": status, "fetch": fetch, "verify": verify, "evict": evict, "pin": pin, "unpin": pin}

if __name__ == "__main__":
    sys.exit(main())
