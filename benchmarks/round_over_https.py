"""How long does a round take, and what does it cost the coordinator? Real coordinator, virtual participants, no training.

    python benchmarks/round_over_https.py [--parameters 10000000] [--participants 10] [--rounds 4] [--plain]

Participants live in two processes and post prepared bytes through the real HTTPS link. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from federation import did, make_plan
from transport_worlds import SESSION, make_certificate

from nevermined_fl.codecs import safetensors
from nevermined_fl.driver import Driver
from nevermined_fl.files import sha256_file
from nevermined_fl.messages import Finish, JoinRequest, Report, Train
from nevermined_fl.ports import Admitted
from nevermined_fl.tokens import JobKey, make_join_proof
from nevermined_fl.transports.http.client import HttpLink, fingerprint_of, pinned_context
from nevermined_fl.transports.http.server import HttpServer, server_context

CLIENTS = 2


def members(arguments):
    return sorted(did(str(n)) for n in range(arguments.participants))


def plan_of(arguments, folder: Path):
    initial = (folder / "initial.safetensors").read_bytes()
    return make_plan(members(arguments), initial, rounds=arguments.rounds, metrics=(), round_timeout=300.0)


def peak_rss():
    """VmHWM in MB; ru_maxrss would count what the parent had before exec."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


class Everybody:
    """Admits whoever has a key in the folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    async def admit(self, token):
        key = JobKey.load(self.folder / f"{token[7:]}.key")
        return Admitted(token, "0x" + hashlib.sha256(token.encode()).hexdigest(), key.thumbprint)


async def coordinate(arguments, folder: Path):
    plan = plan_of(arguments, folder)
    fingerprint = fingerprint_of((folder / "tls.crt").read_text())
    driver = Driver(
        plan,
        SESSION,
        folder=folder / "coordinator",
        initial=folder / "initial.safetensors",
        outputs=folder / "outputs",
        admission=Everybody(folder),
        fingerprint=fingerprint,
    )
    server = HttpServer(driver.service, status=dict)
    context = None if arguments.plain else server_context(folder / "tls.crt", folder / "tls.key")
    print(await server.start("127.0.0.1", 0, context), flush=True)
    started = resource.getrusage(resource.RUSAGE_SELF)
    await driver.run()
    used = resource.getrusage(resource.RUSAGE_SELF)
    await server.close()
    driver.close()
    cpu = used.ru_utime + used.ru_stime - started.ru_utime - started.ru_stime
    print(json.dumps({"cpu": cpu, "rss_mb": peak_rss()}), flush=True)


async def participate(arguments, folder: Path, name: str):
    key = JobKey.load(folder / f"{name[7:]}.key")
    certificate = (folder / "tls.crt").read_text()
    fingerprint = fingerprint_of(certificate)
    scheme = "http" if arguments.plain else "https"
    context = None if arguments.plain else pinned_context(certificate, fingerprint)
    link = HttpLink(f"{scheme}://127.0.0.1:{arguments.port}", key=key, context=context)
    await link.join(JoinRequest(name, make_join_proof(key, session=SESSION, fingerprint=fingerprint, token=name)))
    update = folder / f"{name[7:]}.update"
    digest, after = sha256_file(update), 0
    while not isinstance(task := await link.next_task(after=after, wait=25), Finish):
        if isinstance(task, Train):
            after = task.seq
            await link.fetch_model(task.model, folder / f"{name[7:]}.model")
            await link.send_update(round_number=task.round, digest=digest, path=update)
            await link.report(Report(SESSION, task.round, task.model, digest, 10))
    await link.close()


async def participants(arguments, folder: Path):
    mine = members(arguments)[arguments.share :: CLIENTS]
    await asyncio.gather(*(participate(arguments, folder, name) for name in mine))


def prepare(arguments, folder: Path):
    rng = np.random.default_rng(1)
    for name in [*members(arguments), ""]:
        raw = safetensors.dump({"w": rng.standard_normal(arguments.parameters, np.float32)})
        (folder / (f"{name[7:]}.update" if name else "initial.safetensors")).write_bytes(raw)
        if name:
            JobKey.create().save(folder / f"{name[7:]}.key")
    make_certificate(folder)


def orchestrate(arguments, folder: Path):
    prepare(arguments, folder)
    common = ["--folder", str(folder), *sys.argv[1:]]
    server = subprocess.Popen(
        [sys.executable, __file__, "--role", "coordinator", *common], stdout=subprocess.PIPE, text=True
    )
    port = server.stdout.readline().strip()
    clients = [
        subprocess.Popen(
            [sys.executable, __file__, "--role", "participants", "--share", str(n), "--port", port, *common]
        )
        for n in range(CLIENTS)
    ]
    cost = json.loads(server.stdout.read())
    assert [process.wait() for process in [server, *clients]] == [0] * (CLIENTS + 1)
    lines = [json.loads(line) for line in (folder / "coordinator" / "events.jsonl").read_text().splitlines()]
    starts = [line["time"] for line in lines if line["event"] == "round_started"]
    ends = [line["time"] for line in lines if line["event"] == "round_committed"]
    rounds = [round(end - start, 3) for start, end in zip(starts, ends, strict=True)]
    print(
        json.dumps(
            {
                "parameters": arguments.parameters,
                "participants": arguments.participants,
                "tls": not arguments.plain,
                "rounds": rounds,
                "median_seconds": median(rounds),
                "coordinator_cpu_per_round": round(cost["cpu"] / arguments.rounds, 3),
                "coordinator_peak_rss_mb": round(cost["rss_mb"], 1),
                "when": time.strftime("%Y-%m-%d"),
            }
        )
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--participants", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--role", default="")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--share", type=int, default=0)
    parser.add_argument("--port", default="")
    arguments = parser.parse_args()
    if arguments.role == "coordinator":
        asyncio.run(coordinate(arguments, arguments.folder))
    elif arguments.role == "participants":
        asyncio.run(participants(arguments, arguments.folder))
    else:
        with tempfile.TemporaryDirectory() as folder:
            orchestrate(arguments, Path(folder))


if __name__ == "__main__":
    main()
