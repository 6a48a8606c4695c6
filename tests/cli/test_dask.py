"""`edgekit run --dask` with a real scheduler and worker processes, some of which die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from _helpers.support import REPOSITORY, call, spawn

pytest.importorskip("distributed")
pytestmark = pytest.mark.exhaustive

CONFIG = """\
layers = ["onnx:float32"]
variants = ["onnx:float32", "torchscript:float32"]

[[models]]
path = "net.py:build"
framework = "torch"
inputs = ["x:batch,4"]
sample = "inputs.npz"

[[models]]
path = "other.py:build"
framework = "torch"
inputs = ["x:batch,4"]
sample = "inputs.npz"

[bench]
devices = ["board"]
min_duration_s = 0.0
min_runs = 5

[[reports]]
format = "json"
path = "report.json"
"""
# Its code is executed for as long as a file stands beside it.
NET = """\
import time
from pathlib import Path
import torch

def build():
    while Path(__file__).with_name("gate").exists():
        time.sleep(0.05)
    torch.manual_seed({seed})
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
"""
MODELS = ("net", "other")


def make_project(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "edgekit.toml").write_text(CONFIG)
    for seed, name in enumerate(MODELS):
        (root / f"{name}.py").write_text(NET.format(seed=seed))
    samples = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    np.savez(root / "inputs.npz", x=samples)
    profiles = root / "device_profiles"
    profiles.mkdir()
    shipped = (REPOSITORY / "device_profiles/raspberry-pi-4b.toml").read_text()
    (profiles / "board.toml").write_text(shipped.replace("raspberry-pi-4b", "board"))
    return root


@contextmanager
def made_cluster(folder: Path, workers: int, **variables: str):
    """Yield the address of a scheduler, and its worker processes by name."""
    environment = {**os.environ, **variables, "PYTHONPATH": str(REPOSITORY)}
    file = folder / "scheduler.json"
    processes: dict[str, subprocess.Popen] = {}

    def start(name, *arguments):
        log = (folder / f"{name}.log").open("w")
        command = [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(file), "--no-dashboard"]
        processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
        log.close()

    try:
        start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", "0")
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline, (folder / "scheduler.log").read_text()
            time.sleep(0.05)
        for number in range(workers):
            options = ("--nthreads", "1", "--no-nanny", "--name", f"w{number}", "--local-directory", str(folder))
            start(f"w{number}", "worker", *options)
        yield json.loads(file.read_text())["address"], processes
    finally:
        for process in reversed(processes.values()):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with made_cluster(tmp_path_factory.mktemp("cluster"), 2) as (address, _):
        yield address


def at_work(address: str, step: str) -> str:
    """Return the name of the worker that runs the step."""
    code = (
        "import sys, time; from distributed import Client\n"
        "with Client(sys.argv[1], timeout=30) as client:\n"
        "    for _ in range(600):\n"
        "        for address, keys in client.processing().items():\n"
        "            if any(key.startswith(sys.argv[2]) for key in keys):\n"
        "                print(client.scheduler_info(-1)['workers'][address]['name']); sys.exit()\n"
        "        time.sleep(0.1)\n"
    )
    command = [sys.executable, "-c", code, address, step]
    found = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert found.stdout.strip(), found.stderr
    return found.stdout.strip()


def ended(child, timeout=240):
    out, err = child.communicate(timeout=timeout)
    assert "Traceback" not in err, err
    return child.returncode, out, err


def digests(root: Path) -> dict[str, str]:
    found = {}
    for path in sorted(root.glob("build/*/*/*/manifest.json")):
        found[str(path.parent.relative_to(root))] = json.loads(path.read_text())["sha256"]
    return found


def test_a_killed_worker_loses_nothing(tmp_path):
    """One of two workers is killed during a step: the other repeats it, and the results equal those of a local run."""
    alone, root = make_project(tmp_path / "alone"), make_project(tmp_path / "shared")
    assert call("run", "--root", alone, "--quiet").code == 0
    (root / "gate").touch()
    with made_cluster(tmp_path, 2) as (address, processes):
        child = spawn("run", "--root", root, "--json", "--dask", address)
        worker = at_work(address, "import net/torch")
        processes[worker].send_signal(signal.SIGKILL)
        processes[worker].wait()
        (root / "gate").unlink()
        code, out, err = ended(child)
    assert code == 0, err
    steps = json.loads(out)["steps"]
    assert {step["state"] for step in steps} == {"done"}
    assert len(steps) == len(MODELS) * (1 + 2 * 4 + 1) + 1
    assert len(digests(root)) == 4
    assert len(list(root.rglob("layers.json"))) == len(MODELS)
    assert digests(root) == digests(alone)
    assert call("verify", "--root", root).code == 0
    assert "nothing to do" in call("run", "--root", root).out
    assert not list(root.rglob(".edgekit-*"))
    assert not list(root.glob("build/.edgekit/*.token"))


def test_hosts_that_share_no_folder_pass_files_through_a_store(tmp_path, cluster):
    root, store = make_project(tmp_path / "project"), tmp_path / "store"
    answer = ended(spawn("run", "--root", root, "--json", "--dask", cluster, "--store", store.as_uri()))
    assert answer[0] == 0, answer[2]
    assert {step["state"] for step in json.loads(answer[1])["steps"]} == {"done"}
    assert call("verify", "--root", root).code == 0
    objects = [path for path in store.rglob("*") if path.is_file()]
    kept = {path.name for path in objects}
    model = root / "build/net/torch/onnx-float32/model.onnx"
    assert digests(root)["build/net/torch/onnx-float32"] in kept  # it came this way
    assert all(len(path.name) == 64 for path in objects)  # and nothing half written is left
    # Content of the store is checked: the worker reads an artifact with one wrong byte.
    damaged = next(path for path in objects if path.name == digests(root)["build/net/torch/onnx-float32"])
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    again = ("run", "--root", root, "--dask", cluster, "--store", store.as_uri(), "validate net/torch onnx*")
    (root / "build/net/torch/onnx-float32/validation.json").unlink()
    code, _, err = ended(spawn(*again))
    assert (code, "was damaged and has been removed; run the command again" in err) == (4, True), err
    assert ended(spawn(*again))[0] == 0


def test_ctrl_c_stops_the_steps_of_the_workers(tmp_path, cluster):
    root = make_project(tmp_path / "project")
    (root / "gate").touch()
    child = spawn("run", "--root", root, "--dask", cluster)
    at_work(cluster, "import net/torch")
    child.send_signal(signal.SIGINT)
    code, _, err = ended(child, timeout=60)
    assert code == 130, err
    (root / "gate").unlink()
    code, _, err = ended(spawn("run", "--root", root, "--dask", cluster, "import *"))
    assert code == 0, err


def test_an_error_of_a_remote_step_is_reported_locally(tmp_path, cluster):
    root = make_project(tmp_path / "project")
    (root / "net.py").write_text("def build():\n    raise RuntimeError('no weights today')\n")
    code, out, err = ended(spawn("run", "--root", root, "--json", "--dask", cluster))
    assert code == 2
    assert "no weights today" in err
    states = {step["step"]: step["state"] for step in json.loads(out)["steps"]}
    assert states["import net/torch"] == "failed"
    assert states["export net/torch onnx:float32"] == "blocked"
    assert states["check other/torch onnx:float32"] == "done"


def test_a_step_that_kills_each_worker_is_one_sentence(tmp_path):
    root = make_project(tmp_path / "project")
    # The worker of the cluster is the parent of the process that runs the model's code.
    (root / "net.py").write_text("import os\ndef build():\n    os.kill(os.getppid(), 9)\n")
    with made_cluster(tmp_path, 2, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as (address, _):
        code, out, err = ended(spawn("run", "--root", root, "--dask", address))
    assert code == 4
    assert "import net/torch: every Dask worker that started this step died" in err
    assert "11 of 21 steps done, 1 failed, 9 not started" in out, err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--dask", "tcp://127.0.0.1:9"), 4, "no Dask scheduler answers at tcp://127.0.0.1:9"),
        (("--dask", "pigeon://roof"), 2, "'pigeon://roof' is not a valid Dask scheduler address"),
        (("--store", "file:///tmp/x"), 2, "--store needs --dask"),
        (("--dask", "CLUSTER", "--store", "pigeon://roof"), 2, "pigeon://roof: not a valid store URL"),
        (
            ("--dask", "CLUSTER", "--store", "abfs://box/x"),
            3,
            "the store abfs://box/x needs a package that is not installed",
        ),
        (("--dask", "CLUSTER", "--store", "file:///proc/nowhere"), 2, "cannot write to the store file:///proc/nowhere"),
    ],
)
def test_an_invalid_cluster_or_store_is_one_sentence(tmp_path, cluster, arguments, code, sentence):
    root = make_project(tmp_path / "project")
    words = [cluster if word == "CLUSTER" else word for word in arguments]
    found, _, err = ended(spawn("run", "--root", root, *words))
    assert (found, sentence in err) == (code, True), err
    assert not (root / "build/net").exists()


def test_a_cluster_without_workers(tmp_path):
    root = make_project(tmp_path / "project")
    with made_cluster(tmp_path, 0) as (address, _):
        code, _, err = ended(spawn("run", "--root", root, "--dask", address))
    assert code == 4
    assert f"the Dask cluster at {address} has no workers" in err


HOSTILE = """
import hashlib, os
from pathlib import Path
from edgekit.stages.cluster import remote_step

