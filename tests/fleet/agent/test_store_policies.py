"""The store's decisions, without disk or network: which bytes to ask for, what goes, which names and addresses are taken."""

from __future__ import annotations

import ipaddress
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.agent.store import answers, credentials, failures, ranges, settings, wanted
from fleet.agent.store.answers import Again, Changed
from fleet.agent.store.credentials import Secrets
from fleet.agent.store.eviction import BLOCK, Kept, room_of, victims
from fleet.agent.store.failures import Gone, Misconfigured, Refused, Unauthorized, Unreachable, WrongBytes
from fleet.agent.store.fetching import worst
from fleet.agent.store.reach import Reach, is_public, place_of
from fleet.agent.store.sources import hub_address
from fleet.agent.store.wanted import Wanted
from fleet.agent.store.wire import Target, redirected

SHA = "ab" * 32
SIZE = 500
spans = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=20)


def added(pairs: list[tuple[int, int]]) -> ranges.Spans:
    found: ranges.Spans = ()
    for start, end in pairs:
        found = ranges.add(found, start, end)
    return found


def bytes_of(found: ranges.Spans) -> set[int]:
    return {n for start, end in found for n in range(start, end)}


@given(spans)
def test_spans_hold_the_bytes_that_were_added_sorted_and_apart(pairs):
    found = added(pairs)
    assert bytes_of(found) == {n for start, end in pairs for n in range(start, end)}
    assert all(a[0] < a[1] < b[0] for a, b in itertools.pairwise(found))
    assert ranges.total(found) == len(bytes_of(found))


@given(spans, st.integers(1, 200))
def test_parts_are_the_missing_bytes_once_each_in_order_of_the_file(pairs, part_bytes):
    found = added(pairs)
    parts = ranges.parts(found, SIZE, part_bytes)
    assert bytes_of(tuple(parts)) == set(range(SIZE)) - bytes_of(found)
    assert sum(end - start for start, end in parts) == SIZE - len(bytes_of(found) & set(range(SIZE)))
    assert parts == sorted(parts) and all(0 < end - start <= part_bytes for start, end in parts)


@given(spans)
def test_the_frontier_is_the_first_byte_that_is_missing(pairs):
    found = added(pairs)
    assert ranges.frontier(found) == min(set(range(SIZE + 1)) - bytes_of(found))


@given(spans)
def test_spans_read_back_are_the_spans_written_down(pairs):
    found = added(pairs)
    assert ranges.tidied(json.loads(json.dumps(found)), SIZE) == found


files = st.lists(st.builds(Kept, st.uuids().map(str), st.integers(1, 40).map(lambda n: n * BLOCK), st.integers(0, 10), st.booleans()), max_size=12)
amounts = st.integers(0, 300).map(lambda n: n * BLOCK)


@given(files, amounts, amounts, amounts)
def test_victims_make_room_for_what_is_needed_and_are_never_pinned(kept, need, cap, free):
    chosen = victims(kept, need_bytes=need, cap_bytes=cap, disk_free_bytes=free)
    if chosen is None:
        pinned = sum(k.room_bytes for k in kept if k.pinned)
        loose = sum(k.room_bytes for k in kept if not k.pinned)
        assert pinned + need > cap or (need > 0 and need > free + loose)
        return
    gone = [k for k in kept if k.sha256 in chosen]
    left = [k for k in kept if k.sha256 not in chosen]
    assert not any(k.pinned for k in gone)
    assert sum(k.room_bytes for k in left) + need <= cap
    assert not need or need <= free + sum(k.room_bytes for k in gone)


@given(files, amounts, amounts)
def test_victims_are_those_used_longest_ago_and_no_more_than_needed(kept, need, cap):
    chosen = victims(kept, need_bytes=need, cap_bytes=cap, disk_free_bytes=10**15)
    if not chosen:
        return
    loose = sorted((k for k in kept if not k.pinned), key=lambda k: (k.turn, k.sha256))
    assert chosen == [k.sha256 for k in loose[: len(chosen)]]
    without_last = sum(k.room_bytes for k in kept) - sum(k.room_bytes for k in loose[: len(chosen) - 1])
    assert without_last + need > cap


