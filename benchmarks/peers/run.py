"""Run one peer's federation and measure it as ours is measured: functions that return the printed line's numbers."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.network import free_port
from benchmarks.peers.processes import marked
from benchmarks.watch import POLL, BenchmarkFailed, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.peers.processes import Marked
    from benchmarks.work import Work

_HERE = Path(__file__).parent
_LONGEST = 1200.0
_FLOWER_PORT = 8000
"""The SuperLink's own; in a private network nobody else has it."""


def flower_superlink(work: Work, python: Path) -> dict[str, Any]:
    """SuperLink with its server app, and a SuperNode per client; all in the clear."""
    server, client = r"flower-superlink|flwr-serverapp", r"flower-supernode|flwr-clientapp"
    with _peer(work, "superlink", server, client) as (peer, folder, watch):
        environment = _environment(peer, python, folder) | {"FLWR_HOME": str(folder), "FLWR_TELEMETRY_ENABLED": "0"}
        connection = (
            f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{_FLOWER_PORT}"\ninsecure = true\n'
        )
        (folder / "config.toml").write_text(connection)
        start = _starter(environment, folder)
        start("flower-superlink", "--insecure", "--disable-runtime-dependency-installation")
        time.sleep(6)  # it says nowhere when it is ready
        address = f"127.0.0.1:{_FLOWER_PORT}"
        for number in range(work.clients):
            node = ["--insecure", "--superlink", address, "--port", str(9100 + number), "--node-config", f"id={number}"]
            start("flower-supernode", *node)
            time.sleep(0.3)
        time.sleep(3 + 0.5 * work.clients)
        wanted = f'params={work.params} clients={work.clients} rounds={work.rounds + 1} events="{folder}/events.jsonl"'
        command = [str(python.parent / "flwr"), "run", str(_HERE / "flower_app"), "here", "--run-config", wanted]
        begun = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if begun.returncode:
            raise BenchmarkFailed(begun.stdout + begun.stderr)
        _wait(watch, folder)
    return watch.result(work.theoretical_bytes())


def flower_grpc(work: Work, python: Path) -> dict[str, Any]:
    """start_server and start_client, in the clear."""
    with _peer(work, "grpc", r"flower_grpc.py serve", r"flower_grpc.py client") as (peer, folder, watch):
        start = _starter(_environment(peer, python, folder), folder)
        job = {"address": f"127.0.0.1:{free_port()}", "params": work.params, "clients": work.clients}
        job |= {"rounds": work.rounds + 1, "events": f"{folder}/events.jsonl"}
        script = str(_HERE / "flower_grpc.py")
        start(str(python), script, "serve", json.dumps(job))
        for number in range(work.clients):
            start(str(python), script, "client", json.dumps(job | {"number": number}))
        _wait(watch, folder)
    return watch.result(work.theoretical_bytes())


def nvflare(work: Work, python: Path) -> dict[str, Any]:
    """The proof-of-concept deployment: parent and job process for the server and for each client."""
    server, client = r"server_train|runner_process", r"client_train|worker_process|nvflare_client"
    with _peer(work, "nvflare", server, client) as (peer, folder, watch):
        places = {"NVFLARE_POC_WORKSPACE": f"{folder}/poc", "NEVERMINED_FL_EVENTS": f"{folder}/events.jsonl"}
        start = _starter(_environment(peer, python, folder) | places, folder)
        job = {"params": work.params, "clients": work.clients, "rounds": work.rounds + 2}
        job |= {"initial": f"{folder}/initial.npy", "client": str(_HERE / "nvflare_client.py")}
        start(str(python), str(_HERE / "nvflare_job.py"), json.dumps(job))
        _wait(watch, folder)
    return watch.result(work.theoretical_bytes())


@contextmanager
def _peer(work: Work, name: str, server: str, client: str) -> Iterator[tuple[Marked, Path, Watch]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"nevermined-fl-{name}-")))
        peer = stack.enter_context(marked(f"{name}-{time.time_ns()}", server=server, client=client))
        yield peer, folder, Watch(folder / "events.jsonl", work.rounds, peer.servers, peer.clients)


def _environment(peer: Marked, python: Path, folder: Path) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return mine | peer.environment() | {"HOME": str(folder), "PATH": f"{python.parent}:{mine['PATH']}"}


def _starter(environment: dict[str, str], folder: Path) -> Callable[..., subprocess.Popen[bytes]]:
    def start(*command: str) -> subprocess.Popen[bytes]:
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(
                command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    return start


def _wait(watch: Watch, folder: Path) -> None:
    until = time.monotonic() + _LONGEST
    while not watch.is_over():
        watch.look()
        if time.monotonic() > until:
            raise BenchmarkFailed((folder / "log").read_bytes()[-3000:].decode(errors="replace"))
        time.sleep(POLL)
