"""Input files: whose they are, what they are, and how they reach the agent."""

from __future__ import annotations

import base64
import io
from datetime import datetime
from typing import Any

import pytest
from factories import make_customer, make_pool, make_runnable, make_version, make_worker, make_workflow, submit
from PIL import Image
from racing import race

from billing.models import Customer
from builds.models import Workflow
from controlplane.kernel import blobs
from controlplane.kernel.errors import Invalid, TooLarge, WorkflowError
from fleet import assignments, input_files, queue
from fleet.models import CustomerFile, Job

pytestmark = pytest.mark.django_db
GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
}


def png(size: tuple[int, int] = (4, 3)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (255, 0, 0)).save(out, "PNG")
    return out.getvalue()


def image_workflow(now: datetime, **field: Any) -> Workflow:
    workflow = make_workflow(now=now, pool=make_pool(now=now))
    exposed = {"name": "picture", "node": "1", "input": "image", "type": "string", "title": "Picture", "kind": "image", "required": True} | field
    make_version(workflow, now=now, graph=GRAPH, inputs=[exposed])
    return workflow


def keep(customer: Customer, data: bytes, now: datetime, name: str = "a.png") -> CustomerFile:
    return input_files.keep(io.BytesIO(data), name=name, customer=customer, now=now)[0]


def data_uri(data: bytes, kind: str = "image/png", *, safe: bool = False) -> str:
    text = (base64.urlsafe_b64encode if safe else base64.b64encode)(data).decode()
    return f"data:{kind};base64,{text.rstrip('=') if safe else text}"


def test_a_data_uri_becomes_a_file_and_the_agent_is_given_its_hash_and_a_name_of_ours(now: datetime) -> None:
    workflow, customer = image_workflow(now), make_customer(now=now)
    job = submit(customer, workflow, now=now, inputs={"picture": data_uri(png())})
    file = CustomerFile.objects.get()
    assert job.inputs == {"picture": str(file.id)} and (file.media_type, file.width, file.height) == ("image/png", 4, 3)
    (leased,) = queue.claim(make_worker(job.pool, now=now), now=now)
    given = assignments.render(leased, now=now)
    assert given["files"] == [
        {"sha256": file.blob_id, "name": f"{file.blob_id[:24]}.png", "size_bytes": len(png()), "media_type": "image/png", "node": "1", "input": "image"}
    ]
    assert given["graph"]["1"]["inputs"]["image"] == f"{file.blob_id[:24]}.png"
    assert (given["job"], given["attempt"], given["deadline_at"], given["extra_data"]) == (str(job.id), 1, None, {})


@pytest.mark.parametrize("size", [(4, 3), (5, 3), (6, 3)])
def test_both_alphabets_of_base64_are_read(now: datetime, size: tuple[int, int]) -> None:
    customer, workflow = make_customer(now=now), image_workflow(now)
    for safe in (True, False):
        submit(customer, workflow, now=now, inputs={"picture": data_uri(png(size), safe=safe)})
    assert CustomerFile.objects.count() == 1


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("data:image/png;base64,!!!", "not_a_file"),
        ("data:image/png;base64,A", "data_uri_malformed"),
        ("data:image/png,raw", "not_a_file"),
        ("data:image/png;base64,", "not_a_file"),
        (data_uri(b"just text"), "file_type_mismatch"),
        (data_uri(png()[:-28]), "image_undecodable"),
        (data_uri(png((200, 200))), "image_too_large"),
        ("../../etc/passwd", "not_a_file"),
        ("blob:" + "0" * 64, "not_a_file"),
        ("", "not_a_file"),
        (5, "wrong_type"),
    ],
)
def test_what_is_no_image_is_refused_with_a_code_of_its_own(now: datetime, settings: Any, value: Any, code: str) -> None:
    settings.MAX_IMAGE_PIXELS = 10_000
    with pytest.raises(WorkflowError) as refused:
        submit(make_customer(now=now), image_workflow(now), now=now, inputs={"picture": value})
    assert refused.value.code == code and refused.value.suggestion
    assert not Job.objects.exists()


def test_somebody_elses_file_does_not_exist(now: datetime) -> None:
    workflow, mine, other = image_workflow(now), make_customer(now=now), make_customer(now=now)
    file = keep(other, png(), now)
    with pytest.raises(Invalid) as refused:
        submit(mine, workflow, now=now, inputs={"picture": str(file.id)})
    assert refused.value.code == "file_not_found"
    again = keep(mine, png(), now)
    assert again.id != file.id and again.blob_id == file.blob_id, "the same bytes, a claim of one's own"
    assert submit(mine, workflow, now=now, inputs={"picture": str(again.id)}).inputs == {"picture": str(again.id)}


def test_a_versions_own_default_is_nobodys_file(now: datetime) -> None:
    blob = blobs.put(io.BytesIO(png()), media_type="image/png", max_bytes=10**6, now=now)
    workflow = image_workflow(now, required=False, default=f"blob:{blob.sha256}")
    job = submit(make_customer(now=now), workflow, now=now)
    (leased,) = queue.claim(make_worker(job.pool, now=now), now=now)
    assert [f["sha256"] for f in assignments.render(leased, now=now)["files"]] == [blob.sha256]


def test_an_empty_file_and_one_past_the_limit_are_refused(now: datetime, settings: Any) -> None:
    settings.MAX_FILE_BYTES = 50
    customer = make_customer(now=now)
    with pytest.raises(Invalid) as refused:
        keep(customer, b"", now)
    assert refused.value.code == "file_empty"
    with pytest.raises(TooLarge):
        keep(customer, b"x" * 51, now)
    with pytest.raises(TooLarge):
        submit(customer, image_workflow(now), now=now, inputs={"picture": data_uri(png((40, 40)) + b"x" * 100)})
    assert not CustomerFile.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_same_bytes_sent_at_once_are_one_file(now: datetime) -> None:
    customer = make_customer(now=now)
    results = race(8, lambda n: keep(customer, png(), now, name=f"{n}.png").id)
    assert len(set(results)) == 1 and CustomerFile.objects.count() == 1


def test_versions_are_read_once_and_bound_each_time(now: datetime) -> None:
    workflow = make_runnable(now=now)
    customer = make_customer(now=now)
    jobs = [submit(customer, workflow, now=now, inputs={"width": width}) for width in (10, 20)]
    leased = queue.claim(make_worker(jobs[0].pool, now=now), limit=2, now=now)
    graphs = [assignments.render(a, now=now)["graph"] for a in leased]
    assert [g["1"]["inputs"]["width"] for g in graphs] == [10, 20], "one job's inputs showed in another's graph"
