"""How well and how fast node classes find their packs, with the full public node lists.

    python bench/dependencies.py --lists PATH [--graphs FOLDER] [--repeat 3] [--postgres]

Every template of the conversion data and every canvas file of FOLDER is reported on twice: as it is, which is timed,
and with all pack ids taken out, which is compared with the ids it carried: exact (decided, and right), first (not decided, the right pack
is the first candidate), among (it is a later one), core, core_undecided, wrong (decided, and another pack), misleading (not decided, and
the right pack is not shown), missing (the lists name the pack but not the class), not_listed (the lists do not know the pack). Without --lists (or COMFYPLANE_NODE_LISTS)
nothing is measured. The database is a new SQLite file, a throw-away PostgreSQL with --postgres, or what DATABASE_URL names.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SHARED = Path(os.environ.get("COMFYPLANE_SHARED", ROOT.parent / "shared"))
DATA = SHARED / "data" / "comfyui"
TARGET_MS = 200
VERDICTS = ("exact", "first", "among", "core", "core_undecided", "wrong", "misleading", "missing", "not_listed")
IDS = ("cnr_id", "aux_id", "ver")


def graphs(folder: Path | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Set, name and canvas."""
    oracle = DATA / "conversion" / "oracle.jsonl.gz"
    for line in gzip.decompress(oracle.read_bytes()).splitlines():
        row = json.loads(line)
        yield "templates", row["name"], row["ui"]
    for path in sorted((DATA / "workflows").glob("*.ui.json")):
        yield "recorded", path.name, json.loads(path.read_text())
    for path in sorted(folder.glob("*.json")) if folder else ():
        yield folder.name, path.name, json.loads(path.read_text())


