"""What runs: pools and their workers, how they are sized, jobs with attempts and outputs, and the numbers kept of them."""

from fleet.models.capacity import Pool, PoolOffer, Worker
from fleet.models.change import WorkerChange
from fleet.models.decision import PolicyRevision, ScalingDecision
from fleet.models.demand import CapacityMinute, DemandMinute, Forecast, PlannedDemand
from fleet.models.emergency import EmergencyAction
from fleet.models.files import CustomerFile
from fleet.models.job import Attempt, Choice, FairShare, Job, Output
from fleet.models.quote import Quote
from fleet.models.rollup import MinuteRollup
from fleet.models.smoke import SmokeRun
from fleet.models.spending import PoolDay, SavingsDay, WorkerHour

__all__ = [
    "Attempt",
    "CapacityMinute",
    "Choice",
    "CustomerFile",
    "DemandMinute",
    "EmergencyAction",
    "FairShare",
    "Forecast",
    "Job",
    "MinuteRollup",
    "Output",
    "PlannedDemand",
    "PolicyRevision",
    "Pool",
    "PoolDay",
    "PoolOffer",
    "Quote",
    "SavingsDay",
    "ScalingDecision",
    "SmokeRun",
    "Worker",
    "WorkerChange",
    "WorkerHour",
]
