"""The product's settings with the yardstick view mounted beside it."""

from controlplane.settings import *  # noqa: F403

ROOT_URLCONF = "bench.reference_urls"
