"""Requirement files line by line, conflicts of the resolver word by word, and pip's configuration for uv."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builds.locking import freeze, indexes, requirements
from builds.locking.requirements import Asked
from builds.locking.sources import Sources

COMMIT = "a" * 40


def read(text: str, **more: Any) -> tuple[list[str], list[tuple[str, str]]]:
    asked, found = requirements.read(text, asker="pack", file="requirements.txt", **more)
    return [one.text for one in asked], [(one["code"], one["field"]) for one in found]


def test_comments_continuations_hashes_and_marks_are_read_as_pip_does() -> None:
    text = "\ufeff# head\nnumpy >= 1.25 # why\n\nOpenCV_Python==4.10.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n"
    text += "torch[opt] ; python_version < '4'\r\nPillow#not-a-comment\n"
    asked, found = read(text)
    assert asked == ["numpy>=1.25", "OpenCV_Python==4.10.0", 'torch[opt]; python_version < "4"']
    assert found == [("requirement_unreadable", "requirements.txt:8")]


def test_included_files_are_read_where_they_lie_and_loops_end() -> None:
    files = {"more/extra.txt": "scipy\n-r deeper.txt\n", "more/deeper.txt": "einops\n", "loop.txt": "-r loop.txt\nkornia\n"}
    asked, found = read("-r more/extra.txt\n--requirement=loop.txt\n", include=files.get)
    assert asked[:2] == ["scipy", "einops"] and set(asked[2:]) == {"kornia"}
    assert {code for code, _ in found} == {"requirement_file_missing"}


@pytest.mark.parametrize(
    ("line", "hosts", "code"),
    [
        (f"git+https://github.com/a/lib.git@{COMMIT}", (), ""),
        (f"lib @ git+https://github.com/a/lib@{COMMIT}#subdirectory=x", (), ""),
        (f"lib @ git+https://10.0.0.7/a/lib@{COMMIT}", (), "requirement_host"),
        (f"lib @ git+https://git.house/a/lib@{COMMIT}", ("git.house",), ""),
        (f"lib @ git+https://me:secret@github.com/a/lib@{COMMIT}", (), "requirement_url"),
        (f"lib @ git+ssh://git@github.com/a/lib@{COMMIT}", (), "requirement_url"),
        ("lib @ git+https://github.com/a/lib@v1.0", (), "requirement_git_unpinned"),
        ("https://wheels.example.org/lib-1.0-py3-none-any.whl", ("wheels.example.org",), ""),
        ("https://wheels.example.org/lib-1.0-py3-none-any.whl", (), "requirement_host"),
        ("lib @ https://me:secret@wheels.example.org/lib-1.0-py3-none-any.whl", ("wheels.example.org",), "requirement_url"),
        ("https://wheels.example.org/", ("wheels.example.org",), "requirement_unreadable"),
        ("C:\\wheels\\lib.whl", (), "requirement_path"),
        ("~/lib", (), "requirement_path"),
        ("lib-1.0.tar.gz", (), "requirement_path"),
        ("-e git+https://github.com/a/lib.git#egg=lib", (), "requirement_editable"),
        ("-c constraints.txt", (), "requirement_constraint"),
        ("--pre", (), "requirement_option"),
        ("-f https://x.example.org/", (), "requirement_index"),
        ("--global-option=x", (), "requirement_unreadable"),
        ("import os; os.system('x')", (), "requirement_unreadable"),
        ("numpy>=1.25.*", (), "requirement_unreadable"),
    ],
)
def test_every_kind_of_line_is_taken_or_named(line: str, hosts: tuple[str, ...], code: str) -> None:
    asked, found = read(f"{line}\n", url_hosts=hosts)
    assert [one for one, _ in found] == ([code] if code else [])
    assert bool(asked) == (not code)


def test_a_file_that_never_ends_is_cut() -> None:
    asked, found = read("numpy\n" * 5_000)
    assert len(asked) == requirements.MAX_LINES and found[-1][0] == "requirements_too_long"


def test_a_pyproject_counts_by_its_dependencies() -> None:
    asked, found = requirements.read_pyproject('[project]\nname="x"\ndependencies = ["numpy>=1", "./here"]\n', asker="pack")
    assert [one.text for one in asked] == ["numpy>=1"] and [one["code"] for one in found] == ["requirement_path"]
    for broken in ("[project", "project = 1\n", '[project]\ndependencies = "numpy"\n' * 2):
        assert requirements.read_pyproject(broken, asker="pack")[1][0]["code"] == "pyproject_unreadable"
    assert requirements.version_in('[project]\nversion = "1.2.0"\n') == "1.2.0" and requirements.version_in("[") == requirements.version_in(None) == ""


FREEZE = """aiohttp==3.13.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via -r asker-001.in
numpy==2.3.3 ; python_full_version >= '3.11' \\
    --hash=sha256:cc
    # via
    #   -c constraints.txt
    #   -r asker-000.in
    #   torch
