"""The one wording, colour and icon of every state an operator sees. Unknown is grey, never healthy."""

from __future__ import annotations

WORDS: dict[str, tuple[str, str, str]] = {
    # jobs and attempts
    "queued": ("Waiting", "info", "clock"),
    "running": ("Running", "info", "play"),
    "succeeded": ("Succeeded", "ok", "check"),
    "failed": ("Failed", "bad", "xoct"),
    "canceled": ("Canceled", "", "dot"),
    "expired": ("Expired", "warn", "clock"),
    # smoke runs
    "passed": ("Passed", "ok", "check"),
    "never": ("Never run", "warn", "alert"),
    "draft": ("Draft, cannot run", "", "dot"),
    # workers
    "ordered": ("Ordered", "info", "clock"),
    "starting": ("Starting", "info", "loader"),
    "loading": ("Loading", "info", "loader"),
    "idle": ("Idle", "", "pause"),
    "busy": ("Busy", "ok", "play"),
    "draining": ("Draining", "warn", "down"),
    "faulted": ("Faulted", "bad", "alert"),
    "cordoned": ("Cordoned", "warn", "lock"),
    "stopped": ("Stopped", "", "dot"),
    "lost": ("Lost", "bad", "xoct"),
    # customers and keys
    "active": ("Active", "ok", "check"),
    "suspended": ("Suspended", "bad", "pause"),
    "revoked": ("Revoked", "", "lock"),
    "key_expired": ("Expired", "warn", "clock"),
    # pools
    "healthy": ("Healthy", "ok", "check"),
    "short": ("Short of workers", "bad", "xoct"),
    "halted": ("Halted", "bad", "xoct"),
    "pool_starting": ("Starting", "info", "loader"),
    "zero": ("Scaled to zero", "", "pause"),
    "empty": ("No workers", "warn", "alert"),
    "pool_paused": ("Paused", "warn", "pause"),
    # kinds of machine
    "offer_available": ("Can be ordered", "ok", "check"),
    "offer_refused": ("Cannot be had", "warn", "alert"),
    "offer_full": ("At its most", "", "dot"),
    "offer_off": ("Not ordered", "", "pause"),
}


def words(state: str) -> tuple[str, str, str]:
    """Word, kind and icon of a state."""
    return WORDS.get(state, (state.replace("_", " ").capitalize() or "Unknown", "", "dot"))
