"""Node classes find their packs in a fixed order of trust, and what evidence cannot decide is shown, never guessed."""

from __future__ import annotations

from typing import Any

import pytest
from dependency_samples import facts, node, pack, wanted
from hypothesis import given
from hypothesis import strategies as st

from builds.dependencies import ranking, resolving
from builds.dependencies.known import Claim, Facts, PinFact
from builds.dependencies.report import AMBIGUOUS, CORE, MISSING, PINNED, RESOLVED, STATUSES, UI_ONLY, Report

ALPHA, BETA = pack("alpha", stars=900), pack("beta", stars=4)


def codes(report: Report) -> list[str]:
    return [one["code"] for one in report.findings]


def only(report: Report, name: str) -> Any:
    return next(one for one in report.classes if one.name == name)


def test_a_core_class_is_core_even_when_packs_claim_it_and_the_graph_names_one() -> None:
    claimed = facts(ALPHA, BETA, claims={"KSampler": [("alpha", "listed"), ("beta", "listed")]}, core=("KSampler",))
    report = resolving.resolve(wanted(node(1, "KSampler", cnr_id="comfyui-alpha")), claimed)
    assert only(report, "KSampler").status == CORE
    assert report.packs == ()
    assert codes(report) == ["pack_id_on_core_class"]


def test_the_pack_id_in_the_graph_goes_before_what_the_lists_say() -> None:
    report = resolving.resolve(
        wanted(node(1, "Shared", cnr_id="comfyui-beta", ver="1.2.0")), facts(ALPHA, BETA, claims={"Shared": [("alpha", "listed"), ("beta", "listed")]})
    )
    assert only(report, "Shared").status == RESOLVED
    assert report.packs[0].pack.as_json() == {
        "key": BETA.key,
        "registry_id": "comfyui-beta",
        "repository": BETA.repository,
        "version": "1.2.0",
    }


def test_a_pack_id_no_list_knows_stands_for_itself() -> None:
    report = resolving.resolve(wanted(node(1, "Odd", cnr_id="nobody-knows", ver="0.1.0")), facts())
    assert [(one.pack.key, one.pack.registry_id, one.pack.version) for one in report.packs] == [("cnr:nobody-knows", "nobody-knows", "0.1.0")]


def test_a_repository_in_the_graph_is_found_whatever_its_spelling() -> None:
    report = resolving.resolve(wanted(node(1, "Odd", aux_id="Alpha/ComfyUI-ALPHA", ver="9c1eaf4")), facts(ALPHA))
    assert [(one.pack.key, one.pack.version) for one in report.packs] == [(ALPHA.key, "9c1eaf4")]


def test_the_only_pack_that_claims_a_class_is_taken() -> None:
    report = resolving.resolve(wanted(node(1, "AlphaOne")), facts(ALPHA, claims={"AlphaOne": [("alpha", "listed")]}))
    assert only(report, "AlphaOne").status == RESOLVED
    assert report.packs[0].why == "It is the only pack that claims the class."


def test_two_equal_claims_are_shown_and_not_decided() -> None:
    report = resolving.resolve(wanted(node(1, "Shared")), facts(ALPHA, BETA, claims={"Shared": [("beta", "listed"), ("alpha", "listed")]}))
    use = only(report, "Shared")
    assert (use.status, use.pack, report.packs) == (AMBIGUOUS, None, ())
    assert [one.pack.key for one in use.candidates] == [ALPHA.key, BETA.key]
    assert all(one.evidence for one in use.candidates)
    assert codes(report) == ["pack_ambiguous"]


def test_what_the_rest_of_the_graph_needs_ranks_the_candidates() -> None:
    claims = {"Shared": [("alpha", "listed"), ("beta", "listed")], "BetaOne": [("beta", "listed")], "BetaTwo": [("beta", "listed")]}
    report = resolving.resolve(wanted(node(1, "Shared"), node(2, "BetaOne"), node(3, "BetaTwo")), facts(ALPHA, BETA, claims=claims))
    first = only(report, "Shared").candidates[0]
    assert first.pack.key == BETA.key
    assert any("2 of the 2 other classes" in one.sentence for one in first.evidence)