# Dask may execute this file twice.
answered = remote_step.answered = getattr(remote_step, "answered", remote_step.execute)

def execute(data):
    if not data["step"]["name"].startswith("export"):
        return answered(data)
    name, digest = os.environ["HOSTILE_FILE"], hashlib.sha256(b"evil").hexdigest()
    if data["store"]:
        path = Path(data["store"].removeprefix("file://"), "objects", digest[:2], digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"evil")
    return {"detail": "", "code": 0, "files": {name: digest}, "seconds": 0.1, "waited_s": 0.0}

remote_step.execute = execute
"""


@pytest.mark.parametrize(
    "file", ["../outside.txt", "/ABSOLUTE/outside.txt", "net.py", "build/net/torch/onnx-float32/../../../../net.py"]
)
def test_a_worker_cannot_name_files_that_its_step_does_not_write(tmp_path, file):
    root, store = make_project(tmp_path / "project"), tmp_path / "store"
    file = file.replace("/ABSOLUTE", str(tmp_path))
    (tmp_path / "hostile.py").write_text(HOSTILE)
    preload = {"DASK_DISTRIBUTED__WORKER__PRELOAD": str(tmp_path / "hostile.py"), "HOSTILE_FILE": file}
    before = (root / "net.py").read_text()
    with made_cluster(tmp_path, 1, **preload) as (address, _):
        command = ("run", "--root", root, "--dask", address, "--store", store.as_uri(), "export net/torch onnx*")
        code, _, err = ended(spawn(*command))
    assert code == 4, err
    assert f"the Dask worker answered with the file {file!r}, which is not an output of this step" in err
    assert (root / "net.py").read_text() == before
    assert not (tmp_path / "outside.txt").exists()
