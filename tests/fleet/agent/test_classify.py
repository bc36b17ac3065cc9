"""Errors to classes: a class decides who pays, so each real message has its row."""

import pytest

from fleet.agent import classify

ERROR = {"node_id": "3", "node_type": "KSampler", "traceback": [f"line {n}" for n in range(100)]}


@pytest.mark.parametrize(
    ("exception", "message", "code", "failure_class"),
    [
        ("torch.OutOfMemoryError", "Allocation on device", "out_of_memory", "capacity"),
        ("torch.cuda.OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 MiB", "out_of_memory", "capacity"),
        ("RuntimeError", "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory", "out_of_memory", "capacity"),
        ("numpy._core._exceptions._ArrayMemoryError", "Unable to allocate 4.00 TiB", "out_of_memory", "capacity"),
        ("MemoryError", "", "out_of_memory", "capacity"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "out_of_memory", "capacity"),
        ("RuntimeError", "CUDA error: an illegal memory access was encountered", "gpu_fault", "platform"),
        ("re.error", "missing ), unterminated subpattern at position 0\n", "node_failed", "workflow"),
        ("ValueError", "", "node_failed", "workflow"),
    ],
)
def test_an_exception_in_a_node_has_a_class_and_a_code(exception, message, code, failure_class):
    failure = classify.execution_error({**ERROR, "exception_type": exception, "exception_message": message})
    assert (failure.code, failure.failure_class) == (code, failure_class)
    body = failure.body()
    assert body["suggestion"] and body["message"]
    assert body["details"]["node"] == "3" and body["details"]["class_type"] == "KSampler"


def test_tracebacks_stay_in_the_details_and_are_trimmed_to_their_end():
    failure = classify.execution_error({**ERROR, "exception_type": "X", "exception_message": "boom"})
    assert failure.details["traceback"] == [f"line {n}" for n in range(88, 100)]
    assert "line 99" not in failure.message


def test_a_gpu_fault_asks_for_a_new_engine():
    failure = classify.execution_error({**ERROR, "exception_type": "RuntimeError", "exception_message": "CUDA error: device-side assert triggered"})
    assert failure.restart_engine


def test_a_broken_input_file_is_the_customers():
    data = {**ERROR, "node_type": "LoadImage", "exception_type": "PIL.UnidentifiedImageError", "exception_message": "cannot identify image file"}
    assert classify.execution_error(data, input_nodes={"3"}).failure_class == "customer_input"
    assert classify.execution_error(data).failure_class == "workflow"


def test_a_failed_api_node_is_external():
    data = {**ERROR, "node_type": "KlingNode", "exception_type": "Exception", "exception_message": "API down"}
    assert classify.execution_error(data, api_classes={"KlingNode"}).failure_class == "external"


@pytest.mark.parametrize("body", ["500 Internal Server Error", None, [], {"error": "text"}, {"error": {}, "node_errors": []}, {}])
@pytest.mark.parametrize("status", [400, 413, 500])
def test_any_refusal_becomes_a_failure_with_words(status, body):
    failure = classify.validation(status, body)
    assert failure.message and failure.code
    assert failure.failure_class == ("platform" if status >= 500 or not isinstance(body, dict) else "workflow")