def test_a_pack_the_graph_names_at_other_nodes_decides() -> None:
    claims = {"Shared": [("alpha", "listed"), ("beta", "listed")], "BetaOne": [("beta", "listed")]}
    report = resolving.resolve(wanted(node(1, "Shared"), node(2, "BetaOne", cnr_id="comfyui-beta")), facts(ALPHA, BETA, claims=claims))
    assert (only(report, "Shared").status, only(report, "Shared").pack.key) == (RESOLVED, BETA.key)


def test_what_a_build_saw_decides_against_what_lists_say() -> None:
    report = resolving.resolve(wanted(node(1, "Shared")), facts(ALPHA, BETA, claims={"Shared": [("alpha", "listed"), ("beta", "built")]}))
    assert (only(report, "Shared").status, only(report, "Shared").pack.key) == (RESOLVED, BETA.key)


def test_a_name_pattern_alone_never_decides() -> None:
    report = resolving.resolve(wanted(node(1, "Thing (beta)")), facts(BETA, claims={"Thing (beta)": [("beta", "pattern")]}))
    assert only(report, "Thing (beta)").status == AMBIGUOUS


def test_a_class_of_a_newer_comfyui_is_core_and_the_target_is_named() -> None:
    report = resolving.resolve(wanted(node(1, "FutureCoreNode", cnr_id="comfy-core", ver="99.0.0")), facts())
    assert only(report, "FutureCoreNode").status == CORE
    assert codes(report) == ["core_class_not_in_target"]
    assert report.comfyui["saved_with"] == "99.0.0"


def test_a_class_nobody_knows_is_missing_with_a_way_out() -> None:
    report = resolving.resolve(wanted(node(7, "Nobody")), facts())
    assert only(report, "Nobody").status == MISSING
    assert (report.findings[0]["code"], report.findings[0]["node"]) == ("pack_unknown", "7")
    assert "manage.py pin" in report.findings[0]["suggestion"]


def test_without_lists_the_report_says_so_first() -> None:
    assert "node_lists_missing" in codes(resolving.resolve(wanted(node(1, "X", cnr_id="some-pack")), facts(lists=())))


@pytest.mark.parametrize(
    "kind",
    ["Note", "MarkdownNote", "PrimitiveNode", "Reroute", "GetNode", "SetNode", "Fast Groups Bypasser (rgthree)", "Label (rgthree)", "Anything Everywhere"],
)
def test_canvas_only_nodes_are_never_missing(kind: str) -> None:
    report = resolving.resolve(wanted(node(1, kind)), facts())
    assert (only(report, kind).status, report.findings, report.packs) == (UI_ONLY, (), ())


def test_a_subgraph_instance_is_followed_inside_whatever_its_id_says() -> None:
    uuid = "0b2c6a52-7f2e-4d0e-9e0a-5a4f7d6c1b2a"
    inner = {"id": uuid, "name": "Inside", "nodes": [node(3, "AlphaOne")], "links": []}
    report = resolving.resolve(
        wanted(node(7, uuid, cnr_id="comfy-core"), definitions={"subgraphs": [inner]}), facts(ALPHA, claims={"AlphaOne": [("alpha", "listed")]})
    )
    assert [(one.name, one.nodes) for one in report.classes] == [("AlphaOne", ("7:3",))]


def test_an_instance_without_its_definition_is_an_error_and_no_missing_pack() -> None:
    report = resolving.resolve(wanted(node(7, "0b2c6a52-7f2e-4d0e-9e0a-5a4f7d6c1b2a", cnr_id="comfy-core")), facts())
    assert (codes(report), report.classes) == (["subgraph_missing"], ())


