"""The store against servers with every bad habit, in one process. What takes several is in tests/integration."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import shutil
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.agent.store import placing, wire
from fleet.agent.store import settings as store_settings
from fleet.agent.store.contents import PicklePolicy
from fleet.agent.store.failures import Gone, Misconfigured, NoRoom, Refused, Stopped, StoreError, Unauthorized, Unreachable, WrongBytes
from fleet.agent.store.reach import Reach
from fleet.agent.store.settings import StoreSettings
from fleet.agent.store.store import Store
from fleet.agent.store.wanted import Wanted
from tests.fleet.agent.model_source import ModelSource, Served, cheap_bytes, sha, tensors

PART = 64 * 1024


@pytest.fixture
def source() -> Iterator[ModelSource]:
    with ModelSource() as running:
        yield running


@pytest.fixture
def other_host() -> Iterator[ModelSource]:
    with ModelSource("127.0.0.2") as running:
        yield running


@pytest.fixture
def open_store(tmp_path: Path, source: ModelSource) -> Iterator[Callable[..., Store]]:
    made: list[Store] = []

    def make(**changed: Any) -> Store:
        base = StoreSettings(
            tmp_path / "store", hosts=(source.url,), part_bytes=PART, keep_free_bytes=0, tries=3, timeout_s=2.0, room_wait_s=0.0, backoff_first_s=0.01
        )
        made.append(Store(replace(base, **changed)))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Store:
    return open_store()


def model(data: bytes, *urls: str, size: bool = True, name: str = "m.safetensors") -> Wanted:
    return Wanted(sha(data), "loras", name, len(data) if size else None, urls)


def nothing_left(store: Store) -> bool:
    root = store.settings.root
    return not [*(root / "sha256").glob("*/*"), *(root / "partial").iterdir()] and store.figures()["used_bytes"] == 0


def test_a_file_is_fetched_in_parallel_ranges_and_found_the_next_time(store, source):
    data = tensors(10 * PART + 17)
    one = model(data, source.add("/m", data))
    seen: list[tuple[int, int]] = []
    path = store.ensure([one], job="a", progress=lambda here, total: seen.append((here, total)))[one.sha256]
    assert path.read_bytes() == data and path.stat().st_mode & 0o777 == 0o444
    assert source.bytes_served == len(data) and len(source.requests) == 11
    assert seen[-1] == (len(data), len(data)) and seen == sorted(seen)
    store.ensure([one], job="b")
    figures = store.figures()
    assert (figures["misses"], figures["hits"], figures["fetched_bytes"]) == (1, 1, len(data)) and len(source.requests) == 11
    assert not list((store.settings.root / "partial").iterdir())


@pytest.mark.parametrize("habits", [{}, {"ranges": False}, {"length": False}, {"ranges": False, "length": False}, {"etag": None}], ids=str)
@pytest.mark.parametrize("size", [True, False])
@pytest.mark.parametrize("length", [1, PART, 5 * PART + 3])
def test_every_kind_of_server_gives_the_file(store, source, habits, size, length):
    data = cheap_bytes(length)
    one = model(data, source.add("/m", data, **habits), size=size, name="m.gguf")
    assert store.ensure([one], job="a")[one.sha256].read_bytes() == data
    assert store.figures()["used_bytes"] == (len(data) + 4095) // 4096 * 4096


def test_a_broken_connection_goes_on_where_it_broke(store, source):
    data = tensors(6 * PART)
    one = model(data, source.add("/m", data, cut_after=[1000, PART // 2, 7, 0]))
    assert store.ensure([one], job="a")[one.sha256].read_bytes() == data
    assert source.bytes_served <= len(data) + 4 * 1024


def test_a_broken_connection_without_ranges_begins_anew(store, source):
    data = tensors(3 * PART)
    one = model(data, source.add("/m", data, ranges=False, cut_after=[PART]))
    assert store.ensure([one], job="a")[one.sha256].read_bytes() == data
    assert source.bytes_served == len(data) + PART


def test_a_busy_server_is_asked_again_and_its_patience_kept(store, source):
    data = tensors(PART)
    one = model(data, source.add("/m", data, statuses=[503, 429], retry_after="0"))
    assert store.ensure([one], job="a")[one.sha256].exists()
    assert len(source.requests) == 3


def test_a_server_that_stays_broken_fails_plainly_and_what_came_is_kept(store, source):
    data = tensors(8 * PART)
    one = model(data, source.add("/m", data, before=lambda served, h: served.statuses.append(500) if source.bytes_served >= 4 * PART else None))
    with pytest.raises(Unreachable) as error:
        store.ensure([one], job="a")
    assert "after 3 tries" in error.value.message and source.url not in error.value.suggestion
    here = source.bytes_served
    source.files["/m"].before, source.files["/m"].statuses = None, []
    store.ensure([one], job="b")
    assert source.bytes_served == len(data) and here >= 4 * PART


def test_a_trickle_is_given_up(open_store, source):
    store = open_store(slow_bytes_per_s=50_000, slow_after_s=0.15, tries=2)
    data = tensors(PART)
    one = model(data, source.add("/m", data, bytes_per_s=5_000))
    with pytest.raises(Unreachable, match="bytes in"):
        store.ensure([one], job="a")


def test_a_silent_server_is_given_up(open_store, source):
    silence = threading.Event()
    store = open_store(timeout_s=0.1, tries=2)
    data = tensors(PART)
    one = model(data, source.add("/m", data, before=lambda served, headers: silence.wait(10) and None))
    with pytest.raises(Unreachable):
        store.ensure([one], job="a")
    silence.set()


def test_wrong_bytes_are_removed_fetched_once_again_and_then_kept_when_right(store, source):
    data = tensors(PART // 2)
    one = model(data, source.add("/m", data, wrong=[bytes(len(data))]))
    assert store.ensure([one], job="a")[one.sha256].read_bytes() == data
    assert store.figures()["corrupt"] == 1 and source.bytes_served == 2 * len(data)


def test_bytes_that_stay_wrong_fail_clearly_and_leave_nothing(store, source):
    data, other = tensors(PART * 2), tensors(PART * 2, seed=2)
    one = model(data, source.add("/m", other))
    with pytest.raises(WrongBytes) as error:
        store.ensure([one], job="a")
    assert source.bytes_served == 2 * len(data) and sha(other)[:12] in error.value.message
    assert store.figures()["corrupt"] == 2 and nothing_left(store)


def test_wrong_bytes_of_one_source_are_made_good_by_the_next(store, source):
    data = tensors(PART * 2)
    one = model(data, source.add("/bad", tensors(PART * 2, seed=2)), source.add("/good", data))
    assert store.ensure([one], job="a")[one.sha256].read_bytes() == data
    assert len(source.asked("/bad")) == len(source.asked("/good")) == 2


def test_a_file_of_another_size_is_not_even_fetched(store, source):
    data = tensors(PART)
    one = model(data, source.add("/m", data + b"more", headers={"Content-Type": "text/html; charset=utf-8"}))
    with pytest.raises(WrongBytes, match="web page"):
        store.ensure([one], job="a")
    assert source.bytes_served <= 2 * PART + 8 and nothing_left(store)


def test_a_file_that_changes_between_ranges_is_begun_anew(store, source):
    old, new = tensors(8 * PART, seed=3), tensors(8 * PART, seed=4)

    def swap(served: Served, headers: dict[str, str]) -> None:
        if source.bytes_served >= 3 * PART:
            served.data, served.etag = new, '"new"'

    one = model(new, source.add("/m", old, etag='"old"', before=swap))
    assert store.ensure([one], job="a")[one.sha256].read_bytes() == new
    assert store.figures()["corrupt"] == 0


def test_a_file_that_never_stops_changing_fails_clearly(store, source):
    data = tensors(8 * PART)
    numbers = iter(range(10**6))

    def swap(served: Served, headers: dict[str, str]) -> None:
        served.etag = f'"{next(numbers)}"'

    one = model(data, source.add("/m", data, before=swap))
    with pytest.raises(WrongBytes, match="changes again and again"):
        store.ensure([one], job="a")


def test_sources_are_tried_in_order_and_all_reasons_told(store, source):
    data = tensors(PART)
    one = model(data, source.url + "/gone", source.add("/locked", data, needs={"authorization": "Bearer t"}), "http://elsewhere.example/x")
    with pytest.raises(Unauthorized) as error:
        store.ensure([one], job="a")
    tried = error.value.details["tried"]
    assert len(tried) == 3 and "404" in tried[0] and "401" in tried[1] and "plain http" in tried[2]
    good = model(data, source.url + "/gone", source.add("/ok", data))
    assert store.ensure([good], job="a")[one.sha256].exists()


def test_a_mirror_is_asked_first_and_its_lack_is_no_failure(open_store, source):
    data, more = tensors(PART), tensors(PART, seed=5)
    store = open_store(mirrors=(f"{source.url}/mirror",))
    source.add(f"/mirror/sha256/{sha(data)[:2]}/{sha(data)}", data)
    store.ensure([model(data, source.url + "/nowhere")], job="a")
    assert not source.asked("/nowhere")
    store.ensure([model(more, source.add("/m", more))], job="a")


def test_credentials_go_to_their_address_and_not_to_another_host(open_store, source, other_host, tmp_path):
    data = tensors(3 * PART)
    secrets = tmp_path / "secrets.json"
    secrets.write_text(json.dumps({"secrets": [{"url": f"{source.url}/**", "type": "bearer", "token": "hunter2"}]}))
    store = open_store(secrets_file=secrets, hosts=(source.url, other_host.url))
    other_host.add("/cdn", data)
    source.add("/m", data, needs={"authorization": "Bearer hunter2"}, redirect=other_host.url + "/cdn?signed=1")
    one = model(data, source.url + "/m")
    assert store.ensure([one], job="a")[one.sha256].read_bytes() == data
    assert all("authorization" not in r["headers"] for r in other_host.requests) and len(other_host.requests) >= 3
    assert len(source.requests) == 1, "the ranges go where the redirect led"


def test_a_redirect_to_a_host_nobody_named_is_refused(store, source, other_host):
    data = tensors(PART)
    other_host.add("/m", data)
    one = model(data, source.add("/m", data, redirect=other_host.url + "/m"))
    with pytest.raises(Refused):
        store.ensure([one], job="a")
    assert not other_host.requests


def test_redirects_in_a_circle_end(store, source):
    data = tensors(PART)
    one = model(data, source.add("/m", data, redirect="/m"))
    with pytest.raises(Unreachable, match="redirects"):
        store.ensure([one], job="a")


def test_an_address_behind_a_redirect_that_expires_is_asked_for_anew(open_store, source, other_host):
    store = open_store(hosts=(source.url, other_host.url), streams=1)
    data = tensors(6 * PART)
    other_host.add("/cdn", data, before=lambda served, h: served.statuses.append(403) if len(other_host.requests) == 3 else None)
    one = model(data, source.add("/m", data, redirect=other_host.url + "/cdn"))
    assert store.ensure([one], job="a")[one.sha256].read_bytes() == data
    assert len(source.requests) == 2


@pytest.mark.parametrize(
    ("secret", "needs", "query"),
    [
        ({"type": "basic", "username": "u", "password": "p"}, {"authorization": "Basic dTpw"}, ""),
        ({"type": "header", "name": "X-Key", "value": "k"}, {"x-key": "k"}, ""),
        ({"type": "query", "name": "token", "value": "a&b"}, {}, "v=1&token=a%26b"),
    ],
)
def test_every_kind_of_credential_is_sent(open_store, source, tmp_path, secret, needs, query):
    data = tensors(PART)
    (tmp_path / "s.json").write_text(json.dumps({"secrets": [{"url": f"{source.url}/**", **secret}]}))
    store = open_store(secrets_file=tmp_path / "s.json")
    store.ensure([model(data, source.add("/m", data, needs=needs) + ("?v=1" if query else ""))], job="a")
    assert all(r["query"] == query for r in source.requests)


def test_a_hub_address_is_resolved_with_its_token(open_store, source, tmp_path):
    data = tensors(PART)
    (tmp_path / "s.json").write_text(json.dumps({"secrets": [{"url": "hf://org/**", "type": "bearer", "token": {"env": "HUB"}}]}))
    os.environ["HUB"] = "t"
    store = open_store(secrets_file=tmp_path / "s.json", hf_endpoint=source.url, hosts=("*",))
    source.add("/org/repo/resolve/abc/a/m.safetensors", data, needs={"authorization": "Bearer t"})
    assert store.ensure([model(data, "hf://org/repo@abc/a/m.safetensors")], job="a")
    del os.environ["HUB"]


def test_an_s3_address_is_presigned_for_the_endpoint(open_store, source, tmp_path):
    data = tensors(3 * PART)
    secret = {"url": "s3://weights/**", "type": "s3", "access_key_id": "AKID", "secret_access_key": "verysecret"}
    (tmp_path / "s.json").write_text(json.dumps({"secrets": [secret]}))
    store = open_store(secrets_file=tmp_path / "s.json", s3_endpoint=source.url, hosts=("*",))
    source.add("/weights/a/m.safetensors", data)
    assert store.ensure([model(data, "s3://weights/a/m.safetensors")], job="a")
    assert all("X-Amz-Signature=" in r["query"] and "AKID" in r["query"] and "verysecret" not in r["query"] for r in source.requests)
    with pytest.raises(Refused, match="bucket other"):
        store.ensure([model(tensors(999), "s3://other/a")], job="b")


def test_without_boto3_an_s3_address_says_so(open_store, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(Misconfigured, match="boto3"):
        open_store(hosts=("s3://b",)).ensure([model(tensors(999), "s3://b/k")], job="a")


def test_a_local_file_is_copied_from_an_allowed_directory_only(open_store, tmp_path):
    data = tensors(3 * PART)
    (tmp_path / "nas").mkdir()
    file = tmp_path / "nas" / "m ä.safetensors"
    file.write_bytes(data)
    (tmp_path / "outside").write_bytes(data)
    (tmp_path / "nas" / "link").symlink_to(tmp_path / "outside")
    store = open_store(local_roots=(tmp_path / "nas",))
    one = model(data, file.as_uri())
    path = store.ensure([one], job="a")[one.sha256]
    file.write_bytes(b"changed by its owner")
    assert path.read_bytes() == data and not path.is_symlink()
    for url in ((tmp_path / "outside").as_uri(), (tmp_path / "nas" / "link").as_uri(), f"{(tmp_path / 'nas').as_uri()}/../outside", (tmp_path / "nas").as_uri(),
                "file://host/etc/passwd", "file:///etc/passwd", "/etc/shadow", "etc/passwd", "file:///dev/zero", str(tmp_path / "none")):  # fmt: skip
        with pytest.raises(Refused):
            store.ensure([model(tensors(777), url)], job="b")
    with pytest.raises(Gone):
        store.ensure([model(tensors(777), str(tmp_path / "nas" / "none"))], job="b")


def test_a_model_larger_than_the_cap_is_refused_before_a_byte(open_store, source):
    store = open_store(cap_bytes=PART)
    data = tensors(PART + 1)
    for size in (True, False):
        with pytest.raises(StoreError) as error:
            store.ensure([model(data, source.add("/m", data), size=size)], job="a")
        assert error.value.code == "model_too_large"
    assert source.bytes_served <= 2 * len(data) and nothing_left(store)


def test_what_was_used_longest_ago_goes_and_what_is_in_use_stays(open_store, source):
    store = open_store(cap_bytes=4 * PART)
    made = [tensors(PART - 100, seed=n) for n in range(5)]
    ones = [model(d, source.add(f"/{n}", d), name=f"{n}.safetensors") for n, d in enumerate(made)]
    for n in (0, 1, 2):
        store.ensure([ones[n]], job=f"j{n}")
    for n in (1, 2):
        store.release(f"j{n}")
    store.ensure([ones[1]], job="again")
    store.release("again")
    store.ensure([ones[3]], job="j3")
    store.ensure([ones[4]], job="j4")
    here = {row.sha256 for row in store.keeping.ledger.files()}
    assert here == {ones[n].sha256 for n in (0, 1, 3, 4)}, "2 was used longest ago; 0 is older, but in use"
    assert store.figures()["evictions"] == 1


def test_when_everything_is_in_use_there_is_no_room_and_nothing_changes(open_store, source):
    store = open_store(cap_bytes=2 * PART - 1)
    first, second = tensors(PART, seed=1), tensors(PART, seed=2)
    store.ensure([model(first, source.add("/1", first))], job="a")
    before = source.bytes_served
    with pytest.raises(NoRoom) as error:
        store.ensure([model(second, source.add("/2", second))], job="b")
    assert error.value.details["cap_bytes"] == 2 * PART - 1 and source.bytes_served == before
    assert store.figures()["files"] == 1
    store.release("a")
    assert store.ensure([model(second, source.url + "/2")], job="b")


def test_a_job_waits_a_while_for_room(open_store, source):
    store = open_store(cap_bytes=2 * PART - 1, room_wait_s=10.0)
    first, second = tensors(PART, seed=1), tensors(PART, seed=2)
    store.ensure([model(first, source.add("/1", first))], job="a")
    threading.Timer(0.2, store.release, ["a"]).start()
    assert store.ensure([model(second, source.add("/2", second))], job="b")


def test_a_file_that_is_pinned_by_hand_stays(open_store, source):
    store = open_store(cap_bytes=2 * PART - 1)
    first, second = tensors(PART, seed=1), tensors(PART, seed=2)
    one = model(first, source.add("/1", first))
    store.ensure([one], job="a")
    store.release("a")
    assert store.keeping.keep(one.sha256, kept=True)
    with pytest.raises(NoRoom):
        store.ensure([model(second, source.add("/2", second))], job="b")
    with pytest.raises(Refused):
        store.keeping.evict(one.sha256)
    store.keeping.keep(one.sha256, kept=False)
    store.keeping.evict(one.sha256)
    assert nothing_left(store)


def test_a_download_that_is_stopped_ends_at_once_and_goes_on_later(store, source):
    data = tensors(16 * PART)
    one = model(data, source.add("/m", data, bytes_per_s=400_000))
    stop = threading.Event()
    with pytest.raises(Stopped):
        store.ensure([one], job="a", stop=stop, progress=lambda here, total: stop.set() if here >= 4 * PART else None)
    served = source.bytes_served
    source.files["/m"].bytes_per_s = 0
    assert served < len(data) and store.figures()["pinned_bytes"] == 0
    store.ensure([one], job="b")
    assert source.bytes_served < len(data) + 6 * PART, "what was here was not fetched again, save what was under way"


def test_what_is_damaged_on_the_disk_is_fetched_again(store, source):
    data = tensors(2 * PART)
    one = model(data, source.add("/m", data))
    path = store.ensure([one], job="a")[one.sha256]
    path.chmod(0o644)
    path.write_bytes(data[:-1])
    assert store.ensure([one], job="b")[one.sha256].read_bytes() == data
    path.unlink()
    assert store.ensure([one], job="b")[one.sha256].read_bytes() == data
    assert store.figures()["corrupt"] == 2 and source.bytes_served == 3 * len(data)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_room_and_leaves_nothing(store, source, monkeypatch, number):
    data = tensors(2 * PART)
    one = model(data, source.add("/m", data))
    real = os.pwrite

    def full(fd: int, block: Any, at: int) -> int:
        if at >= PART:
            raise OSError(number, os.strerror(number))
        return real(fd, block, at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NoRoom, match="disk"):
        store.ensure([one], job="a")
    assert nothing_left(store)
    monkeypatch.undo()
    assert store.ensure([one], job="a")


def test_the_disk_keeps_its_reserve(open_store, source):
    data = tensors(PART)
    with pytest.raises(NoRoom, match="the disk can give 0"):
        open_store(keep_free_bytes=10**15).ensure([model(data, source.add("/m", data))], job="a")
    assert not source.requests


class Runs:
    def __reduce__(self):
        return (os.getcwd, ())


def torch_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Runs()))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["m.ckpt", "m.pt", "m.pth", "m.bin", "m.PKL"])
def test_a_pickle_is_refused_by_its_name_before_it_is_fetched(store, source, name):
    data = torch_file()
    with pytest.raises(Refused) as error:
        store.ensure([model(data, source.add("/m", data), name=name)], job="a")
    assert error.value.code == "model_pickle" and not source.requests


@pytest.mark.parametrize("data", [torch_file(), pickle.dumps({"w": 1}, protocol=4), b"PK\x03\x04 broken archive"])
def test_a_pickle_is_refused_by_its_content_whatever_its_name(store, source, data):
    with pytest.raises(Refused) as error:
        store.ensure([model(data, source.add("/m", data), name="m.gguf")], job="a")
    assert error.value.code == "model_pickle" and nothing_left(store)


def test_a_safetensors_file_must_be_one(store, source):
    short = tensors(100)[:-1]
    for data in (b"not tensors at all", (1 << 40).to_bytes(8, "little") + b"{}", short, (9).to_bytes(8, "little") + b"{" * 9, b"<!doctype html><html>"):
        with pytest.raises(Refused) as error:
            store.ensure([model(data, source.add("/m", data))], job="a")
        assert error.value.code == "model_not_safetensors"
    assert nothing_left(store)


def test_pickles_are_taken_when_all_or_this_one_is_allowed(open_store, source):
    data = torch_file()
    one = model(data, source.add("/m", data), name="m.pth")
    open_store(pickles=PicklePolicy(everything=True)).ensure([one], job="a")
    open_store(pickles=PicklePolicy(hashes={sha(data)})).ensure([one], job="a")
    with pytest.raises(Refused):
        open_store().ensure([one], job="b")


def test_two_threads_fetch_a_file_once(store, source):
    data = tensors(8 * PART)
    one = model(data, source.add("/m", data, bytes_per_s=2_000_000))
    results: list[Path] = []
    threads = [threading.Thread(target=lambda n=n: results.append(store.ensure([one], job=f"j{n}")[one.sha256])) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and source.bytes_served == len(data)
    assert (store.figures()["misses"], store.figures()["coalesced"], store.figures()["waiting"]) == (1, 3, 0)


def test_those_who_wait_share_the_failure_of_the_one_that_fetched(store, source):
    one = model(tensors(PART), source.add("/m", tensors(PART, seed=2), bytes_per_s=200_000))
    errors: list[StoreError] = []

    def want(n: int) -> None:
        try:
            store.ensure([one], job=f"j{n}")
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=want, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [e.code for e in errors] == ["model_wrong_bytes"] * 4
    assert source.bytes_served == 2 * one.size_bytes, "fetched twice by one of them, and not by each"


def test_a_lost_ledger_finds_its_files_again(open_store, source):
    data = tensors(PART)
    one = model(data, source.add("/m", data))
    store = open_store()
    store.ensure([one], job="a")
    store.close()
    for path in store.settings.root.glob("ledger.sqlite3*"):
        path.unlink()
    (store.settings.root / "partial" / f"{'0' * 64}.part").write_bytes(b"orphan")
    again = open_store()
    again.ensure([one], job="a")
    assert again.figures()["hits"] == 1 and not list((store.settings.root / "partial").iterdir())


def test_a_broken_ledger_says_what_to_do(open_store, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "ledger.sqlite3").write_bytes(b"not a database at all" * 500)
    with pytest.raises(Misconfigured, match="ledger"):
        open_store()


def test_a_lowered_cap_counts_from_the_next_start(open_store, source):
    store = open_store()
    for n in range(4):
        data = tensors(PART - 200, seed=n)
        store.ensure([model(data, source.add(f"/{n}", data), name=f"{n}.safetensors")], job="a")
    store.close()
    assert open_store(cap_bytes=2 * PART).figures()["used_bytes"] <= 2 * PART


def test_a_look_at_the_store_keeps_the_cap_its_workers_set(open_store, source):
    store = open_store(cap_bytes=3 * PART)
    for n in range(3):
        data = tensors(PART - 200, seed=n)
        store.ensure([model(data, source.add(f"/{n}", data), name=f"{n}.safetensors")], job="a")
    store.close()
    looking = open_store(cap_bytes=0)
    assert looking.settings.cap_bytes == 3 * PART and looking.figures()["files"] == 3


def test_nothing_that_is_said_holds_a_query_or_a_secret(open_store, source, tmp_path, caplog):
    (tmp_path / "s.json").write_text(json.dumps({"secrets": [{"url": f"{source.url}/**", "type": "bearer", "token": "hunter2"}]}))
    store = open_store(secrets_file=tmp_path / "s.json", tries=1)
    data = tensors(PART)
    errors = []
    for habits in (
        {"statuses": [403]},
        {"statuses": [404]},
        {"statuses": [500]},
        {"wrong": [bytes(len(data))] * 2},
        {"redirect": "http://b.example/?sig=s1gned"},
    ):
        with pytest.raises(StoreError) as error:
            store.ensure([model(data, source.add("/m", data, **habits) + "?sig=s1gned")], job="a")
        errors.append(json.dumps(error.value.body()))
    said = "".join(errors) + caplog.text + repr(store.settings)
    assert "s1gned" not in said and "hunter2" not in said and len(errors) == 5


# Links


def test_a_model_is_linked_under_its_name_and_the_folder_gets_a_new_time(tmp_path):
    file = tmp_path / "store" / "sha256" / "x"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    models = tmp_path / "models"
    one = Wanted("ab" * 32, "loras", "flux/style.safetensors")
    assert placing.place(models, one, file, store=tmp_path / "store")
    link = models / "loras" / "flux" / "style.safetensors"
    assert link.resolve() == file and link.read_bytes() == b"x"
    before = [f.stat().st_mtime for f in (models / "loras", link.parent)]
    assert not placing.place(models, one, file, store=tmp_path / "store")
    assert before == [f.stat().st_mtime for f in (models / "loras", link.parent)]
    placing.place(models, Wanted("cd" * 32, "loras", "flux/other.safetensors"), file, store=tmp_path / "store")
    assert link.parent.stat().st_mtime != before[1]


def test_a_name_moves_on_to_another_versions_file(tmp_path):
    files = [tmp_path / "store" / name for name in ("a", "b")]
    (tmp_path / "store").mkdir()
    for file in files:
        file.write_bytes(file.name.encode())
    one = Wanted("ab" * 32, "loras", "x.safetensors")
    for file in files:
        assert placing.place(tmp_path / "m", one, file, store=tmp_path / "store")
        assert (tmp_path / "m/loras/x.safetensors").read_bytes() == file.read_bytes()


def test_somebody_elses_file_is_never_replaced(tmp_path):
    (tmp_path / "store").mkdir()
    file = tmp_path / "store" / "a"
    file.write_bytes(b"a")
    folder = tmp_path / "m" / "loras"
    folder.mkdir(parents=True)
    (folder / "x.safetensors").write_bytes(b"mine")
    (folder / "y.safetensors").symlink_to(folder / "x.safetensors")
    for name in ("x.safetensors", "y.safetensors"):
        with pytest.raises(StoreError) as error:
            placing.place(tmp_path / "m", Wanted("ab" * 32, "loras", name), file, store=tmp_path / "store")
        assert error.value.code == "model_name_taken"
    assert (folder / "x.safetensors").read_bytes() == b"mine"


def test_a_link_among_the_folders_does_not_lead_out(tmp_path):
    (tmp_path / "store").mkdir()
    file = tmp_path / "store" / "a"
    file.write_bytes(b"a")
    (tmp_path / "outside").mkdir()
    (tmp_path / "m" / "loras").mkdir(parents=True)
    (tmp_path / "m" / "loras" / "way").symlink_to(tmp_path / "outside")
    with pytest.raises(Refused):
        placing.place(tmp_path / "m", Wanted("ab" * 32, "loras", "way/x.safetensors"), file, store=tmp_path / "store")
    (tmp_path / "m" / "vae").symlink_to(tmp_path / "outside")  # a mount of the operator's
    assert placing.place(tmp_path / "m", Wanted("ab" * 32, "vae", "x.safetensors"), file, store=tmp_path / "store")


def test_links_to_files_that_went_are_swept(tmp_path):
    (tmp_path / "store").mkdir()
    file = tmp_path / "store" / "a"
    file.write_bytes(b"a")
    for name in ("x", "y"):
        placing.place(tmp_path / "m", Wanted("ab" * 32, "loras", name), file, store=tmp_path / "store")
    (tmp_path / "m" / "loras" / "foreign").symlink_to(tmp_path / "nowhere")
    assert placing.sweep(tmp_path / "m", store=tmp_path / "store") == 0
    (tmp_path / "m" / "loras" / ".0123456789abcdef.new").symlink_to(file)
    assert placing.sweep(tmp_path / "m", store=tmp_path / "store") == 1
    file.unlink()
    assert placing.sweep(tmp_path / "m", store=tmp_path / "store") == 2
    assert [p.name for p in (tmp_path / "m" / "loras").iterdir()] == ["foreign"]


# By hand


def call(capsys, root: Path, *words: str) -> tuple[int, Any]:
    from fleet.agent.store.__main__ import main

    code = main(["--store-dir", str(root), *words])
    out = capsys.readouterr()
    return code, json.loads(out.out or out.err)


def test_the_store_answers_in_json_on_the_command_line(capsys, tmp_path, source, monkeypatch):
    monkeypatch.setenv("COMFYPLANE_STORE_HOSTS", source.url)
    monkeypatch.setenv("COMFYPLANE_STORE_KEEP_FREE", "0")
    data, root = tensors(PART), tmp_path / "s"
    code, said = call(capsys, root, "status")
    assert code == 2 and said["error"]["code"] == "store_missing" and not root.exists()
    url = source.add("/m.safetensors", data)
    code, said = call(capsys, root, "fetch", url, "--sha256", sha(data), "--pin")
    assert code == 0 and Path(said["path"]).read_bytes() == data and not said["was_here"]
    code, said = call(capsys, root, "status")
    assert [(f["name"], f["state"], f["pinned"], f["in_use"]) for f in said["files"]] == [("models/m.safetensors", "whole", True, 0)]
    assert said["counted"]["misses"] == 1 and said["used_bytes"] >= len(data)
    code, said = call(capsys, root, "evict", sha(data))
    assert code == 2 and said["error"]["code"] == "model_in_use"
    assert call(capsys, root, "unpin", sha(data))[0] == 0
    path = root / "sha256" / sha(data)[:2] / sha(data)
    assert call(capsys, root, "verify")[0] == 0
    path.chmod(0o644)
    path.write_bytes(bytes(len(data)))
    code, said = call(capsys, root, "verify")
    assert code == 1 and said["damaged"] == [sha(data)] and not path.exists()
    assert call(capsys, root, "fetch", url, "--sha256", sha(data))[1]["fetched_bytes"] == len(data)
    assert call(capsys, root, "evict", sha(data))[1]["evictions"] == 1
    assert call(capsys, root, "evict", "--room", "99TB")[0] == 2
    assert call(capsys, root, "pin", "0" * 64) == (1, {"pinned": [], "unknown": ["0" * 64]})
    for words in (("fetch", "http://169.254.169.254/x", "--sha256", sha(data)), ("fetch", url, "--sha256", "xyz"), ("evict", "xyz")):
        code, said = call(capsys, root, *words)
        assert code == 2 and said["error"]["code"] == "model_refused" and said["error"]["suggestion"]
    monkeypatch.setenv("COMFYPLANE_STORE_CAP", "lots")
    assert call(capsys, root, "status")[1]["error"]["code"] == "store_misconfigured"


def test_help_names_every_setting():
    import re

    text = Path(store_settings.__file__).read_text()
    read = set(re.findall(r'said(?:\.get\(|\[)"([a-z0-9_]+)"', text)) - {"slow", "slow_after_s", "backoff_s"}
    assert read and all(f"COMFYPLANE_STORE_{name.upper()}" in store_settings.HELP for name in read)


# TLS and proxies


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        if os.environ.get("COMFYPLANE_REQUIRE_OPENSSL") == "1":
            pytest.fail("COMFYPLANE_REQUIRE_OPENSSL=1 promises openssl, but it is not on the path")
        pytest.skip("making a certificate needs openssl")
    key, cert = directory / "key.pem", directory / "cert.pem"
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(["openssl", "req", *words, *subject], check=True, capture_output=True)
    return key, cert


def test_the_name_is_checked_in_the_certificate_and_the_checked_address_connected_to(tmp_path, monkeypatch):
    key, cert = certificate(tmp_path, "models.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    wire._tls.cache_clear()
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    try:
        with ModelSource() as source:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(cert, key)
            source._server.socket = context.wrap_socket(source._server.socket, server_side=True)
            source.add("/m", b"bytes")
            reach = Reach([f"models.example:{source.port}", f"other.example:{source.port}"], resolve=resolve)
            with wire.Wire(reach, timeout_s=5) as one:
                answer, _ = one.get(wire.Target(f"https://models.example:{source.port}/m"), {})
                assert answer.read() == b"bytes"
                again, _ = one.get(wire.Target(f"https://models.example:{source.port}/m"), {})
                assert again.read() == b"bytes"
                assert asked == ["models.example"], "looked up once, and the connection used twice"
                with pytest.raises(ssl.SSLCertVerificationError):
                    one.get(wire.Target(f"https://other.example:{source.port}/m"), {})
            assert source.requests[0]["headers"]["host"] == f"models.example:{source.port}"
    finally:
        wire._tls.cache_clear()


def test_a_proxy_is_asked_instead_of_the_host(open_store, source):
    data = tensors(3 * PART)
    with ModelSource() as proxy:
        proxy.add("http://models.nowhere/m", data)
        store = open_store(hosts=("http://models.nowhere",), proxy=proxy.url)
        assert store.ensure([model(data, "http://models.nowhere/m")], job="a")
        assert len(proxy.requests) == 3 and {r["headers"]["host"] for r in proxy.requests} == {"models.nowhere"}


def test_a_server_that_closes_idle_connections_is_connected_to_again(open_store, source):
    store = open_store(streams=1)
    data = tensors(4 * PART)
    source.add("/m", data, headers={"Connection": "close"})
    assert store.ensure([model(data, source.url + "/m")], job="a")
