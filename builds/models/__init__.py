"""The tables of `builds`: what to run, from what it is made, and the images made of it."""

from builds.models.image import Build, BuildLine, BuildStep, Lock, VersionLock
from builds.models.node_library import NodeLibrary
from builds.models.pack import KnownModel, NodeList, Pack, PackClass, Pin
from builds.models.workflow import Branch, BranchMove, Channel, SmokeInput, Version, Workflow

__all__ = [
    "Branch",
    "BranchMove",
    "Build",
    "BuildLine",
    "BuildStep",
    "Channel",
    "KnownModel",
    "Lock",
    "NodeLibrary",
    "NodeList",
    "Pack",
    "PackClass",
    "Pin",
    "SmokeInput",
    "Version",
    "VersionLock",
    "Workflow",
]
