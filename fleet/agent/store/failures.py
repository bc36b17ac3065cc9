"""What can go wrong with a model, in words for the person who must act. No message holds a query string or a credential."""

from __future__ import annotations

from typing import Any


class StoreError(Exception):
    """A model cannot be had. `code` is stable, `suggestion` says what to do."""

    code = "store_failed"
    suggestion = ""

    def __init__(self, message: str, suggestion: str = "", *, code: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message, self.details = message, details
        self.suggestion = suggestion or self.suggestion
        self.code = code or self.code

    def body(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "suggestion": self.suggestion, "details": self.details}


class Refused(StoreError):
    """The name, address or kind of file is not allowed here."""

    code = "model_refused"
    suggestion = "Correct the model in the workflow's lock, or allow it in the store's settings (docs/models.md)."


class Gone(StoreError):
    """No source has the file."""

    code = "model_gone"
    suggestion = "Give the model another source and lock the version again."


class Unauthorized(StoreError):
    """A source wants a credential that it was not given."""

    code = "model_unauthorized"
    suggestion = "Add a credential for this address to the file named by COMFYPLANE_STORE_SECRETS."


class Unreachable(StoreError):
    """Sources did not answer, or broke off, until patience ended."""

    code = "model_unreachable"
    suggestion = "Check that this host reaches the source; what was fetched is kept, and the next try goes on from there."


class WrongBytes(StoreError):
    """What the sources serve does not have the SHA-256 that was asked for."""

    code = "model_wrong_bytes"
    suggestion = "The file behind the address was changed: lock the version again, or give a source that still has the old file."


class NoRoom(StoreError):
    """The cap or the disk leaves no room, even without everything that is not in use."""

    code = "model_no_room"
    suggestion = "Raise COMFYPLANE_STORE_CAP or free disk space; models in use and pinned ones are never removed."


class Stopped(StoreError):
    """Whoever waited for the file does not want it any more."""

    code = "stopped"


class Misconfigured(StoreError):
    """A setting of the store makes no sense."""

    code = "store_misconfigured"
    suggestion = "See docs/models.md for the settings."


KINDS: dict[str, type[StoreError]] = {kind.code: kind for kind in (Refused, Gone, Unauthorized, Unreachable, WrongBytes, NoRoom, Misconfigured)}


def from_body(body: dict[str, Any]) -> StoreError:
    """The failure another process wrote down."""
    kind = KINDS.get(str(body.get("kind")), StoreError)
    return kind(str(body.get("message", "")), str(body.get("suggestion", "")), code=str(body.get("code", "")), **(body.get("details") or {}))


def kind_of(error: StoreError) -> str:
    return next((code for code, kind in KINDS.items() if isinstance(error, kind)), StoreError.code)