def test_what_is_muted_or_bypassed_needs_no_pack() -> None:
    report = resolving.resolve(wanted(node(1, "AlphaOne", mode=2), node(2, "Nobody", mode=4)), facts(ALPHA, claims={"AlphaOne": [("alpha", "listed")]}))
    assert [one.asleep for one in report.classes] == [True, True]
    assert report.packs == ()
    assert [one["level"] for one in report.findings] == ["info"]


def test_versions_that_differ_are_told_and_the_newest_release_is_taken() -> None:
    report = resolving.resolve(wanted(node(1, "A", cnr_id="alpha", ver="1.9.0"), node(2, "A", cnr_id="alpha", ver="1.10.0")), facts())
    assert report.packs[0].pack.version == "1.10.0"
    assert codes(report) == ["pack_versions_differ"]


def test_words_that_fix_nothing_are_no_version() -> None:
    assert resolving.resolve(wanted(node(1, "A", cnr_id="alpha", ver="nightly")), facts()).packs[0].pack.version == ""


KINDS = ("listed", "built", "pattern", "installed")
NAMES = ("alpha", "beta", "gamma")
PACKS = tuple(pack(name, stars=stars, deprecated=name == "gamma") for name, stars in zip(NAMES, (900, 4, None), strict=True))
CLASSES = ("One", "Two", "Three")
claim_tables = st.dictionaries(st.sampled_from(CLASSES), st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(KINDS)), max_size=5), max_size=3)


def score(name: str, key: str, known: Facts) -> int:
    return next((one.score for one in ranking.rank(name, facts=known, around=ranking.surroundings(CLASSES, known)) if one.pack.key == key), 0)


@given(claims=claim_tables, more=st.tuples(st.sampled_from(NAMES), st.sampled_from(("built", "installed", "listed"))), preferred=st.booleans())
def test_more_evidence_for_a_pack_never_lowers_it(claims: dict[str, list[tuple[str, str]]], more: tuple[str, str], preferred: bool) -> None:
    before = facts(*PACKS, claims=claims)
    key = PACKS[NAMES.index(more[0])].key
    table = {**before.claims, "One": (*before.claims.get("One", ()), Claim(key, more[1], preferred))}
    # Deprecation speaks against any pack that is a candidate at all; what is added speaks for it.
    assert score("One", key, Facts(packs=before.packs, claims=table)) >= score("One", key, before)


@given(claims=claim_tables, pinned=st.sampled_from(NAMES), hinted=st.sampled_from(("", "comfyui-alpha", "unheard-of")))
def test_a_pin_always_wins(claims: dict[str, list[tuple[str, str]]], pinned: str, hinted: str) -> None:
    chosen = PACKS[NAMES.index(pinned)]
    known = facts(*PACKS, claims=claims, pins={"One": PinFact(chosen.key, "1.0.0", "we tested it", "ada", True)})
    use = only(resolving.resolve(wanted(node(1, "One", **({"cnr_id": hinted} if hinted else {}))), known), "One")
    assert (use.status, use.pack.key, use.pack.version) == (PINNED, chosen.key, "1.0.0")
    assert "we tested it" in use.why


@given(claims=claim_tables, core=st.sets(st.sampled_from(CLASSES)), hinted=st.sampled_from(("", "comfyui-alpha", "comfy-core")))
def test_a_core_class_is_never_missing_and_every_class_has_one_answer(claims: dict[str, list[tuple[str, str]]], core: set[str], hinted: str) -> None:
    nodes = [node(at, name, **({"cnr_id": hinted} if hinted else {})) for at, name in enumerate(CLASSES)]
    report = resolving.resolve(wanted(*nodes), facts(*PACKS, claims=claims, core=tuple(core)))
    assert [one.name for one in report.classes] == list(CLASSES)
    for use in report.classes:
        assert use.status in STATUSES
        if use.name in core:
            assert use.status == CORE
        assert (use.pack is not None) == (use.status in (RESOLVED, PINNED))
    needed = {name for one in report.packs for name in one.classes}
    assert needed == {one.name for one in report.classes if one.status in (RESOLVED, PINNED)}
