"""The recorded templates and graphs with their pack ids taken out, against the ids they carried; with the full public lists.

The lists come by COMFYPLANE_NODE_LISTS (a folder, wheel or zip; `pip download --no-deps comfyui-manager` fetches one).
Without them or the recordings the tests are skipped, or fail where COMFYPLANE_REQUIRE_NODE_LISTS=1 or COMFYPLANE_REQUIRE_SHARED=1.
"""

from __future__ import annotations

import gzip
import json
import os
import runpy
import statistics
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from builds import libraries
from builds.dependencies import importing, lists, of_graph
from builds.models import PackClass
from tests.contract.transcripts import shared

pytestmark = pytest.mark.django_db
BENCH = Path(__file__).resolve().parents[2] / "bench" / "dependencies.py"


@pytest.fixture
def bench(now: datetime) -> dict[str, Any]:
    """The benchmark's functions, with lists and node library imported."""
    place = Path(os.environ.get("COMFYPLANE_NODE_LISTS", ""))
    if not os.environ.get("COMFYPLANE_NODE_LISTS") or not place.exists():
        reason = "the public node lists are not here (set COMFYPLANE_NODE_LISTS)"
        pytest.fail(reason) if os.environ.get("COMFYPLANE_REQUIRE_NODE_LISTS") == "1" else pytest.skip(reason)
    info = json.loads(gzip.decompress(shared("object_info.json.gz").read_bytes()))
    shared("conversion", "oracle.jsonl.gz")
    importing.keep(lists.from_path(place), source=place.name, actor="test", now=now)
    libraries.store(name="ComfyUI of the templates", document=info, comfyui_version="0.8.0", current=True, now=now)
    return runpy.run_path(str(BENCH))


def test_every_class_is_recovered_without_its_pack_id_and_none_is_wrong(bench: dict[str, Any]) -> None:
    library = libraries.current()
    rows = list(bench["graphs"](None))
    table, notes = bench["recovered"](rows, library=library)
    bench["print_table"](table)
    assert sum(counts["wrong"] + counts["misleading"] for counts in table.values()) == 0, notes
    assert table["templates"]["core"] == table["templates"].total() > 1_000
    assert table["recorded"]["core"] == table["recorded"].total() > 50


def test_a_report_with_the_full_lists_is_fast(bench: dict[str, Any]) -> None:
    times = bench["timed"](list(bench["graphs"](None)), library=libraries.current(), repeat=3)
    assert statistics.median(one for one, _ in times) <= bench["TARGET_MS"]


def test_core_classes_that_packs_claim_are_core_all_the_same(bench: dict[str, Any]) -> None:
    library = libraries.current()
    assert library is not None
    claimed = set(PackClass.objects.filter(class_name__in=list(library.object_info)).values_list("class_name", flat=True))
    assert "KSampler" in claimed
    for target in (library, None):
        report = of_graph(
            graph={str(at): {"class_type": name, "inputs": {}} for at, name in enumerate(["KSampler", "CLIPTextEncode", "SaveImage"])}, library=target
        )
        assert {one.status for one in report.classes} == {"core"}, target


def test_well_known_packs_are_found_by_their_classes_alone(bench: dict[str, Any]) -> None:
    classes = {
        "FaceDetailer": "comfyui-impact-pack",
        "VHS_VideoCombine": "comfyui-videohelpersuite",
        "IPAdapterAdvanced": "comfyui-ipadapter-plus",
        "UnetLoaderGGUF": "comfyui-gguf",
        "WanVideoSampler": "comfyui-wanvideowrapper",
        "Context Switch (rgthree)": "rgthree-comfy",
    }
    report = of_graph(graph={str(at): {"class_type": name, "inputs": {}} for at, name in enumerate(classes)})
    best = {one.name: (one.pack or one.candidates[0].pack).repository.rpartition("/")[2].lower().replace("_", "-") for one in report.classes}
    assert best == classes


def test_every_model_a_template_links_is_reported_with_its_address_and_folder(now: datetime) -> None:
    info = json.loads(gzip.decompress(shared("object_info.json.gz").read_bytes()))
    library = libraries.store(name="ComfyUI of the templates", document=info, comfyui_version="0.8.0", current=True, now=now)
    references: dict[str, list[dict[str, Any]]] = {}
    for line in gzip.decompress(shared("conversion", "template_model_references.jsonl.gz").read_bytes()).splitlines():
        row = json.loads(line)
        references.setdefault(row["template"], []).append(row)
    lost, count = [], 0
    for line in gzip.decompress(shared("conversion", "oracle.jsonl.gz").read_bytes()).splitlines():
        case = json.loads(line)
        report = of_graph(graph=None, ui_graph=case["ui"], library=library)
        assert not {one["code"] for one in report.findings} & {"model_folder_unknown", "model_path_unsafe", "lora_base_mismatch"}
        found = {(one.name, one.directory): one.url for one in report.models}
        for row in references.get(case["name"], ()):
            count += 1
            if (row["name"], row["directory"]) not in found:
                lost.append((case["name"], row["name"], row["directory"]))
    assert count > 400
    assert lost == []
