"""A pool of workers in fast motion: jobs arrive as they did or might, and the real sizing code decides at every tick.

`pool` plays the queue and the workers, `learning` what a live pool would have measured by then, `outcome` sums up, `traces` reads
what arrived. `peers` are published scaling rules, for comparison only. Pure: no database, no clock, no settings.
"""

from fleet.simulation.outcome import Outcome
from fleet.simulation.pool import simulate

__all__ = ["Outcome", "simulate"]
