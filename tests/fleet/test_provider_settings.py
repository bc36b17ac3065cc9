"""What may be said to a provider: each setting by itself, settings that contradict each other, and words for what is wrong."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.kernel.errors import Invalid
from fleet import pools
from fleet.models import Pool, PoolOffer
from fleet.providers import docker_settings
from fleet.providers.settings import checked, known

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=8), c, max_size=3),
    max_leaves=6,
)


def refused(given: object, **more: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as told:
        checked("docker", given, **more)
    assert told.value.code == "pool_settings_invalid"
    return dict(told.value.details["settings"])


GOOD = {
    "host": "tcp://gpu-1.example:2376",
    "tls_dir": "/etc/comfyplane/tls",
    "url": "https://plane.example/",
    "network": "workers",
    "extra_hosts": {"plane.example": "10.0.0.7", "host.docker.internal": "host-gateway"},
    "memory_mib": 32768,
    "cpus": 4,
    "pids": 2048,
    "shm_mib": 1024,
    "scratch": "disk",
    "user": "10001:10001",
    "gpus": 2,
    "devices": ["0", "1", "GPU-3c0f"],
    "per_device": 2,
    "runtime": "nvidia",
    "restarts": 0,
    "stop_s": 600,
    "log_mib": 50,
    "pull": "never",
    "token_file": "/etc/comfyplane/pool-token",
    "store": "models",
    "env": {"COMFYUI_ARGS": "--lowvram"},
    "zone": "rack-4",
}


def test_every_setting_can_be_said_and_is_explained() -> None:
    schema = known("docker")
    assert schema is not None and set(GOOD) | {"scratch_mib"} == set(schema)
    assert checked("docker", GOOD) == {**GOOD, "url": "https://plane.example", "cpus": 4.0}
    assert all(setting.help for setting in schema.values())
    made = docker_settings.options(checked("docker", GOOD), {})
    assert made.devices == ("0", "1", "GPU-3c0f") and made.cpus == 4.0


def test_the_defaults_of_the_words_are_the_defaults_of_the_deed() -> None:
    nothing = docker_settings.Options()
    for name, setting in docker_settings.SETTINGS.items():
        if setting.default is not None:
            actual = getattr(nothing, name)
            assert (list(actual) if isinstance(actual, tuple) else actual) == setting.default, name
            assert setting.check(setting.default) == setting.default, name


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("memory", 1, "is not known"),
        ("memory_mib", "16g", "whole number"),
        ("memory_mib", True, "whole number"),
        ("memory_mib", 1, "from 64"),
        ("cpus", float("nan"), "number from"),
        ("cpus", -1, "number from"),
        ("network", "none", "cannot reach the control plane"),
        ("network", "container:abc", "not a container"),
        ("network", "--privileged", "name of a network"),
        ("user", "0", "not root"),
        ("user", "0:0", "not root"),
        ("user", "root", "not root"),
        ("user", "10001:0", "not root"),
        ("host", "ssh://gpu-1", "unix:///"),
        ("host", "tcp://gpu-1:2375", "root on its machine"),
        ("host", "tcp://gpu-1", "unix:///"),
        ("host", "http://user@gpu-1:1", "unix:///"),
        ("host", 5, "unix:///"),
        ("tls_dir", "/etc/tls", "goes with a host"),
        ("url", "plane.example", "http://"),
        ("url", "http://user:secret@plane.example", "http://"),
        ("url", "http://[", "http://"),
        ("devices", "0,1", "list of device"),
        ("devices", ["0", "0"], "each device once"),
        ("devices", ["--all"], "list of device"),
        ("env", {"COMFYPLANE_POOL_TOKEN": "x"}, "given to every worker"),
        ("env", {"A B": "x"}, "no name of an environment variable"),
        ("env", {"A": 1}, "a text"),
        ("env", {"A": "x" * 5000}, "4,000"),
        ("extra_hosts", {"plane": "elsewhere"}, "IP address"),
        ("extra_hosts", {"a b": "1.2.3.4"}, "no host name"),
        ("token_file", "token", "absolute path"),
        ("token_file", "/etc/../shadow", "absolute path"),
        ("store", "/a:/b", "absolute path"),
        ("store", "../x", "volume"),
        ("pull", "always", "missing or never"),
        ("restarts", 1000, "whole number"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(name: str, value: object, words: str) -> None:
    assert words in refused({name: value})[name]


def test_settings_that_contradict_each_other_are_refused() -> None:
    assert "devices named" in refused({"devices": ["0"], "gpus": 2})["gpus"]
    assert "gpus is 0" in refused({"devices": ["0"], "gpus": 0})["devices"]
    assert "part of" in refused({"memory_mib": 128, "scratch_mib": 256})["scratch_mib"]


def test_an_offers_placement_is_checked_over_the_pools_settings() -> None:
    checked("docker", {"memory_mib": 512}, placements={"offer 1": {"memory_mib": 1024, "scratch_mib": 1000}})
    told = refused({"memory_mib": 512}, placements={"offer 1": {"scratch_mib": 600}, "offer 2": {"zoo": 1}})
    assert set(told) == {"offer 1: scratch_mib", "offer 2: zoo"}


def test_every_wrong_setting_is_told_at_once() -> None:
    assert set(refused({"memory_mib": 1, "pull": 2, "zoo": 3})) == {"memory_mib", "pull", "zoo"}
    assert set(refused([1])) == {"settings"}


def test_providers_without_settings_take_none() -> None:
    assert checked("local", {}) == {}
    with pytest.raises(Invalid, match="is not known"):
        checked("local", {"memory_mib": 512})


@pytest.mark.django_db
def test_a_pool_is_saved_with_settings_that_make_sense_or_not_at_all(now: datetime) -> None:
    terms: dict[str, Any] = {"provider": "docker", "base": 0, "maximum": 2, "price_per_hour_microusd": 0, "actor": "test", "now": now}
    with pytest.raises(Invalid, match="memory_mib must be a whole number"):
        pools.create(slug="boxes", name="", settings={"memory_mib": "lots"}, **terms)
    pool = pools.create(slug="boxes", name="", settings={"cpus": 2, "memory_mib": 512}, **terms)
    assert pool.settings == {"cpus": 2.0, "memory_mib": 512}
    PoolOffer.objects.create(pool=pool, rank=1, gpu="L4", price_per_hour_microusd=1, placement={"scratch_mib": 400})
    with pytest.raises(Invalid, match="The setting offer 1: scratch_mib is more than memory_mib"):
        pools.change(pool, {"settings": {"memory_mib": 256}}, actor="test", now=now)
    Pool.objects.filter(id=pool.id).update(settings={"by hand": 1})
    assert pools.change(pool, {"max": 3}, actor="test", now=now), "what was written by hand stands in nobody's way"


@given(st.dictionaries(st.sampled_from(sorted(docker_settings.SETTINGS)) | st.text(max_size=10), ANYTHING, max_size=6))
def test_nothing_that_is_said_makes_it_fail_otherwise(given: dict[str, Any]) -> None:
    try:
        docker_settings.options(checked("docker", given), {})
    except Invalid as error:
        assert error.details["settings"]