@given(st.integers(0, 10**12))
def test_room_is_whole_blocks_and_never_less_than_the_file(size):
    assert room_of(size) >= max(size, 1) and room_of(size) % BLOCK == 0 and room_of(size) - size <= BLOCK


def entry(**changed):
    return {"directory": "loras", "filename": "style.safetensors", "sha256": SHA, "size_bytes": 5, "urls": ["https://a.example/x"], **changed}


@pytest.mark.parametrize(
    "name",
    [
        "../x.safetensors",
        "a/../../x.safetensors",
        "/etc/passwd",
        "a//b",
        "a/",
        "..",
        ".",
        ".hidden",
        "a/.ssh/x",
        "~root/x",
        "-rf",
        "a\\b.safetensors",
        "C:/x",
        "con",
        "NUL.safetensors",
        "com1.txt",
        "a/LPT9/x",
        "x\x00y",
        "x\ny",
        "x\u202egpj.safetensors",
        "x ",
        " x",
        "x.",
        "a/b/c/d/e/f/g.safetensors",
        "x" * 241,
        "ü" * 200,
        "",
        None,
        5,
        ["x"],
        "what?",
        "a|b",
        "\ud800",
    ],
)
@pytest.mark.parametrize("field", ["directory", "filename"])
def test_names_that_play_tricks_are_refused(field, name):
    with pytest.raises(Refused):
        wanted.parse([entry(**{field: name})])


@given(st.text(max_size=40))
def test_whatever_name_is_taken_stays_inside_its_folder(name):
    try:
        [one] = wanted.parse([entry(filename=name)])
    except Refused:
        return
    from pathlib import PurePosixPath

    parts = PurePosixPath("/m", one.directory, one.filename).parts
    assert parts[:3] == ("/", "m", "loras") and not {"..", "."} & set(parts) and "\\" not in name


@pytest.mark.parametrize(
    "broken",
    [
        entry(sha256="x"),
        entry(sha256=None),
        entry(sha256="AB" * 31),
        entry(size_bytes=-1),
        entry(size_bytes="5"),
        entry(size_bytes=True),
        entry(directory="custom_nodes"),
        entry(directory="Custom_Nodes/x"),
        entry(directory="configs"),
        "text",
        None,
    ],
)
def test_a_broken_entry_is_refused(broken):
    with pytest.raises(Refused):
        wanted.parse([broken])


def test_equal_entries_are_one_and_contradicting_ones_are_refused():
    assert len(wanted.parse([entry(), entry()])) == 1
    for other in (entry(sha256="cd" * 32), entry(filename="STYLE.safetensors")):
        with pytest.raises(Refused):
            wanted.parse([entry(), other])


def test_addresses_are_bounded_and_each_is_tried_once():
    [one] = wanted.parse([entry(urls=["https://a/1", "https://a/1", 5, "", "x" * 5000, *(f"https://a/{n}" for n in range(50))])])
    assert len(one.urls) == wanted.MAX_URLS and one.urls[:2] == ("https://a/1", "https://a/0")
    assert wanted.parse([entry(urls=None)])[0].urls == () and wanted.parse([entry(urls="https://a/1")])[0].urls == ()


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.169.254", "168.63.129.16", "0.0.0.0", "100.64.0.1", "::1", "fe80::1", "fd00::1", "ff02::1", 
     "::ffff:10.0.0.1", "2002:0a00:0001::", "64:ff9b::a00:1", "224.0.0.1", "240.0.0.1"],
)  # fmt: skip
def test_private_addresses_are_no_place_for_a_model(address):
    assert not is_public(ipaddress.ip_address(address))
    reach = Reach(["*"], resolve=lambda host, port: ["93.184.216.34", address])
    with pytest.raises(Refused):
        reach.addresses(reach.check("https://models.example/x"))


def test_a_public_address_is():
    reach = Reach(["*"], resolve=lambda host, port: ["93.184.216.34", "2606:2800:220:1::1"])
    assert reach.addresses(reach.check("https://models.example/x")) == ["93.184.216.34", "2606:2800:220:1::1"]


