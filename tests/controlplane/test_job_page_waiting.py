"""The page of a job that waits says why: that workers cannot start, not that there is no capacity."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from fleet.models import Pool
from tests.fleet.life_world import World

pytestmark = pytest.mark.django_db


def test_a_job_whose_workers_cannot_start_says_so_on_its_page() -> None:
    world = World(timezone.now(), base=0)
    (job,) = world.submit()
    client = Client()
    client.force_login(User.objects.create_superuser("olga", password="x"))
    assert "workers_starting" in client.get(reverse("ops:job", args=[job.id])).content.decode()
    Pool.objects.update(halted_at=world.now, halted_reason="three failed")
    page = client.get(reverse("ops:job", args=[job.id])).content.decode()
    assert "Workers cannot start at the moment" in page and "workers_cannot_start" in page
    world.worker()
    assert "workers_cannot_start" not in client.get(reverse("ops:job", args=[job.id])).content.decode()