torch==2.8.0+cpu \\
    --hash=sha256:dd
    # via -r asker-001.in
lib @ git+https://github.com/a/lib@aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    # via -r asker-000.in
"""


def test_a_freeze_tells_hashes_askers_and_layers() -> None:
    found = {one["name"]: one for one in freeze.packages(freeze.read(FREEZE), {"asker-000.in": "pack", "asker-001.in": "comfyui"})}
    assert found["aiohttp"]["hashes"] == ["sha256:aa", "sha256:bb"] and found["numpy"]["marker"] == "python_full_version >= '3.11'"
    assert {name: one["layer"] for name, one in found.items()} == {"aiohttp": "comfyui", "numpy": "torch", "torch": "torch", "lib": "packs"}
    assert found["numpy"]["asked_by"] == ["pack"] and found["lib"]["url"].endswith("a" * 40) and found["lib"]["hashes"] == []


def asked(asker: str, text: str) -> Asked:
    return Asked(asker, "requirements.txt", 1, requirements.Requirement(text).name.lower(), text)


@pytest.mark.parametrize(
    ("said", "sides"),
    [
        ("Because you require numpy<1.26 and numpy>=2, we can conclude that your requirements are unsatisfiable.", {("a", "numpy<1.26"), ("b", "numpy>=2")}),
        (
            "Because numba==0.57.1 depends on numpy>=1.21,<1.25 and you require numba==0.57.1, we can conclude that you require numpy>=1.21,<1.25. "
            "And because you require numpy>=2, we can conclude that your requirements are unsatisfiable.",
            {("c", "numba==0.57.1"), ("b", "numpy>=2")},
        ),
        (
            "Because only numpy<=2 is available and numba>=1 depends on numpy>2, something unheard of.",
            {("a", "numpy<1.26"), ("b", "numpy>=2"), ("c", "numba==0.57.1")},
        ),
    ],
)
def test_a_conflict_is_told_by_who_asked(said: str, sides: set[tuple[str, str]]) -> None:
    listed = [asked("a", "numpy<1.26"), asked("b", "numpy>=2"), asked("c", "numba==0.57.1"), asked("d", "pillow")]
    found = freeze.conflict(said, listed)
    assert {(one.asker, one.text) for one in found.sides} == sides


def test_pips_configuration_is_uvs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*indexes._UV, "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "pip.conf"
    lines = ["[global]", "index-url = https://one.example.org/simple", "extra-index-url = https://two.example.org/simple", "  https://three.example.org/simple"]
    config.write_text("\n".join([*lines, "[install]", "find-links = /wheels", ""]))
    monkeypatch.setattr(indexes, "_pip_files", lambda: [config])
    assert indexes.arguments(Sources(cache=tmp_path)) == [
        *("--find-links", "/wheels", "--default-index", "https://one.example.org/simple"),
        *("--index", "https://two.example.org/simple", "--index", "https://three.example.org/simple", "--index-strategy", "unsafe-best-match"),
    ]
    assert indexes.arguments(Sources(cache=tmp_path, index="https://own.example.org/simple")) == ["--default-index", "https://own.example.org/simple"]
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example.org/simple")
    assert indexes.arguments(Sources(cache=tmp_path)) == []
