"""Audio: a dict with `waveform`, shaped batch, channels, samples, and `sample_rate`."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import numpy as np

from fleet.engine.directories import AUDIO_SUFFIXES, Directories, OutsideDirectory
from fleet.engine.nodes.files import HIDDEN_V3, temporary_prefix
from fleet.engine.run import Result, Run
from fleet.engine.specs import choice, integer, link, node_v3, number, text

Audio = dict[str, Any]


def _audio_refused(directories: Directories, audio: str) -> str | None:
    try:
        found = directories.annotated(audio).is_file()
    except (OutsideDirectory, ValueError):
        found = False
    return None if found else f"Invalid audio file: {audio}"


def _content(directories: Directories, audio: str) -> str:
    return hashlib.sha256(directories.annotated(audio).read_bytes()).hexdigest()


AUDIO = link("AUDIO")


@node_v3(
    "EmptyAudio",
    category="audio",
    module="comfy_extras.nodes_audio",
    title="Empty Audio",
    outputs=["AUDIO"],
    inputs={
        "duration": number(default=60.0, min=0.0, max=18446744073709551615, step=0.01),
        "sample_rate": integer(default=44100, min=1, max=192000),
        "channels": integer(default=2, min=1, max=2),
    },
)
def empty_audio(run: Run, duration: float, sample_rate: int, channels: int) -> Audio:
    count = round(duration * sample_rate)
    run.claim(channels, count)
    return {"waveform": np.zeros((1, channels, count), dtype=np.float32), "sample_rate": sample_rate}


@node_v3(
    "AudioAdjustVolume",
    category="audio",
    module="comfy_extras.nodes_audio",
    title="Audio Adjust Volume",
    outputs=["AUDIO"],
    inputs={"audio": AUDIO, "volume": integer(default=1, min=-100, max=100)},
)
def audio_adjust_volume(run: Run, audio: Audio, volume: int) -> Audio:
    # Volume counts in decibels.
    return {**audio, "waveform": audio["waveform"] * np.float32(10 ** (volume / 20))}


@node_v3(
    "TrimAudioDuration",
    category="audio",
    module="comfy_extras.nodes_audio",
    title="Trim Audio Duration",
    outputs=["AUDIO"],
    inputs={
        "audio": AUDIO,
        "start_index": number(default=0.0, min=-18446744073709551615, max=18446744073709551615, step=0.01),
        "duration": number(default=60.0, min=0.0, step=0.01),
    },
)
def trim_audio_duration(run: Run, audio: Audio, start_index: float, duration: float) -> Audio:
    rate, length = audio["sample_rate"], audio["waveform"].shape[-1]
    start = length + round(start_index * rate) if start_index < 0 else round(start_index * rate)
    start = max(0, min(start, length - 1))
    end = max(0, min(start + round(duration * rate), length))
    if start >= end:
        raise ValueError("AudioTrim: Start time must be less than end time and be within the audio length.")
    return {"waveform": audio["waveform"][..., start:end].copy(), "sample_rate": rate}


@node_v3(
    "AudioConcat",
    category="audio",
    module="comfy_extras.nodes_audio",
    title="Audio Concat",
    outputs=["AUDIO"],
    inputs={"audio1": AUDIO, "audio2": AUDIO, "direction": choice(["after", "before"], default="after")},
)
def audio_concat(run: Run, audio1: Audio, audio2: Audio, direction: str) -> Audio:
    first, second, rate = _alike(audio1, audio2)
    run.claim(*first.shape[:2], first.shape[2] + second.shape[2])
    ordered = [first, second] if direction == "after" else [second, first]
    return {"waveform": np.concatenate(ordered, axis=2), "sample_rate": rate}


@node_v3(
    "AudioMerge",
    category="audio",
    module="comfy_extras.nodes_audio",
    title="Audio Merge",
    outputs=["AUDIO"],
    inputs={"audio1": AUDIO, "audio2": AUDIO, "merge_method": choice(["add", "mean", "subtract", "multiply"])},
)
def audio_merge(run: Run, audio1: Audio, audio2: Audio, merge_method: str) -> Audio:
    first, second, rate = _alike(audio1, audio2)
    length = first.shape[2]
    second = np.pad(second[..., :length], ((0, 0), (0, 0), (0, max(0, length - second.shape[2]))))
    mixes = {"add": first + second, "mean": (first + second) / 2, "subtract": first - second, "multiply": first * second}
    mixed = mixes[merge_method]
    # Louder than full scale would be cut off when saved.
    return {"waveform": mixed / max(1.0, float(np.abs(mixed).max(initial=0))), "sample_rate": rate}


@node_v3(
    "SplitAudioChannels",
    category="audio",
    module="comfy_extras.nodes_audio",
    title="Split Audio Channels",
    outputs=["AUDIO", "AUDIO"],
    names=["left", "right"],
    inputs={"audio": AUDIO},
)
def split_audio_channels(run: Run, audio: Audio) -> tuple[Audio, Audio]:
    if audio["waveform"].shape[1] != 2:
        raise ValueError("AudioSplit: Input audio has only one channel.")
    left, right = audio["waveform"][:, :1], audio["waveform"][:, 1:]
    return {**audio, "waveform": left.copy()}, {**audio, "waveform": right.copy()}


@node_v3(
    "LoadAudio",
    category="audio",
    module="comfy_extras.nodes_audio",
    title="Load Audio",
    outputs=["AUDIO"],
    stamp=_content,
    check=_audio_refused,
    checked=("audio",),
    inputs={"audio": choice(lambda directories: directories.inputs(AUDIO_SUFFIXES), audio_upload=True)},
)
def load_audio(run: Run, audio: str) -> Audio:
    import soundfile

    path = run.directories.annotated(audio)
    facts = soundfile.info(str(path))
    run.claim(2, facts.channels, facts.frames)
    samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    return {"waveform": samples.T[None].copy(), "sample_rate": rate}


@node_v3(
    "SaveAudio",
    category="audio",
    module="comfy_extras.nodes_audio",
    title="Save Audio (FLAC)",
    terminal=True,
    hidden=HIDDEN_V3,
    inputs={"audio": AUDIO, "filename_prefix": text(default="audio/ComfyUI", multiline=False)},
)
def save_audio(run: Run, audio: Audio, filename_prefix: str) -> Result:
    return _save(run, audio, filename_prefix, "output")


@node_v3("PreviewAudio", category="audio", module="comfy_extras.nodes_audio", title="Preview Audio", terminal=True, hidden=HIDDEN_V3, inputs={"audio": AUDIO})
def preview_audio(run: Run, audio: Audio) -> Result:
    return _save(run, audio, temporary_prefix(), "temp")


def _save(run: Run, audio: Audio, prefix: str, kind: str) -> Result:
    import soundfile

    base = run.directories.of(kind)
    assert base is not None
    place = run.directories.next_file(base, prefix, now=datetime.now())
    shown = []
    for index, waveform in enumerate(audio["waveform"]):
        stem = place.stem.replace("%batch_num%", str(index))
        name = f"{stem}_{place.counter + index:05}_.flac"
        soundfile.write(str(place.folder / name), waveform.T, audio["sample_rate"], format="FLAC")
        shown.append({"filename": name, "subfolder": place.subfolder, "type": kind})
    return Result(ui={"audio": shown})


def _alike(audio1: Audio, audio2: Audio) -> tuple[Any, Any, int]:
    """Both waveforms in the higher sample rate and the same number of channels."""
    rate = max(audio1["sample_rate"], audio2["sample_rate"])
    channels = max(audio1["waveform"].shape[1], audio2["waveform"].shape[1])
    first, second = (_resampled(audio, rate) for audio in (audio1, audio2))
    return _spread(first, channels), _spread(second, channels), rate


def _spread(waveform: Any, channels: int) -> Any:
    return np.repeat(waveform, channels, axis=1) if waveform.shape[1] == 1 and channels > 1 else waveform


def _resampled(audio: Audio, rate: int) -> Any:
    waveform, old = audio["waveform"], audio["sample_rate"]
    if old == rate:
        return waveform
    count = round(waveform.shape[2] * rate / old)
    positions = np.arange(count) * old / rate
    lines = [np.interp(positions, np.arange(waveform.shape[2]), line) for line in waveform.reshape(-1, waveform.shape[2])]
    return np.stack(lines).reshape(*waveform.shape[:2], count).astype(np.float32)
