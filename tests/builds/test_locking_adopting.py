"""What a foreign lock decides for one workflow, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import lock_world

from builds.locking import adopting
from builds.locking.formats.parts import Parts
from builds.locking.sources import Target

TARGET = Target(constraints=("pillow==11.3.0",))
FRAMES = "https://github.com/People/Frames"


def adopt(parts: Parts, report: dict[str, Any], **wishes: bool) -> adopting.Adopted:
    return adopting.adopt(parts, report=report, target=TARGET, **wishes)


def codes(adopted: adopting.Adopted) -> set[str]:
    return {one["code"] for one in adopted.findings}


def entry(*, registry_id: str = "", repository: str = "", version: str = "") -> dict[str, str]:
    return {"registry_id": registry_id, "repository": repository, "version": version}


def test_versions_of_the_file_win_for_packs_the_workflow_needs() -> None:
    report = lock_world.report(
        lock_world.pack("https://github.com/people/frames", "1" * 40, classes=["A"]), lock_world.pack("", "", classes=["B"], registry_id="Tones")
    )
    parts = Parts("manager", comfyui="c" * 40, packs=[entry(repository=FRAMES, version="2" * 40), entry(registry_id="tones", version="1.2.0")])
    adopted = adopt(parts, report)
    assert [one["version"] for one in adopted.report["packs"]] == ["2" * 40, "1.2.0"]
    assert adopted.target.ref == "c" * 40 and report["packs"][0]["version"] == "1" * 40, "the report that was given is left as it is"


def test_packs_nobody_needs_are_named_and_come_along_only_when_asked() -> None:
    parts = Parts("manager", packs=[entry(registry_id="tones", version="1.2.0")])
    assert adopt(parts, lock_world.report()).report["packs"] == [] and "packs_not_needed" in codes(adopt(parts, lock_world.report()))
    (one,) = adopt(parts, lock_world.report(), all_packs=True).report["packs"]
    assert (one["key"], one["version"], one["classes"]) == ("cnr:tones", "1.2.0", [])


def _ambiguous() -> dict[str, Any]:
    report = lock_world.report()
    candidates = [lock_world.pack(FRAMES), lock_world.pack("https://github.com/other/frames")]
    report["classes"].append({"class": "Join", "nodes": ["3"], "status": "ambiguous", "pack": None, "candidates": candidates})
    return report


def test_the_one_candidate_that_the_file_has_settles_a_class() -> None:
    adopted = adopt(Parts("manager", packs=[entry(repository=FRAMES, version="2" * 40)]), _ambiguous())
    (one,) = adopted.report["packs"]
    assert (one["repository"], one["version"], one["classes"]) == (FRAMES, "2" * 40, ["Join"])
    assert adopted.report["classes"][-1]["status"] == "resolved" and "class_settled" in codes(adopted)


def test_two_candidates_in_the_file_settle_nothing() -> None:
    both = [entry(repository=FRAMES, version="2" * 40), entry(repository="https://github.com/other/frames", version="3" * 40)]
    adopted = adopt(Parts("manager", packs=both), _ambiguous())
    assert adopted.report["classes"][-1]["status"] == "ambiguous" and adopted.report["packs"] == []


def test_pins_bind_except_those_of_the_files_machine_and_of_the_settings() -> None:
    parts = Parts("manager", pins=["numpy==2.3.3", "torch==2.8.0+cu128", "nvidia-cublas-cu12==12.8.4.1", "pillow==10.0.0", "pip==25.0"])
    adopted = adopt(parts, lock_world.report())
    assert adopted.target.constraints == ("pillow==11.3.0", "numpy==2.3.3")
    assert "pins_of_the_machine" in codes(adopted)
    assert adopt(parts, lock_world.report(), pins=False).target.constraints == TARGET.constraints


def test_a_model_gets_the_hash_and_address_the_file_knows() -> None:
    report = lock_world.report(models=[{"name": "x.safetensors", "directory": "loras", "url": "", "sha256": "", "size_bytes": None, "node": "1"}])
    known = {"directory": "loras", "filename": "x.safetensors", "sha256": "d" * 64, "size_bytes": 7, "urls": ["https://m.example.org/x"], "licence": ""}
    unneeded = known | {"filename": "y.safetensors"}
    adopted = adopt(Parts("comfy-pack", models=[known, unneeded]), report)
    (model,) = adopted.report["models"]
    assert (model["sha256"], model["url"], model["size_bytes"]) == ("d" * 64, "https://m.example.org/x", 7)
    assert "models_not_needed" in codes(adopted)


def test_another_python_and_another_hash_are_said() -> None:
    report = lock_world.report(models=[{"name": "x.safetensors", "directory": "loras", "sha256": "e" * 64}])
    known = {"directory": "loras", "filename": "x.safetensors", "sha256": "d" * 64, "size_bytes": None, "urls": [], "licence": ""}
    adopted = adopt(Parts("comfy-pack", python="3.12.4", models=[known]), report)
    assert {"python_differs", "model_hash_differs"} <= codes(adopted)
    assert adopted.report["models"][0]["sha256"] == "d" * 64
