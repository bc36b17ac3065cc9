"""The serverless payload: every check comes before the work it protects from."""

import base64

import pytest

from fleet.agent import serverless

GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n0000").decode()


def payload(**fields):
    return {"input": {"workflow": GRAPH, **fields}}


def image(name="a.png", data=PNG):
    return {"name": name, "image": data}


def test_a_good_payload_is_understood():
    request = serverless.parse(payload(images=[image(), image("sub/b.png", "data:image/png;base64," + PNG)], comfy_org_api_key="k"))
    assert [name for name, _ in request.images] == ["a.png", "sub/b.png"]
    assert request.api_key == "k" and request.workflow == GRAPH


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (None, "input_missing"),
        ({"input": "{"}, "invalid_json"),
        ({"input": {}}, "workflow_missing"),
        ({"input": {"workflow": []}}, "invalid_workflow"),
        ({"input": {"workflow": {"nodes": [], "links": []}}}, "ui_format"),
        ({"input": {"workflow": {"1": {"inputs": {}}}}}, "invalid_node"),
        (payload(comfy_org_api_key=5), "invalid_api_key"),
        (payload(images={}), "invalid_images"),
        (payload(images=[{"name": "a.png"}]), "invalid_image"),
        (payload(images=[image("../../etc/passwd")]), "unsafe_name"),
        (payload(images=[image("/etc/passwd")]), "unsafe_name"),
        (payload(images=[image("..\\evil.png")]), "unsafe_name"),
        (payload(images=[image("C:\\evil.png")]), "unsafe_name"),
        (payload(images=[image("a\nb.png")]), "unsafe_name"),
        (
            payload(
                images=[
                    image(""),
                ]
            ),
            "unsafe_name",
        ),
        (payload(images=[image(), image()]), "duplicate_name"),
        (payload(images=[image(data="***")]), "invalid_base64"),
        (payload(images=[image(data="data:image/png,raw")]), "invalid_data_uri"),
        (payload(images=[image(data=base64.b64encode(b"<svg/>").decode())]), "not_an_image"),
        (payload(images=[image(str(n)) for n in range(99)]), "too_many_images"),
    ],
)
def test_a_bad_payload_is_refused_with_a_code_and_a_suggestion(given, code):
    error = serverless.run(given)["error"]
    assert error["code"] == code and error["message"] and error["suggestion"]


def test_sizes_are_checked_before_decoding(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("decoded")

    monkeypatch.setattr(serverless.base64, "b64decode", never)
    monkeypatch.setattr(serverless, "MAX_IMAGE_BYTES", 100)
    assert serverless.run(payload(images=[image(data="A" * 1000)]))["error"]["code"] == "image_too_large"


def test_all_images_together_have_a_limit(monkeypatch):
    monkeypatch.setattr(serverless, "MAX_TOTAL_BYTES", 20)
    assert serverless.run(payload(images=[image("a.png"), image("b.png")]))["error"]["code"] == "images_too_large"
