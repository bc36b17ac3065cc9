"""The lock document: one id for one content, whatever the order and whoever wrote it."""

from __future__ import annotations

import json

import lock_samples

from builds.locking import document


def test_the_order_of_lists_and_empty_fields_change_no_id() -> None:
    lock = lock_samples.example()
    shuffled = json.loads(json.dumps(lock))
    for part in ("packs", "python_packages", "models", "classes", "constraints"):
        shuffled[part].reverse()
    for pack in shuffled["packs"]:
        pack["classes"].reverse()
        for field in [name for name, value in pack.items() if value == ""]:
            del pack[field]
    assert document.sha256(shuffled) == document.sha256(lock)


def test_any_other_content_is_another_lock() -> None:
    lock = lock_samples.example()
    others = [
        lock_samples.example(classes=[*lock["classes"], "OneMore"]),
        lock_samples.example(comfyui={**lock["comfyui"], "commit": "0" * 40}),
        lock_samples.example(packs=lock["packs"][:1]),
        lock_samples.example(base_image={"reference": "debian:bookworm-slim", "digest": "sha256:" + "c" * 64}),
    ]
    assert len({document.sha256(one) for one in [lock, *others]}) == len(others) + 1


def test_the_file_reads_back_as_the_same_lock() -> None:
    lock = lock_samples.example()
    assert document.sha256(json.loads(document.text(lock))) == document.sha256(lock)
