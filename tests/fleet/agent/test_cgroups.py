"""What an agent takes for its memory inside a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.agent import cgroups, preflight

MIB = 1024**2


def written(root: Path, version: int, limit: str, used: int, cached: int) -> Path:
    folder = root if version == 2 else root / "memory"
    folder.mkdir(exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    (folder / names[0]).write_text(limit + "\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{'inactive_file' if version == 2 else 'total_inactive_file'} {cached}\n")
    return root


@pytest.mark.parametrize("version", [1, 2])
def test_a_limit_counts_and_what_is_only_cached_is_free(tmp_path: Path, version: int) -> None:
    root = written(tmp_path, version, str(512 * MIB), 300 * MIB, 100 * MIB)
    assert cgroups.memory(root) == (512 * MIB, 312 * MIB)


def test_without_a_limit_there_is_none(tmp_path: Path) -> None:
    assert cgroups.memory(tmp_path) is None
    assert cgroups.memory(written(tmp_path, 2, "max", 1, 0)) is None
    (tmp_path / "memory.max").write_text("nonsense")
    assert cgroups.memory(tmp_path) is None


def test_a_worker_short_of_what_its_container_may_have_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "memory", lambda: (64 * MIB, 10 * MIB))
    found = preflight.usage(tmp_path)
    assert (found.ram_total_bytes, found.ram_free_bytes, found.ram_used_bytes) == (64 * MIB, 10 * MIB, 54 * MIB)
    assert preflight.shortages(found, min_free_disk_bytes=0, min_free_ram_bytes=20 * MIB) == ["ram"]
    monkeypatch.setattr(cgroups, "memory", lambda: (1 << 62, 1 << 62))
    assert preflight.usage(tmp_path).ram_total_bytes < 1 << 50, "version 1 writes a huge number for no limit"
