"""Requirement files written to hurt whoever reads them: each ends quickly, in findings."""

from __future__ import annotations

import time

import pytest

from builds.locking import requirements


@pytest.mark.parametrize(
    "text",
    ["a" + " " * 900_000 + "b", " " * 900_000 + "#", "a==1" + "\t" * 900_000 + "--hash", "a==1 \\\n" * 100_000, "a ; " + "(" * 1_900, "a[" + "b," * 400_000],
    ids=["blanks", "blanks-before-comment", "blanks-before-hash", "continued", "brackets", "extras"],
)
def test_a_hostile_line_is_refused_quickly(text: str) -> None:
    began = time.process_time()
    asked, found = requirements.read(text, asker="p", file="requirements.txt")
    assert time.process_time() - began < 2
    assert [one["level"] for one in found] == ["error"] or (not asked and not found) or len(asked) == 1


def test_files_that_include_each_other_are_each_read_once() -> None:
    read: list[str] = []

    def include(path: str) -> str:
        read.append(path)
        return "-r a.txt\n-r b.txt\nnumpy\n" * 300

    asked, found = requirements.read("-r a.txt\n" * 300, asker="p", file="requirements.txt", include=include)
    assert sorted(read) == ["a.txt", "b.txt"]
    assert {one.name for one in asked} == {"numpy"}
    assert {one["code"] for one in found} <= {"requirement_file_missing"}


def test_a_tree_of_many_requirement_files_is_refused_not_read_for_ever() -> None:
    read: list[str] = []

    def include(path: str) -> str:
        read.append(path)
        return "".join(f"-r {path[:-4]}{number}.txt\n" for number in range(100))

    _, found = requirements.read("-r a.txt", asker="p", file="requirements.txt", include=include)
    assert len(read) <= requirements.MAX_INCLUDED
    assert any(one["code"] == "requirement_file_missing" for one in found)


@pytest.mark.parametrize(
    "line",
    [
        "x @ https://wheels.example.com/x-1.0.whl\n--index-url=https://evil.example",
        "https://wheels.example.com/x-1.0.whl\n--index-url=https://evil.example",
        "https://wheels.example.com/x-1.0.whl --index-url https://evil.example",
        "x @ https://wheels.example.com/${UV_INDEX_PASSWORD}/x-1.0.whl",
        "x @ git+https://github.com/a/${UV_INDEX_PASSWORD}@" + "a" * 40,
        "git+https://github.com/a/${HOME}@" + "a" * 40 + "#egg=x",
    ],
)
def test_no_address_smuggles_an_option_or_reads_our_environment(line: str) -> None:
    text = f"[project]\nname = 'p'\ndependencies = [{line!r}]\n"
    asked, found = requirements.read_pyproject(text, asker="p", url_hosts=("wheels.example.com",))
    assert not asked
    assert [one["level"] for one in found] == ["error"]
    asked, found = requirements.read(line, asker="p", file="requirements.txt", url_hosts=("wheels.example.com",))
    assert not [one for one in asked if "${" in one.text or "index" in one.text]
