"""What the scaler asks of whoever starts workers. A reference is plain data, kept on the worker's row."""

from __future__ import annotations

from typing import Any, Protocol

from fleet.models import Worker

Ref = dict[str, Any]


class ProviderError(Exception):
    """The provider could not do what was asked."""


class Provider(Protocol):
    """Order, stop and look after workers. Every call may be repeated; none waits for the worker."""

    orders: bool
    """Whether `order` can be used at all."""

    def order(self, worker: Worker) -> Ref:
        """Start an agent for this row and return how to find it again. Raises ProviderError."""

    def find(self, instance: str) -> Ref | None:
        """The reference of an agent started for `instance`, when the row was written but its reference was not."""

    def alive(self, ref: Ref) -> bool | None:
        """Whether it runs; None when that cannot be known."""

    def stop(self, ref: Ref, *, force: bool = False) -> None:
        """Ask it to finish and leave, or with `force` end it now. Stopping what is gone does nothing."""

    def known(self) -> dict[str, Ref]:
        """Instance → reference of everything it started and has not yet forgotten."""

    def forget(self, instance: str) -> None:
        """Drop what is kept about an instance that is gone."""
