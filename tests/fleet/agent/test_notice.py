"""A machine about to be taken away: its agent is told by a file or a signal, tells the control plane, and ends what it runs."""

import signal
from datetime import UTC, datetime

import pytest

from fleet.agent.notice import USUAL_S, Notice, read

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 1}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "out"}},
}


@pytest.mark.parametrize(
    ("text", "left_s"),
    [
        ("30", 30.0),
        (" 25.5\n", 25.5),
        ("2026-03-02T12:01:30Z", 90.0),
        ("2026-03-02T12:01:30", 90.0),
        ("2026-03-02T11:00:00Z", 0.0),
        ("-5", 0.0),
        ("1e300", 86_400.0),
        ("nan", USUAL_S),
        ("", USUAL_S),
        ('{"action": "terminate"}', USUAL_S),
    ],
)
def test_what_a_notice_says_is_read_leniently(text, left_s):
    assert read(text, now=NOON) == left_s


def test_only_an_earlier_end_is_news():
    moved = []
    notice = Notice(None, moved=lambda: moved.append(1))
    assert notice.left_s() is None and not notice.given
    notice.give(60)
    notice.give(100)
    assert 59 < notice.left_s() <= 60 and moved == [1]
    notice.give(20)
    assert notice.left_s() <= 20 and moved == [1, 1]


def test_a_worker_with_notice_finishes_tells_and_takes_no_other_job(plane, start_agent, tmp_path, wait_until):
    path = tmp_path / "preempted"
    agent = start_agent(plane, "--preempt-file", str(path), env={"COMFYUI_ARGS": "--fault slow=1.2"})
    job = plane.submit(GRAPH)
    wait_until(lambda: plane.running(job), what="running")
    path.write_text("45")
    told = wait_until(lambda: [b["preempt_in_s"] for b in plane.heartbeats if "preempt_in_s" in b], what="notice in a heartbeat")
    assert 40 < told[0] <= 45
    assert plane.completion(job)["outcome"] == "succeeded"
    claims = len(plane.claims)
    wait_until(lambda: any("preempt_in_s" in b and b["state"] == "idle" for b in plane.heartbeats[-2:]), what="idle with notice")
    other = plane.submit(GRAPH)
    plane.drain = True
    assert agent.exit_code() == 0 and (other, 1) not in plane.completions and len(plane.claims) == claims


def test_a_signal_says_the_same(plane, start_agent, wait_until):
    agent = start_agent(plane)
    wait_until(lambda: plane.claims)
    agent.signal(signal.SIGUSR1)
    told = wait_until(lambda: [b["preempt_in_s"] for b in plane.heartbeats if "preempt_in_s" in b], what="notice in a heartbeat")
    assert USUAL_S - 5 < told[0] <= USUAL_S
    assert agent.process.poll() is None
