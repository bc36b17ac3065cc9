"""How exact and how fast canvas files become API graphs, against what the real web client made of the same files.

    python bench/conversion.py [--oracle FILE.jsonl.gz] [--object-info FILE] [--repeat 5]

Prints exact (class types and inputs identical, ids too), graph-equal (the same work: ids, unreachable nodes and
inputs the server does not declare do not count), different, and refused with its reason; then the time of one conversion.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import runpy
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from builds.conversion import Inexact, convert  # noqa: E402

SHARED = Path(os.environ.get("COMFYPLANE_SHARED", ROOT.parent / "shared"))
DATA = SHARED / "data" / "comfyui"
TARGET_MS = 20


def cases(oracle: Path) -> dict[str, tuple[Any, Any]]:
    """Name → canvas and what the client made of it."""
    found = {}
    for line in gzip.decompress(oracle.read_bytes()).splitlines():
        row = json.loads(line)
        found[row["name"]] = (row["ui"], row["api_frontend_1_58_1"])
    for path in sorted((DATA / "workflows").glob("*.ui.json")):
        expected = path.with_name(path.name.replace(".ui.json", ".expected-api.json" if path.name.startswith("ui_") else ".json"))
        found[path.name] = (json.loads(path.read_text()), json.loads(expected.read_text()))
    return found


def bare(graph: dict[str, Any]) -> dict[str, Any]:
    return {key: (node["class_type"], node["inputs"]) for key, node in graph.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", type=Path, default=DATA / "conversion" / "oracle.jsonl.gz")
    parser.add_argument("--object-info", type=Path, default=DATA / "object_info.json.gz")
    parser.add_argument("--repeat", type=int, default=5)
    chosen = parser.parse_args()
    if not chosen.oracle.exists():
        print(f"conversion: the recorded templates are not here ({chosen.oracle.name}); set COMFYPLANE_SHARED")
        return 0
    info = json.loads(gzip.decompress(chosen.object_info.read_bytes()))
    signature = runpy.run_path(str(SHARED / "tools" / "graph_equal.py"))["signature"]
    table: Counter[str] = Counter()
    notes, times, sizes = [], [], []
    for name, (canvas, expected) in cases(chosen.oracle).items():
        best = float("inf")
        graph = None
        for _ in range(chosen.repeat):
            started = time.perf_counter()
            try:
                graph = convert(canvas, info)
            except Inexact as refusal:
                reason = f"{refusal.code}: {refusal.message}"
            best = min(best, time.perf_counter() - started)
        times.append(best * 1000)
        if graph is None:
            table["refused"] += 1
            notes.append(f"  refused    {name}: {reason}")
            continue
        sizes.append(len(graph))
        if bare(graph) == bare(expected):
            table["exact"] += 1
        elif signature(graph, info) == signature(expected, info):
            table["graph-equal"] += 1
        else:
            table["different"] += 1
            notes.append(f"  different  {name}")
    print("\n".join(notes), end="\n" if notes else "")
    print(f"{'graphs':>12} {'exact':>8} {'graph-equal':>12} {'different':>10} {'refused':>8}")
    print(f"{sum(table.values()):>12} {table['exact']:>8} {table['graph-equal']:>12} {table['different']:>10} {table['refused']:>8}")
    times.sort()
    print(
        f"one conversion: median {statistics.median(times):.2f} ms, 95 % {times[int(len(times) * 0.95)]:.2f} ms, longest {times[-1]:.2f} ms (target: median {TARGET_MS} ms)"
    )
    print(f"nodes a graph: median {statistics.median(sizes):.0f}, most {max(sizes)}")
    return 1 if table["different"] or statistics.median(times) > TARGET_MS else 0


if __name__ == "__main__":
    sys.exit(main())