def test_a_host_the_operator_named_may_be_private_and_plain_when_the_rule_says_so():
    reach = Reach(["*.lan", "http://10.0.0.5:9000", "exact.example"], resolve=lambda host, port: ["10.0.0.5"])
    assert reach.addresses(reach.check("http://10.0.0.5:9000/x")) == ["10.0.0.5"]
    assert reach.check("https://models.lan/x").named and reach.check("https://exact.example/x").named
    for url in ("http://10.0.0.5:9001/x", "http://models.lan/x", "https://other.example/x", "https://evil-lan/x", "https://exact.example.evil/x"):
        with pytest.raises(Refused):
            reach.check(url)


@pytest.mark.parametrize(
    "url",
    ["ftp://a/x", "https://", "https:///x", "https://user:pass@a.example/x", "https://a.example:0/x", "https://a.example:99999/x", "https://a b/x", "https://a\n/x",
     "javascript:alert(1)", "gopher://a/x", "https://[::1/x", "//a/x", "x"],
)  # fmt: skip
def test_addresses_that_are_none_are_refused(url):
    with pytest.raises(Refused):
        place_of(url)


def test_an_address_is_shown_without_its_query_and_kept_whole():
    place = place_of("https://Models.Example:443/ä b/x?token=secret".replace(" ", "%20"))
    assert (place.shown, place.origin) == ("https://models.example/%C3%A4%20b/x", ("https", "models.example", 443))
    assert place.target.endswith("?token=secret")


@pytest.mark.parametrize(
    ("location", "kept"),
    [
        ("/other", True),
        ("https://a.example/other", True),
        ("https://a.example:444/x", False),
        ("https://b.example/x", False),
        ("https://sub.a.example/x", False),
    ],
)
def test_a_credential_stays_with_its_origin(location, kept):
    to = redirected(Target("https://a.example/x", {"Authorization": "Bearer s"}), place_of("https://a.example/x"), location)
    assert bool(to.private) is kept


@pytest.mark.parametrize("location", ["http://a.example/x", "file:///etc/passwd", "ftp://a.example/"])
def test_nothing_is_followed_from_https_to_anything_else(location):
    with pytest.raises(Refused):
        redirected(Target("https://a.example/x"), place_of("https://a.example/x"), location)


SECRETS = [
    {"url": "https://hub.example/org/private/**", "type": "bearer", "token": {"env": "TOKEN"}},
    {"url": "https://hub.example/*/file", "type": "basic", "username": "u", "password": "p"},
    {"url": "https://*.cdn.example/**", "type": "header", "name": "X-Key", "value": "k"},
    {"url": "https://q.example", "type": "query", "name": "token", "value": "t"},
]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://hub.example/org/private/a/b", "bearer"),
        ("https://hub.example/org/file?x=1", "basic"),
        ("https://hub.example/org/more/file", None),
        ("https://a.cdn.example/x", "header"),
        ("https://cdn.example/x", None),
        ("https://evil.example/?.cdn.example/x", None),
        ("https://evil.example#.cdn.example/", None),
        ("http://hub.example/org/private/a", None),
        ("https://hub.example:8443/org/private/a", None),
        ("https://hub.example.evil/org/private/a", None),
        ("https://q.example/any/thing", "query"),
    ],
)
def test_the_first_matching_credential_counts_and_none_leaves_its_host(url, kind):
    found = Secrets(SECRETS, {"TOKEN": "s3cret"}).of(url)
    assert (found.kind if found else None) == kind
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize("url", ["**", "https://**", "https://*/x", "https://*", "https://a*.example/x", "*://a.example/", "a.example/x"])
def test_a_pattern_that_could_match_any_host_is_refused(url):
    with pytest.raises(Misconfigured):
        Secrets([{"url": url, "type": "bearer", "token": "t"}])


def test_a_secret_that_cannot_be_read_is_told_without_its_value(tmp_path):
    for token in ({"env": "NOT_SET"}, {"file": str(tmp_path / "none")}, "two\nlines", "", 5):
        with pytest.raises(Misconfigured) as error:
            Secrets([{"url": "https://a.example/**", "type": "bearer", "token": token}], {}).of("https://a.example/x")
        assert "two" not in error.value.message
    (tmp_path / "broken.json").write_text('{"secrets": [{"token": "hunter2"')
    with pytest.raises(Misconfigured) as error:
        credentials.load(tmp_path / "broken.json")
    assert "hunter2" not in error.value.message


