"""Published scaling rules, modelled for comparison only: no pool is ever sized by one of these.

Each is written from its project's code or documentation (named in its module), sees what that project would see, and runs at its own
pace (`tick_s`). Those that choose victims without asking whether they work say so by `stops_busy`; here such a worker still finishes
its job, which is kinder than most set-ups, and is counted.
"""

from __future__ import annotations

from typing import Any

from fleet.simulation.peers.hpa import HpaUtilisation, HpaWaiting
from fleet.simulation.peers.keda import Keda
from fleet.simulation.peers.knative import Knative
from fleet.simulation.peers.runpod import RunpodDelay, RunpodRequests
from fleet.simulation.peers.static import Static

PEERS: dict[str, type[Any]] = {p.name: p for p in (Static, HpaUtilisation, HpaWaiting, Keda, Knative, RunpodDelay, RunpodRequests)}
