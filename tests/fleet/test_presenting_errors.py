"""What customers read of a failure: the sentence and the node, never the worker's insides."""

from __future__ import annotations

from fleet import presenting
from fleet.models import Job


def test_a_customer_never_sees_a_traceback() -> None:
    error = {"code": "node_failed", "message": "m", "suggestion": "s", "details": {"node": "4", "traceback": ["/srv/worker/nodes.py"]}}
    said = presenting.error(Job(error=error, failure_class="workflow", request_id="r"))
    assert said is not None
    assert said["details"] == {"node": "4"}
