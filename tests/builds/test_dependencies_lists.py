"""The public lists are imported whole, fast and again without effect; what is hostile in them is left out or refused."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dependency_samples import FILES, NODE_MAP, canvas, files, node
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from builds.dependencies import importing, kinship, lists, of_graph, patterns, pins, spelling
from builds.models import KnownModel, NodeList, Pack, PackClass, Pin
from controlplane.kernel.errors import Invalid, TooLarge, WorkflowError
from controlplane.kernel.models import AuditEntry


def keep(now: datetime, **changed: Any) -> importing.Changes:
    return importing.keep(lists.read(files(**changed)), source="test", actor="test", now=now)


@pytest.mark.django_db
def test_lists_are_imported_and_say_what_changed(now: datetime) -> None:
    changes = keep(now)
    assert (changes.packs_new, changes.classes_new, changes.models_new) == (4, 10, 4)
    alpha = Pack.objects.get(slug="comfyui-alpha")
    assert (alpha.title, alpha.author, alpha.list_id, alpha.stars, alpha.key) == ("Alpha nodes", "A", "alpha", 900, "https://github.com/alpha/comfyui-alpha")
    assert set(alpha.classes.values_list("class_name", flat=True)) == {"AlphaOne", "AlphaTwo", "Shared", "KSampler"}
    assert Pack.objects.get(slug="gamma").repository == "https://github.com/gamma/Gamma"
    assert set(NodeList.objects.values_list("kind", "entries")) == {("node_map", 10), ("pack_list", 2), ("model_list", 4)}
    assert AuditEntry.objects.filter(action="node_lists.import").count() == 1


@pytest.mark.django_db
def test_importing_the_same_again_changes_nothing_and_is_not_audited(now: datetime) -> None:
    keep(now)
    again = keep(now + timedelta(days=1))
    assert again.nothing
    assert NodeList.objects.count() == 3
    assert NodeList.objects.filter(imported_at=now + timedelta(days=1)).count() == 3
    assert AuditEntry.objects.filter(action="node_lists.import").count() == 1


@pytest.mark.django_db
def test_what_a_newer_list_no_longer_says_is_taken_back_but_not_what_a_build_saw_or_people_said(now: datetime) -> None:
    keep(now)
    alpha = Pack.objects.get(slug="comfyui-alpha")
    PackClass.objects.create(pack=alpha, class_name="AlphaOne", evidence="built")
    pins.place(class_name="AlphaTwo", pack=alpha.key, reason="ours", actor="ada", now=now)
    changes = keep(now, **{"extension-node-map.json": {key: value for key, value in NODE_MAP.items() if "Alpha" not in key}})
    assert changes.classes_gone == 4
    assert list(PackClass.objects.filter(pack=alpha).values_list("class_name", "evidence")) == [("AlphaOne", "built")]
    assert Pin.objects.get().pack == alpha


@pytest.mark.django_db
def test_one_list_alone_takes_nothing_from_the_others(now: datetime) -> None:
    keep(now)
    only = lists.from_bytes("custom-node-list.json", files()["custom-node-list.json"])
    assert importing.keep(only, source="x", actor="x", now=now).nothing
    assert PackClass.objects.count() == 10
    assert KnownModel.objects.count() == 4


@pytest.mark.django_db
def test_preferred_packs_decide(now: datetime) -> None:
    preferring = {"custom_nodes": [{"title": "Beta", "files": ["https://github.com/beta/comfyui-beta"], "reference": "", "preemptions": ["Shared"]}]}
    keep(now, **{"custom-node-list.json": preferring})
    use = of_graph(graph=None, ui_graph=canvas(node(1, "Shared"))).classes[0]
    assert (use.status, use.why) == ("resolved", "The list gives this pack precedence for the class.")


@pytest.mark.django_db
def test_a_core_class_by_the_list_is_no_pack_even_without_any_library(now: datetime) -> None:
    keep(now)
    report = of_graph(graph=None, ui_graph=canvas(node(1, "KSampler"), node(2, "Thing (beta)"), node(3, "AlphaOne")))
    assert {one.name: one.status for one in report.classes} == {"KSampler": "core", "Thing (beta)": "ambiguous", "AlphaOne": "resolved"}


@pytest.mark.django_db
def test_a_report_takes_a_handful_of_queries_however_large_the_graph(now: datetime) -> None:
    keep(now)

    def queries(count: int) -> int:
        drawn = canvas(*(node(at, f"AlphaOne{at}" if at else "Shared") for at in range(count)))
        of_graph(graph=None, ui_graph=drawn)
        with CaptureQueriesContext(connection) as seen:
            of_graph(graph=None, ui_graph=drawn)
        return len(seen)

    assert queries(700) == queries(3) <= 8


@pytest.mark.parametrize(
    "text",
    [
        *(
            "https://github.com/Alpha/ComfyUI-Alpha",
            "https://github.com/alpha/comfyui-alpha.git",
            "HTTPS://GitHub.com/Alpha/ComfyUI-Alpha/",
            "Alpha/ComfyUI-Alpha",
        ),
        *("git@github.com:Alpha/ComfyUI-Alpha.git", "git+https://github.com/Alpha/ComfyUI-Alpha", "https://user:secret@github.com/Alpha/ComfyUI-Alpha"),
        *(
            "https://github.com/Alpha/ComfyUI-Alpha/tree/main/nodes",
            "https://raw.githubusercontent.com/Alpha/ComfyUI-Alpha/main/x.py",
            "https://www.github.com/Alpha/ComfyUI-Alpha?x=1#y",
        ),
    ],
)
def test_one_repository_has_one_key_in_every_spelling(text: str) -> None:
    assert spelling.repository_key(spelling.repository(text)) == "https://github.com/alpha/comfyui-alpha"


@pytest.mark.parametrize(
    "text",
    [
        None,
        3,
        "",
        "alpha",
        "https://github.com/alpha",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "https://github.com/../..",
        "https://localhost/a/b",
        "https://x.com/a b",
        "h" * 400,
        "https://[::1",
        "https://github.com/a/.git",
    ],
)
def test_what_names_no_repository_is_none(text: Any) -> None:
    assert spelling.repository(text) == ""


def test_a_gist_is_a_repository_too() -> None:
    raw = "https://gist.githubusercontent.com/ada/7361b8eb966f29c8238fd323409efb68/raw/f9605be0/node.py"
    assert spelling.repository(raw) == "https://gist.github.com/ada/7361b8eb966f29c8238fd323409efb68"


@given(st.text(max_size=80))
def test_a_repository_in_its_one_spelling_stays_so(text: str) -> None:
    address = spelling.repository(text)
    assert spelling.repository(address) == address


@pytest.mark.parametrize(
    "pattern",
    [r" \(mtb\)$", "^ttN ", r"(Gallery-dl|Yt-dlp|Web.*Scraper)", r"^\[Comfy3D\]", r"(^(Prompts|Anything) Everywhere|Simple String)", "_jru$", r"^[A-Z]x?$"],
)
def test_patterns_of_the_public_lists_are_evaluated(pattern: str) -> None:
    assert patterns.safe(pattern) == pattern


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$",
        r"(a|a)*b",
        r"(.*)*",
        r"a**",
        r"(?=x)",
        r"(x)\1",
        r".*.*.*x",
        "x{1,9999}",
        "x{9}",
        "",
        ".*",
        "^",
        "a?",
        "x" * 201,
        "(",
        "[",
        3,
        None,
        r"(?:a+)+",
        r"(?P<n>a)",
        r"\Z",
        r"\b",
        "*x",
        "|x",
        "a\\",
    ],
)
def test_patterns_that_could_run_away_or_fit_everything_are_not(pattern: Any) -> None:
    assert patterns.safe(pattern) == ""


@given(st.text(alphabet="ab.*+?()[]|^$\\xdw", min_size=1, max_size=12))
def test_no_accepted_pattern_takes_long(pattern: str) -> None:
    ready = patterns.compiled(pattern)
    if ready is not None:
        started = time.process_time()
        patterns.fits(ready, "a" * 199 + "!")
        assert time.process_time() - started < 0.5


def test_packs_of_classes_that_begin_alike_are_likely_and_common_words_tell_nothing() -> None:
    table = kinship.index(
        [
            *((f"AILab_{word}", "rmbg") for word in ("A", "B", "C")),
            *((f"ImageThing{at}", "one") for at in range(9)),
            ("WanVideoX", "w"),
            ("WanVideoY", "w"),
            ("WanVideoZ", "v"),
        ]
    )
    assert kinship.likely("AILab_New", table) == "rmbg"
    assert kinship.likely("ImageOther", table) == ""
    assert kinship.likely("WanVideoNew", table) == ""
    assert kinship.likely("", table) == "" and kinship.likely("🤖 x", table) == ""


@pytest.mark.parametrize(
    "document",
    [
        *(b"", b"[]", b"{}", b"3", b"null", b"\xff\xfe", b"[" * 100_000, b'{"custom_nodes": []}', b'{"custom_nodes": {"a": 1}}'),
        *(b'{"https://github.com/a/b": "x"}', b'{"models": [3, null, {}]}', b'{"custom_nodes": [null, 3, {"files": "x"}, {"files": [null], "reference": 7}]}'),
    ],
)
def test_what_is_no_list_is_refused_with_a_reason(document: bytes) -> None:
    with pytest.raises(WorkflowError) as refused:
        lists.from_bytes("extension-node-map.json" if document.startswith(b'{"https') else "x.json", document)
    assert refused.value.suggestion


@pytest.mark.django_db
def test_hostile_entries_are_left_out_and_the_rest_is_kept(now: datetime) -> None:
    evil: dict[str, Any] = {
        "https://github.com/good/pack": [
            ["Good", "A" * 201, "NUL\x00", "\ud800", 3, None, ["x"]],
            {"title_aux": "T" * 9_999, "nodename_pattern": "(a+)+$", "preemptions": "x"},
        ],
        "javascript:alert(1)": [["Evil"], {}],
        "https://github.com/other/pack": [["Good"], "no table"],
        "https://github.com/broken/pack": "x",
    }
    web = "https://a.example.com/"
    models = {
        "models": [
            {"filename": "../../x.pt", "save_path": "loras", "url": f"{web}x"},
            {"filename": "ok.pt", "save_path": "../..", "url": f"{web}x"},
            {"filename": "f.pt", "save_path": "loras", "url": "file:///etc/passwd"},
            {"filename": "good.pt", "save_path": "models/clip", "url": f"{web}good.pt"},
        ]
    }
    changes = keep(now, **{"extension-node-map.json": evil, "custom-node-list.json": {"custom_nodes": []}, "model-list.json": models})
    assert set(PackClass.objects.values_list("class_name", flat=True)) == {"Good"}
    assert list(KnownModel.objects.values_list("filename", "directory")) == [("good.pt", "text_encoders")]
    assert sum(changes.left_out.values()) >= 10
    assert Pack.objects.get(slug="pack", repository__contains="good").patterns == []


def test_a_list_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_PACKS", 3)
    with pytest.raises(TooLarge):
        lists.read(files())
    monkeypatch.setattr(lists, "MAX_FILE_BYTES", 100)
    with pytest.raises(TooLarge):
        lists.read(files())


def archive(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return out.getvalue()


def test_a_wheel_is_read_wherever_the_lists_lie_in_it() -> None:
    packed = archive(**{f"comfyui_manager/{name}": data for name, data in files().items()}, **{"comfyui_manager/x.py": b"import os"})
    assert lists.from_bytes("comfyui_manager-4.whl", packed).kinds == {"node_map", "pack_list", "model_list", "stats"}


def test_a_zip_bomb_and_a_damaged_archive_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_FILE_BYTES", 1_000_000)
    with pytest.raises(TooLarge):
        lists.from_bytes("x.zip", archive(**{"extension-node-map.json": b" " * 5_000_000}))
    with pytest.raises(Invalid):
        lists.from_bytes("x.zip", archive(**{"extension-node-map.json": b"{}"})[:60])
    with pytest.raises(Invalid, match="no_node_lists"):
        lists.from_bytes("x.zip", archive(**{"readme.txt": b"hello"}))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def command(*args: str) -> Any:
        code = 0
        try:
            call_command("import_node_lists", *args, "--json")
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        return code, json.loads(capsys.readouterr().out)

    return command


@pytest.mark.django_db
def test_the_command_takes_a_folder_a_file_and_an_archive(run: Callable[..., Any], tmp_path: Path) -> None:
    inner = tmp_path / "site" / "comfyui_manager"
    inner.mkdir(parents=True)
    for name, data in files().items():
        (inner / name).write_bytes(data)
    (tmp_path / "lists.zip").write_bytes(archive(**files()))
    code, said = run(str(tmp_path / "site"))
    assert (code, said["packs_new"], said["changed"]) == (0, 4, True)
    for again in (str(tmp_path / "lists.zip"), str(inner / "model-list.json"), str(inner)):
        code, said = run(again)
        assert (code, said["changed"]) == (0, False), again


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("source", "code"),
    [("http://127.0.0.1:9/x.json", "address_refused"), ("http://169.254.169.254/x", "address_refused"), ("/does/not/exist", "file_unreadable")],
)
def test_the_command_refuses_with_a_code_and_exit_2(run: Callable[..., Any], source: str, code: str) -> None:
    assert [(status, said["error"]["code"]) for status, said in [run(source)]] == [(2, code)]
    assert not Pack.objects.exists()


def test_the_samples_cover_every_kind_of_list() -> None:
    assert set(FILES) == set(lists.NAMES)
