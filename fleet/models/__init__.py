"""What runs: pools and their workers, jobs with attempts and outputs, and the numbers kept of them."""

from fleet.models.capacity import Pool, ScalingDecision, Worker
from fleet.models.files import CustomerFile
from fleet.models.job import Attempt, Choice, FairShare, Job, Output
from fleet.models.rollup import MinuteRollup
from fleet.models.smoke import SmokeRun

__all__ = ["Attempt", "Choice", "CustomerFile", "FairShare", "Job", "MinuteRollup", "Output", "Pool", "ScalingDecision", "SmokeRun", "Worker"]
