"""What runs in the small image of the provider's tests: it does one thing, named by DO. Not imported by tests."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def leave(*_):
    print("leaving in order", flush=True)
    sys.exit(0)


def tried(path):
    try:
        Path(path).write_text("x")
    except OSError as error:
        return error.strerror
    return "written"


def status(name):
    return next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":"))


def forks(most):
    children = []
    try:
        for _ in range(most):
            children.append(subprocess.Popen(["/bin/sleep", "5"]))
    except OSError as error:
        return len(children), error.strerror
    finally:
        for child in children:
            child.kill()
            child.wait()
    return len(children), ""


do = os.environ.get("DO", "stay")
print("here", do, flush=True)
if do == "eat":
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1024)) * 4096)
if do.startswith("exit "):
    sys.exit(int(do.split()[1]))
if do == "shout":
    print("\x1b[31mred\x1b[0m\x00 and \xff bytes", flush=True)
    os.write(1, b"\xff\xfe broken\n")
    print("x" * 3_000_000, flush=True)
    print("the end", flush=True)
if do == "probe":
    wide = os.environ.get("WRITES", "/new:/opt/new:/etc/passwd:/tmp/new:/data/new:/dev/shm/new").split(":")
    told = {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "parent": Path("/proc/1/comm").read_text().strip(),
        "capabilities": status("CapEff"),
        "bounding": status("CapBnd"),
        "no_new_privileges": status("NoNewPrivs"),
        "seccomp": status("Seccomp"),
        "writes": {path: tried(path) for path in wide},
        "data_mib": os.statvfs("/data").f_blocks * os.statvfs("/data").f_frsize // 1024**2,
        "forks": forks(200),
        "environment": sorted(os.environ),
        "token_file": Path(os.environ.get("COMFYPLANE_POOL_TOKEN_FILE", "/dev/null")).read_text(),
    }
    print(json.dumps(told), flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN if do == "deaf" else leave)
while True:
    time.sleep(1)
