"""BuildKit's plain progress, read line by line; other people's output is never taken for BuildKit's own words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builds.images import failures, layers
from builds.images.progress import MAX_NAME, MAX_TEXT, Progress, clean, exit_code
from builds.models import BuildStep

# As Debian's docker 20.10 wrote it, two steps at the same time.
SAID = """#1 [internal] load remote build context
#1 sha256:9c5cffd4ebde29f6582274e6d7df9b74c8d690e67d17fda0c41852186ed3ef58
#1 DONE 0.0s

#5 [os 2/2] RUN groupadd --gid 10001 comfy     && useradd comfy
#5 sha256:12b9af162c6feefebb89da30d6994cfb81fef252d421ee9368f777aa5246b482
#5 CACHED

#7 [tools 2/4] RUN --mount=type=cache,target=/root/.cache/pip pip install idna
#7 1.496 Collecting idna==3.7
#7 ...

#6 [tools 1/4] RUN python3 -m venv /opt/tools
#6 DONE 6.4s

#7 [tools 2/4] RUN --mount=type=cache,target=/root/.cache/pip pip install idna
#7 1.630 #6 ERROR: fake
#7 1.640 #9 [evil 1/1] RUN fake
#7 DONE 1.9s

#11 [final 2/2] RUN false
#11 0.139 1
#11 ERROR: executor failed running [/bin/sh -c false]: exit code: 1
------
 > [final 2/2] RUN false:
------
executor failed running [/bin/sh -c false]: exit code: 1
"""


def read(text: str) -> Progress:
    progress = Progress()
    for line in text.splitlines(keepends=True):
        progress.feed(line)
    return progress


def test_steps_are_read_with_state_time_and_their_own_output() -> None:
    progress = read(SAID)
    told = {step.number: (step.name, step.stage, step.state, step.seconds) for step in progress.steps.values()}
    assert told == {
        1: ("[internal] load remote build context", "", "done", 0.0),
        5: ("[os 2/2] RUN groupadd --gid 10001 comfy && useradd comfy", "os", "cached", 0.0),
        7: ("[tools 2/4] RUN pip install idna", "tools", "done", 1.9),
        6: ("[tools 1/4] RUN python3 -m venv /opt/tools", "tools", "done", 6.4),
        11: ("[final 2/2] RUN false", "final", "failed", None),
    }
    assert progress.steps[7].tail == ["Collecting idna==3.7", "#6 ERROR: fake", "#9 [evil 1/1] RUN fake"]
    failed = progress.failed
    assert failed is not None and failed.number == 11 and exit_code(failed.error) == 1


@given(st.lists(st.text(max_size=200), max_size=40))
def test_output_never_becomes_a_step(lines: list[str]) -> None:
    progress = Progress()
    progress.feed("#3 [a 1/1] RUN x\n")
    for index, text in enumerate(lines):
        for part in text.splitlines() or [""]:
            progress.feed(f"#3 {index}.001 {part}\n")
    assert list(progress.steps) == [3] and progress.steps[3].state == "running" and progress.failed is None


@given(st.lists(st.text(max_size=400), max_size=60))
def test_anything_at_all_can_be_fed(lines: list[str]) -> None:
    progress = Progress()
    for line in lines:
        said = progress.feed(line)
        assert said is None or (len(said.text) <= MAX_TEXT and all(c.isprintable() or c in "\t\ufffd" for c in said.text))
    positions = [step.position for step in progress.steps.values()]
    assert positions == list(range(1, len(positions) + 1))
    assert all(len(step.name) <= MAX_NAME and len(step.tail) <= 30 for step in progress.steps.values())


@given(st.permutations([2, 3, 4]), st.lists(st.sampled_from([2, 3, 4]), max_size=30))
def test_interleaving_does_not_matter(order: list[int], spoken: list[int]) -> None:
    progress = Progress()
    for number in order:
        progress.feed(f"#{number} [s{number} 1/1] RUN {number}\n")
    for index, number in enumerate(spoken):
        progress.feed(f"#{number} {index}.5 {number} says {index}\n")
    for number in order:
        progress.feed(f"#{number} DONE {number}.0s\n")
    for number in order:
        assert progress.steps[number].tail == [f"{number} says {i}" for i, n in enumerate(spoken) if n == number]
        assert (progress.steps[number].state, progress.steps[number].seconds) == ("done", float(number))


def test_colours_returns_and_control_characters_are_taken_off() -> None:
    assert clean("\x1b[31mred\x1b[0m\n") == "red"
    assert clean(" 10%\r 50%\r100%\n") == "100%"
    assert clean("a\x00b\u202ec") == "a\ufffdb\ufffdc"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("#1 [pack-1 3/3] RUN timeout 600 python install.py\n#1 ERROR: executor failed running [x]: exit code: 1\n", "pack_install_failed"),
        ("#1 [pack-1 3/3] RUN timeout 600 python install.py\n#1 ERROR: executor failed running [x]: exit code: 124\n", "pack_install_timed_out"),
        ("#1 [torch-packages 1/1] RUN /opt/pip/bin/python -m pip install\n#1 ERROR: exit code: 1\n", "packages_failed"),
        ("#1 [torch-packages 1/1] RUN /opt/pip/bin/python -m pip install\n#1 0.1 No space left on device\n#1 ERROR: exit code: 1\n", "disk_full"),
        ("#3 [internal] load metadata for docker.io/library/x\n#3 ERROR: failed to do request\n", "base_image_unreachable"),
        ("#1 [os 2/2] RUN groupadd\n#1 ERROR: exit code: 9\n", "build_failed"),
        ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n", "docker_unavailable"),
        ("unknown flag: --secret\n", "build_failed"),
    ],
)
def test_a_failure_is_named_by_what_failed(text: str, code: str) -> None:
    error = failures.of_build(read(text), 1, pack_install_s=600)
    assert error.code == code and error.message and error.suggestion and error.details["tail"]


def step(position: int, name: str) -> BuildStep:
    return BuildStep(position=position, name=name, stage=name[1:].split(" ")[0], state="done")


def test_layer_sizes_go_to_the_steps_that_made_them_or_to_none() -> None:
    steps = [
        step(4, "[os 2/2] RUN groupadd x"),
        step(9, "[image 2/3] COPY lock.json /x"),
        step(7, "[runtime 1/1] COPY --from=tools /a /a"),
        step(3, "[tools 1/1] RUN y"),
    ]
    history = [
        {"CreatedBy": 'ENTRYPOINT ["x"]', "Size": 0},
        {"CreatedBy": "COPY lock.json /x # buildkit", "Size": 3},
        {"CreatedBy": "COPY /a /a # buildkit", "Size": 2},
        {"CreatedBy": "RUN /bin/sh -c groupadd x # buildkit", "Size": 1},
        {"CreatedBy": "", "Size": 100},
    ]
    assert layers.sizes(steps, history) == {4: 1, 7: 2, 9: 3}
    assert layers.sizes(steps, history[1:3]) == {}, "a history that does not fit is not guessed at"
