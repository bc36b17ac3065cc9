from __future__ import annotations

import stat
import threading
from pathlib import Path
from uuid import UUID

import pytest

from controlplane.kernel import ids
from controlplane.kernel.secretfile import read_or_create


def test_ids_are_uuid_version_7_and_sort_by_the_time_they_were_made() -> None:
    made = [ids.uuid7(ms) for ms in (1, 2, 1_700_000_000_000, 2**48 - 1)]
    assert made == sorted(made)
    assert all(one.version == 7 and one.variant == "specified in RFC 4122" for one in made)
    assert ids.uuid7(1_700_000_000_000).int >> 80 == 1_700_000_000_000


def test_ids_of_the_same_millisecond_differ() -> None:
    assert len({ids.uuid7(5) for _ in range(2000)}) == 2000


@pytest.mark.parametrize("text", [None, "", "x", 7, "0" * 31, [], "é" * 32, {"a": 1}])
def test_text_that_is_no_id_is_none(text: object) -> None:
    assert ids.parse_uuid(text) is None


def test_an_id_is_read_in_every_usual_spelling() -> None:
    one = ids.uuid7()
    assert ids.parse_uuid(str(one)) == ids.parse_uuid(one.hex) == ids.parse_uuid(one) == one == UUID(str(one))


def test_a_token_carries_its_prefix_and_enough_entropy() -> None:
    first, second = ids.token("cp_live_"), ids.token("cp_live_")
    assert first != second and first.startswith("cp_live_") and len(first) >= 8 + 43


def test_a_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "key"
    made = read_or_create(path)
    assert len(made) >= 60 and read_or_create(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["key"]


def test_processes_that_race_for_a_secret_all_get_the_same(tmp_path: Path) -> None:
    gate, got = threading.Barrier(8), set()

    def reach() -> None:
        gate.wait(10)
        got.add(read_or_create(tmp_path / "key"))

    threads = [threading.Thread(target=reach) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(got) == 1
