"""The queue: the only place where a job changes its status.

Read as `queue.claim`, `queue.heartbeat`, `queue.complete`, `queue.cancel`, `queue.expire_leases`. The table of
allowed transitions is `fleet.queue.transitions.ALLOWED`; everything else raises. Exactly-once rests on unique
constraints (one running attempt per job, one ledger line per job and meter), not on care.
"""

from fleet.queue.cancelling import cancel
from fleet.queue.claiming import Assignment, claim, ready
from fleet.queue.completing import Completion, complete
from fleet.queue.expiring import expire_deadlines, expire_leases, requeue_worker, take_back
from fleet.queue.heartbeats import Report, Verdict, heartbeat, note_idle
from fleet.queue.transitions import ALLOWED, IllegalTransition

__all__ = [
    "ALLOWED",
    "Assignment",
    "Completion",
    "IllegalTransition",
    "Report",
    "Verdict",
    "cancel",
    "claim",
    "complete",
    "expire_deadlines",
    "expire_leases",
    "heartbeat",
    "note_idle",
    "ready",
    "requeue_worker",
    "take_back",
]
