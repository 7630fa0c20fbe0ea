"""Both images as real processes, as a launcher runs them: files, relay socket, admission socket, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from federation import did
from transport_worlds import make_certificate

from nevermined_fl.tokens import JobKey, make_join_proof
from nevermined_fl.transports.http.client import HttpLink, fingerprint_of, pinned_context

if TYPE_CHECKING:
    from collections.abc import Callable

SESSION = did("e2e")


def agreement(member: str) -> str:
    return "0x" + hashlib.sha256(member.encode()).hexdigest()


class Images:
    """A coordinator's and several participants' job folders, and the processes in them."""

    def __init__(self, folder: Path, plan, algorithm: str, datasets: dict[str, Path], initial: bytes):
        self.folder, self.plan, self.datasets = folder, plan, datasets
        self.keys = {member: JobKey.create() for member in plan.members}
        self.processes: list[asyncio.subprocess.Process] = []
        self.servers: list = []
        self.coordinator = folder / "coordinator"
        self.coordinator.mkdir()
        self.certificate = make_certificate(self.coordinator)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        job = {"session": SESSION, "parameters": plan.to_parameters(), "members": list(plan.members)}
        where = {"kind": "coordinator", "host": "127.0.0.1", "port": self.port, "listen_url": self.url}
        (self.coordinator / "job.json").write_text(json.dumps(job | where))
        (self.coordinator / "initial.safetensors").write_bytes(initial)
        for member, data in datasets.items():
            self._write_participant(job, member, data, algorithm)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def of(self, member: str) -> Path:
        return self.folder / "participants" / member[7:23]

    def inputs(self, member: str) -> Path:
        return self.of(member) / "inputs"

    async def open(self) -> Images:
        """The launcher's part: admissions for the coordinator, a relay for each participant."""
        app = web.Application()
        app.add_routes([web.post("/admissions", self._admit)])
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.UnixSite(self.runner, str(self.coordinator / "admission.sock")).start()
        for member in self.datasets:
            path = str(self.of(member) / "relay.sock")
            self.servers.append(await asyncio.start_unix_server(self._relay, path))
        return self

    async def close(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        for server in self.servers:
            server.close()
        await self.runner.cleanup()

    async def start_coordinator(self) -> asyncio.subprocess.Process:
        return await self._start("coordinator_image", self.coordinator, {})

    async def start_participant(self, member: str) -> asyncio.subprocess.Process:
        folder = self.of(member)
        paths = {"INPUTS": "inputs", "TRANSFORMATIONS": "transformations", "OUTPUTS": "outputs"}
        variables = {f"NEVERMINED_{name}_PATH": str(folder / path) for name, path in paths.items()}
        return await self._start("participant_image", folder, variables)

    async def start(self):
        return await self.start_coordinator(), [await self.start_participant(member) for member in self.datasets]

    async def until(self, folder: Path, event: str, *, times: int = 1, **fields) -> None:
        """Wait until that event stands in the folder's log."""
        await eventually(lambda: sum(line.items() >= fields.items() for line in self.told(folder, event)) >= times)

    def told(self, folder: Path, event: str) -> list[dict]:
        path = folder / "events.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if line["event"] == event]

    def result(self) -> dict:
        return json.loads((self.coordinator / "outputs" / "result.json").read_text())

    def link(self, member: str, key: JobKey | None = None, patience: float = 60.0) -> HttpLink:
        """A link of the test's own, for what no honest participant would do."""
        context = pinned_context(self.certificate, fingerprint_of(self.certificate))
        return HttpLink(self.url, key=key or self.keys[member], context=context, patience=patience)

    def proof(self, member: str, key: JobKey | None = None) -> str:
        fingerprint = fingerprint_of(self.certificate)
        return make_join_proof(key or self.keys[member], session=SESSION, fingerprint=fingerprint, token=member)

    def _write_participant(self, job: dict, member: str, data: Path, algorithm: str) -> None:
        folder = self.of(member)
        for name in (f"inputs/{member[7:]}", "transformations", "outputs"):
            (folder / name).mkdir(parents=True)
        (folder / "inputs" / member[7:] / data.name).write_bytes(data.read_bytes())
        (folder / "transformations" / "algorithm.py").write_text(algorithm)
        rows = data.read_text().count("\n") - 1
        mine = {"kind": "participant", "participant": member, "agreement": agreement(member)}
        (folder / "job.json").write_text(
            json.dumps(job | mine | {"entrypoint": "algorithm.py", "examples": rows, "patience": 30})
        )
        fingerprint = fingerprint_of(self.certificate)
        endpoint = {"url": self.url, "fingerprint": fingerprint, "certificate": self.certificate}
        (folder / "endpoint.json").write_text(json.dumps(endpoint))
        (folder / "join.jwt").write_text(member)  # this test's admission knows members by their DID
        self.keys[member].save(folder / "job.key")

    async def _start(self, image: str, folder: Path, variables: dict[str, str]) -> asyncio.subprocess.Process:
        with (folder / "raw.log").open("ab") as raw:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", image, str(folder)),
                env={"PATH": os.environ["PATH"]} | variables,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=raw,
                stderr=raw,
            )
        self.processes.append(process)
        return process

    async def _admit(self, request: web.Request) -> web.Response:
        member = (await request.json())["token"]
        if member not in self.keys:
            refusal = {"error": "PermissionDenied", "check": "token_signature", "message": "forged"}
            return web.json_response(refusal, status=403)
        known = {"participant": member, "agreement": agreement(member), "thumbprint": self.keys[member].thumbprint}
        return web.json_response(known)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    writer.close()


async def eventually(is_so: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    async with asyncio.timeout(90):
        while not is_so():  # noqa: ASYNC110  nothing in this process could set an Event
            await asyncio.sleep(0.02)


def kill(process: asyncio.subprocess.Process) -> None:
    os.kill(process.pid, signal.SIGKILL)


def listening_sockets(pid: int) -> list[str]:
    """TCP sockets of a process and its children in state LISTEN, by /proc."""
    inodes = set()
    for process in [pid, *_children(pid)]:
        for handle in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(str(handle.readlink()))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.append(fields[1])
    return found


def _children(pid: int) -> list[int]:
    direct = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return direct + [far for child in direct for far in _children(child)]
