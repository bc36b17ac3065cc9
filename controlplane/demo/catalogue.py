"""The demo workflows: which graph, what it is called, and which of its inputs a customer may set.

An input is named by the title of its node, so that a graph can be edited in ComfyUI without counting node ids.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Exposed:
    """One input: the title of the node, the input on it, and what the customer reads."""

    node: str
    input: str
    name: str
    title: str
    description: str
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One workflow of the catalogue."""

    slug: str
    name: str
    description: str
    category: str
    inputs: tuple[Exposed, ...]
    quality: str = "high"
    timeout_s: int = 120

    @property
    def graph(self) -> dict[str, dict[str, Any]]:
        loaded: dict[str, dict[str, Any]] = json.loads((HERE / f"{self.slug}.json").read_text())
        return loaded

    def expose(self, *, files: dict[str, str]) -> list[dict[str, Any]]:
        """What to ask of the import; `files` gives the blob behind each file input."""
        ids = {node.get("_meta", {}).get("title"): node_id for node_id, node in self.graph.items()}
        return [
            {
                "node": ids[one.node],
                "input": one.input,
                "name": one.name,
                "title": one.title,
                "description": one.description,
                **one.more,
                **({"default": f"blob:{files[one.name]}", "required": False} if one.name in files and one.input in ("image", "audio") else {}),
            }
            for one in self.inputs
        ]


def _seed(description: str = "The same number gives the same picture; leave it out for a new one every time.") -> Exposed:
    return Exposed("Seed", "value", "seed", "Seed", description, {"minimum": 0, "maximum": 2**32 - 1, "randomize": True})


def _colour(node: str, name: str, title: str, description: str) -> Exposed:
    return Exposed(node, "color", name, title, f"{description} A number from 0 to 16777215: red × 65536 + green × 256 + blue.")


ENTRIES = (
    Entry(
        "first-image",
        "Dusk over the hills",
        "A layered landscape at dusk. Every seed draws other hills and clouds; choose the colours of the sky and how much film grain there is.",
        "image",
        (
            _seed(),
            _colour("Sky colour, top", "sky_top", "Sky", "Colour of the sky at the top."),
            _colour("Sky colour, horizon", "horizon", "Horizon", "Colour of the sky where the sun goes down."),
            _colour("Near hills: colour", "hills", "Hills", "Colour of the nearest hills."),
            Exposed("Film grain", "strength", "grain", "Grain", "From 0, clean, to 0.4, an old film.", {"minimum": 0.0, "maximum": 0.4}),
            Exposed("Size", "largest_size", "size", "Size", "Width of the picture in pixels; it is 16:10.", {"minimum": 128, "maximum": 1920}),
        ),
    ),
    Entry(
        "sunrise-loop",
        "Sunrise, as a loop",
        "Sixteen frames of a sun that rises and sets behind hills: an animated WebP that loops without a seam.",
        "animation",
        (
            _seed("The same number gives the same hills; leave it out for new ones every time."),
            Exposed("Save", "fps", "fps", "Frames a second", "How fast the sun moves.", {"minimum": 2, "maximum": 30}),
            Exposed("Save", "quality", "quality", "Quality", "Smaller files below 80, finer ones above.", {"minimum": 30, "maximum": 100}),
            _colour("Day, horizon", "day", "Daylight", "Colour of the horizon by day."),
        ),
    ),
    Entry(
        "four-variations",
        "Four colour studies",
        "A batch of soft colour fields on paper: one mood, as many variations as you ask for.",
        "image",
        (
            _seed("The same number gives the same studies; leave it out for new ones every time."),
            Exposed("Canvas for each picture", "batch_size", "count", "How many", "Number of pictures.", {"minimum": 1, "maximum": 8}),
            _colour("Colour, top", "top", "Top", "Colour the studies start from."),
            _colour("Colour, bottom", "bottom", "Bottom", "Colour the studies end in."),
        ),
    ),
    Entry(
        "poster-print",
        "Poster print",
        "Your picture as a print in a few inks on textured paper with a border. Without a picture it prints one of ours.",
        "image",
        (
            Exposed("Your picture", "image", "picture", "Picture", "PNG, JPEG or WebP: a file id, or a data: address."),
            Exposed("Few inks", "colors", "inks", "Inks", "Number of colours in the print.", {"minimum": 2, "maximum": 24}),
            Exposed("Few inks", "dither", "screen", "Screen", "How shades are made from the inks."),
        ),
    ),
    Entry(
        "echo-chamber",
        "Echo chamber",
        "Your sound with three echoes. Without a sound it plays a chord of ours.",
        "audio",
        (
            Exposed("Your sound", "audio", "sound", "Sound", "WAV, FLAC, OGG or MP3: a file id, or a data: address."),
            Exposed("Pause before the echo", "duration", "pause_s", "Pause", "Seconds between the echoes.", {"minimum": 0.05, "maximum": 2.0}),
            Exposed("Length", "duration", "length_s", "Length", "Seconds taken from the start of the sound.", {"minimum": 0.5, "maximum": 60.0}),
        ),
    ),
    Entry(
        "night-lights",
        "Night lights, long exposure",
        "City lights far out of focus, at 1280 × 800, with a lens glow built up step by step. Slow on purpose: watch its progress.",
        "image",
        (
            _seed(),
            Exposed("Grain of a long exposure", "strength", "grain", "Grain", "From 0, clean, to 0.4.", {"minimum": 0.0, "maximum": 0.4}),
            _colour("Night, bottom", "ground", "Ground", "Colour of the night near the ground."),
        ),
        quality="highest",
        timeout_s=300,
    ),
    Entry(
        "headline",
        "Headline",
        "Tidies a text: one space between words, your replacement, your letters. A pattern that is not a regular expression fails, and says why.",
        "text",
        (
            Exposed("Text", "value", "text", "Text", "What to tidy."),
            Exposed("Your replacement", "regex_pattern", "find", "Find", "A regular expression."),
            Exposed("Your replacement", "replace", "replace", "Replace", "What to put in its place."),
            Exposed("Letters", "mode", "letters", "Letters", "Capitals and small letters."),
        ),
        timeout_s=30,
    ),
)
