"""How much memory this container may have. The machine's own figures say nothing of it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_VERSIONS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def memory(root: Path = ROOT) -> tuple[int, int] | None:
    """Bytes allowed and bytes free, as both versions of cgroups tell them; None where nothing is limited.

    What is only kept from files (inactive) counts as free: the kernel gives it up before it kills anybody.
    """
    for limit_file, used_file, stat_file, cached in _VERSIONS:
        try:
            limit, used = int((root / limit_file).read_text()), int((root / used_file).read_text())
            stat = dict(line.split(None, 1) for line in (root / stat_file).read_text().splitlines())
            return limit, max(0, limit - used + int(stat.get(cached, 0)))
        except (OSError, ValueError):  # another version, or "max": no limit
            continue
    return None
