"""The import page takes what ComfyUI writes: API files, canvas files, and pictures that carry their workflow."""

from __future__ import annotations

import io
import json

import factories
import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from PIL import Image, PngImagePlugin

from builds.models import Version

pytestmark = pytest.mark.django_db


def picture(**texts: str) -> SimpleUploadedFile:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG", pnginfo=info)
    return SimpleUploadedFile("made.png", out.getvalue(), "image/png")


@pytest.fixture
def client() -> Client:
    signed_in = Client()
    signed_in.force_login(User.objects.create_superuser("root"))
    return signed_in


def test_a_picture_that_carries_its_prompt_is_imported(client: Client) -> None:
    answer = client.post("/ops/workflows/import/", {"do": "keep", "slug": "from-picture", "file": picture(prompt=json.dumps(factories.GRAPH))})
    assert answer.status_code == 302, answer.content
    assert Version.objects.get(workflow__slug="from-picture").graph["1"]["class_type"] == "EmptyImage"


def test_a_picture_without_a_workflow_says_so_and_keeps_nothing(client: Client) -> None:
    answer = client.post("/ops/workflows/import/", {"do": "keep", "slug": "none", "file": picture(comment="hello")})
    assert 400 <= answer.status_code < 500
    assert not Version.objects.exists()