def test_secrets_are_read_from_json_and_toml(tmp_path):
    (tmp_path / "s.toml").write_text('[[secrets]]\nurl = "https://a.example/**"\ntype = "bearer"\ntoken = "t"\n')
    (tmp_path / "s.json").write_text(json.dumps({"secrets": [{"url": "https://a.example/**", "type": "bearer", "token": "t"}]}))
    for name in ("s.toml", "s.json"):
        found = credentials.load(tmp_path / name).of("https://a.example/x")
        assert found is not None and found.headers() == {"Authorization": "Bearer t"}


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("hf://org/repo@v1.0/a/b.safetensors", "https://hub/org/repo/resolve/v1.0/a/b.safetensors"),
        ("hf://org/repo/b.safetensors", "https://hub/org/repo/resolve/main/b.safetensors"),
        ("hf://org/repo@refs%2Fpr%2F1/b c.safetensors", "https://hub/org/repo/resolve/refs%2Fpr%2F1/b%20c.safetensors"),
    ],
)
def test_hub_addresses_are_resolve_addresses(url, address):
    assert hub_address(url, "https://hub") == address


@pytest.mark.parametrize("url", ["hf://org", "hf://org/repo", "hf://org/repo/../../x", "hf:///x"])
def test_a_hub_address_without_a_file_is_refused(url):
    with pytest.raises(Refused):
        hub_address(url, "https://hub")


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (404, {}, Gone), (410, {}, Gone), (401, {}, Unauthorized), (403, {}, Unauthorized), (429, {}, Again), (503, {}, Again), (416, {}, Changed),
        (206, {}, Again), (206, {"Content-Range": "bytes 0-1/*"}, Again), (200, {"Content-Encoding": "gzip"}, Refused), (418, {}, failures.StoreError),
    ],
)  # fmt: skip
def test_an_answer_means_what_its_status_says(status, headers, kind):
    with pytest.raises(kind):
        answers.offer(status, headers, "https://a")


def test_only_a_strong_validator_is_used():
    assert answers.validator({"ETag": '"x"', "Last-Modified": "d"}) == '"x"'
    assert answers.validator({"ETag": 'W/"x"', "Last-Modified": "d"}) == "d"
    assert answers.validator({"ETag": 'W/"x"'}) == ""


def test_a_server_may_ask_for_patience_but_not_for_ever():
    waits = []
    for value in ("3", "99999", "tomorrow", "-1"):
        with pytest.raises(Again) as error:
            answers.offer(429, {"Retry-After": value}, "https://a")
        waits.append(error.value.wait_s)
    assert waits == [3.0, answers.MAX_RETRY_AFTER_S, 0.0, 0.0]


def test_of_several_failures_the_one_is_told_that_can_be_mended():
    one = Wanted(SHA, "loras", "x.safetensors")
    found = worst(one, [Gone("gone"), WrongBytes("wrong"), Unreachable("slow"), Unauthorized("login")])
    assert isinstance(found, Unreachable) and found.details["tried"] == ["gone", "wrong", "slow", "login"]
    assert worst(one, []).code == "model_no_source"


@pytest.mark.parametrize(
    ("text", "size"), [("200GiB", 200 * 2**30), ("500 MB", 500 * 10**6), ("123", 123), ("1.5k", 1500), ("2TiB", 2 * 2**40), ("10b", 10), ("", 7)]
)
def test_sizes_are_read_in_words(text, size):
    assert settings.size_of(text, 7, "CAP") == size


@pytest.mark.parametrize(
    "env",
    [{"CAP": "much"}, {"CAP": "-5"}, {"STREAMS": "0"}, {"STREAMS": "x"}, {"TIMEOUT_S": "nan"}, {"PICKLE": "perhaps"}, {"CAP": "5XiB"}, {"CAP": "1ib"}],
)
def test_settings_that_make_no_sense_are_refused(env, tmp_path):
    with pytest.raises(Misconfigured):
        settings.from_env({f"COMFYPLANE_STORE_{k}": v for k, v in env.items()}, root=str(tmp_path))


def test_without_a_directory_there_is_no_store():
    assert settings.from_env({}) is None
