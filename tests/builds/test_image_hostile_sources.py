"""Sources of images that are made to hurt: trees that stand for millions of files, archives that cannot be unpacked."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import zipfile
from pathlib import Path

import pytest

from builds.images import trees
from builds.locking import repositories
from builds.locking.sources import Sources
from controlplane.kernel.errors import Invalid


def git(where: Path, *words: str, given: str = "") -> str:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    return subprocess.run(["git", "-C", str(where), *words], capture_output=True, text=True, check=True, env=env, input=given).stdout.strip()


def test_a_tree_that_stands_for_millions_of_files_is_refused_in_little_memory(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    blob = git(tmp_path, "hash-object", "-w", "--stdin", given="x")
    tree = git(tmp_path, "mktree", given=f"100644 blob {blob}\tf\n")
    for _ in range(9):
        tree = git(tmp_path, "mktree", given="".join(f"040000 tree {tree}\td{number}\n" for number in range(10)))
    text = f"tree {tree}\nauthor t <t@t> 1 +0000\ncommitter t <t@t> 1700000000 +0000\n\nx\n"
    commit = git(tmp_path, "hash-object", "-t", "commit", "-w", "--stdin", given=text)
    found = repositories.open_tree(str(tmp_path), commit, sources=Sources(cache=tmp_path / "cache"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Invalid) as refused:
        next(trees.of_commit(found, name="bomb"))
    assert refused.value.code == "source_refused"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize("harm", ["encrypted", "method", "cut"])
def test_an_archive_that_cannot_be_unpacked_is_refused_by_name(harm: str) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("pack/__init__.py", "x" * 1000)
    data = bytearray(made.getvalue())
    local, central = data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02")
    if harm == "encrypted":
        data[local + 6] |= 1
        data[central + 8] |= 1
    elif harm == "method":
        data[local + 8] = data[central + 10] = 99
    else:
        data[local : local + 4] = b"XXXX"
    with pytest.raises(Invalid) as refused:
        list(trees.of_archive(bytes(data), name="pack"))
    assert refused.value.code == "source_refused"
    assert "pack" in refused.value.message


def test_big_files_are_fetched_for_the_build_under_the_rules_of_the_lock(tmp_path: Path) -> None:
    forge, other = (repositories.Tree(tmp_path, "a" * 40, None, where) for where in ("https://github.com/a/b", "https://example.com/a/b"))  # type: ignore[arg-type]
    assert "http.followRedirects=initial" in trees._git(forge, "ls-tree")
    assert "http.followRedirects=false" in trees._git(other, "ls-tree")
    assert "http.lowSpeedTime=30" in trees._git(other, "ls-tree")
