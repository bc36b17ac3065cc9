"""The demo's own sound: a plucked chord, made from decaying sines."""

from __future__ import annotations

import io

import numpy as np
import soundfile

RATE = 44_100
NOTES = ((0.0, 220.00), (0.28, 277.18), (0.56, 329.63), (0.84, 415.30), (1.12, 554.37))


def chord(seconds: float = 4.5) -> bytes:
    """A stereo FLAC file."""
    time = np.arange(int(seconds * RATE)) / RATE
    left, right = np.zeros_like(time), np.zeros_like(time)
    for number, (start, pitch) in enumerate(NOTES):
        since = time - start
        tone = sum(np.sin(2 * np.pi * pitch * harmonic * since) / harmonic**2 for harmonic in (1, 2, 3, 4))
        note = np.where(since >= 0, tone * np.exp(-since * 1.6) * np.minimum(1, since * 400), 0.0)
        pan = number / (len(NOTES) - 1)
        left += note * (1 - 0.6 * pan)
        right += note * (0.4 + 0.6 * pan)
    both = np.stack([left, right], axis=1)
    both *= 0.5 / np.abs(both).max() * np.minimum(1, (seconds - time) * 4)[:, None]
    kept = io.BytesIO()
    soundfile.write(kept, both, RATE, format="FLAC", subtype="PCM_16")
    return kept.getvalue()