def sheets(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The canvas and every subgraph definition in it."""
    pending = [document]
    for one in pending:
        yield one
        pending += [inner for inner in (one.get("definitions") or {}).get("subgraphs") or () if isinstance(inner, dict)]


def stripped(document: dict[str, Any]) -> dict[str, Any]:
    """The canvas without any pack id."""
    bare = copy.deepcopy(document)
    for sheet in sheets(bare):
        for node in sheet.get("nodes") or ():
            for key in IDS:
                (node.get("properties") or {}).pop(key, None)
    return bare


def verdict(use: Any, carried: set[Any], known: set[str]) -> str:
    """How one class came out, against the ids its nodes carried; `known` are the packs that the lists name at all."""
    from builds.dependencies import spelling
    from builds.dependencies.report import AMBIGUOUS, CORE, MISSING, PINNED, RESOLVED

    packs = {one for one in carried if one.names_pack}
    if not packs:
        return "core" if use.status == CORE else "core_undecided" if use.status in (MISSING, AMBIGUOUS) else "wrong"

    def right(pack: Any) -> bool:
        own = {spelling.slug(pack.registry_id), spelling.name_of(pack.repository), spelling.slug(pack.title)}
        for one in packs:
            if one.repository and spelling.repository_key(one.repository) == spelling.repository_key(pack.repository):
                return True
            if one.registry_id and (spelling.slug(one.registry_id) in own or one.registry_id in known_ids(pack)):
                return True
        return False

    def known_ids(pack: Any) -> set[str]:
        from builds.models import Pack

        return set(Pack.objects.filter(key=pack.key).values_list("list_id", flat=True))

    if use.status in (RESOLVED, PINNED):
        return "exact" if right(use.pack) else "wrong"
    if use.status == AMBIGUOUS:
        if right(use.candidates[0].pack):
            return "first"
        return "among" if any(right(one.pack) for one in use.candidates) else "misleading"
    if use.status == CORE:
        return "wrong"
    return "missing" if any(spelling.slug(one.registry_id) in known or spelling.name_of(one.repository) in known for one in packs) else "not_listed"


def recovered(rows: list[tuple[str, str, dict[str, Any]]], *, library: Any) -> tuple[dict[str, Counter[str]], list[str]]:
    """For each set, how its classes came out without ids; and the classes that came out wrong."""
    from builds.dependencies import needs, of_graph
    from builds.models import Pack

    known = set(Pack.objects.values_list("slug", flat=True)) | set(Pack.objects.exclude(list_id="").values_list("list_id", flat=True))
    table: dict[str, Counter[str]] = {}
    notes = []
    for group, name, canvas in rows:
        carried = needs.of(graph=None, ui_graph=canvas, info=library.object_info)
        report = of_graph(graph=None, ui_graph=stripped(canvas), library=library)
        for use in report.classes:
            hints = set(carried.classes[use.name].hints)
            if use.status == "ui_only" or not (hints or (group == "recorded" and use.name in library.object_info)):
                continue
            said = verdict(use, hints, known)
            table.setdefault(group, Counter())[said] += 1
            if said in ("wrong", "misleading", "missing", "core_undecided"):
                packs = ", ".join(sorted({one.registry_id or one.repository for one in hints}))
                notes.append(f"  {said:>14}  {use.name} of {name[:60]}: carried {packs}; said {use.status} {use.pack.key if use.pack else ''}")
    return table, notes


def print_table(table: dict[str, Counter[str]]) -> None:
    print("classes with their pack ids taken out, against the ids they carried (each class once a graph):")
    print(f"{'set':>12} {'classes':>8} " + " ".join(f"{one:>14}" for one in VERDICTS))
    for group, counts in table.items():
        print(f"{group:>12} {sum(counts.values()):>8} " + " ".join(f"{counts[one]:>14}" for one in VERDICTS))
    whole: Counter[str] = Counter()
    for counts in table.values():
        whole += counts
    packs = sum(whole[one] for one in ("exact", "first", "among", "misleading", "missing", "not_listed")) + whole["wrong"]
    said = whole["exact"] + whole["wrong"]
    if packs:
        found = whole["exact"] + whole["first"] + whole["among"]
        print(
            f"pack classes: decided right {whole['exact']}/{packs}, right one first {whole['exact'] + whole['first']}/{packs}, right one shown {found}/{packs}"
        )
    if said:
        print(f"precision of what was decided: {whole['exact']}/{said}")
    core = whole["core"] + whole["core_undecided"]
    print(f"core recognised: {whole['core']}/{core}")


def timed(rows: list[tuple[str, str, dict[str, Any]]], *, library: Any, repeat: int) -> list[tuple[float, str]]:
    """Milliseconds of one report, best of `repeat`, for every graph."""
    from builds.dependencies import of_document

    found = []
    for _, name, canvas in rows:
        best = float("inf")
        for _ in range(repeat):
            started = time.perf_counter()
            of_document(document=canvas, library=library)
            best = min(best, time.perf_counter() - started)
        found.append((best * 1000, name))
    return sorted(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", default=os.environ.get("COMFYPLANE_NODE_LISTS", ""), help="folder, wheel or zip of the public node lists")
    parser.add_argument("--graphs", type=Path, help="a folder of canvas files that carry pack ids")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--postgres", action="store_true", help="on a throw-away PostgreSQL")
    chosen = parser.parse_args()
    if not chosen.lists or not Path(chosen.lists).exists() or not (DATA / "conversion").exists():
        print("dependencies: no node lists or no recorded templates here; name the lists with --lists or COMFYPLANE_NODE_LISTS")
        return 0
    if chosen.postgres:
        from bench.throwaway_postgres import cluster

        with cluster(durable=False) as url:
            os.environ["DATABASE_URL"] = url
            return prepared(chosen)
    return prepared(chosen)


def prepared(chosen: argparse.Namespace) -> int:
    """Measure with a folder of its own for what is written."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DATA_DIR"] = folder
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
        return measure(chosen)


def measure(chosen: argparse.Namespace) -> int:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection
    from django.utils import timezone

    from builds import libraries
    from builds.dependencies import importing, lists

    call_command("migrate", verbosity=0)
    now = timezone.now()
    started = time.perf_counter()
    importing.keep(lists.from_path(Path(chosen.lists)), source="bench", actor="bench", now=now)
    first = time.perf_counter() - started
    started = time.perf_counter()
    again = importing.keep(lists.from_path(Path(chosen.lists)), source="bench", actor="bench", now=now)
    print(
        f"{connection.vendor}: lists imported in {first:.2f} s, again in {time.perf_counter() - started:.2f} s ({'nothing' if again.nothing else 'something'} changed)"
    )
    info = json.loads(gzip.decompress((DATA / "object_info.json.gz").read_bytes()))
    libraries.store(name="ComfyUI of the templates", document=info, comfyui_version="0.8.0", current=True, now=now)
    library = libraries.current()
    rows = list(graphs(chosen.graphs))
    table, notes = recovered(rows, library=library)
    print("\n".join(notes), end="\n" if notes else "")
    print_table(table)
    times = timed(rows, library=library, repeat=chosen.repeat)
    middle = statistics.median(one for one, _ in times)
    worst, name = times[-1]
    print(
        f"one report: median {middle:.1f} ms, 95 % {times[int(len(times) * 0.95)][0]:.1f} ms, worst {worst:.1f} ms ({name}) over {len(times)} graphs (target: {TARGET_MS} ms)"
    )
    return 1 if worst > TARGET_MS or sum(counts["wrong"] for counts in table.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
