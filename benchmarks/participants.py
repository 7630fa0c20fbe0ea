"""``python -m benchmarks.participants FOLDER...``: real participants in one process, one per folder, that train nothing.

All of a participant is real (join token and proof, long-poll, download, digests, kept update, upload, signed report) but
the trainer: it returns updates that were prepared beforehand, whose digests are known.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.work import variant_bytes
from nevermined_fl.codecs import safetensors
from nevermined_fl.participant import Credentials, Participant
from nevermined_fl.session import Plan
from nevermined_fl.tokens import JobKey
from nevermined_fl.trainers.child import Measured, Trained
from nevermined_fl.transports.http.client import HttpLink, pinned_context

_PATIENCE = 600.0


class Prepared:
    """A trainer in whose place updates lie ready: one file, of which every round has another variant."""

    def __init__(self, update: Path, digests: list[str], examples: int) -> None:
        self._update, self._digests, self._examples = update, digests, examples
        self._round = 0

    async def fit(self, model: Path, seed: int, into: Path, seconds: float, *, control: Path | None = None) -> Trained:
        """Make the file this round's variant and link it to where it should be."""
        self._lay_ready(into)
        return Trained(self._digests[self._round], self._examples, {})

    async def evaluate(self, model: Path, seconds: float) -> Measured:
        """Say that all is well."""
        return Measured(self._examples, {"accuracy": 0.5})

    def _lay_ready(self, into: Path) -> None:
        self._round += 1
        with self._update.open("r+b") as file:
            file.seek(-len(variant_bytes(0)), os.SEEK_END)
            file.write(variant_bytes(self._round))
        into.unlink(missing_ok=True)
        os.link(self._update, into)


async def take_part(folder: Path, plan: Plan, trainer: Any) -> None:
    """Join with what lies in the folder and do what the coordinator asks."""
    job = json.loads((folder / "job.json").read_text())
    key = JobKey.load(folder / "job.key")
    who = Credentials(job["session"], job["participant"], job["token"], key, job["fingerprint"])
    context = pinned_context(job["certificate"], job["fingerprint"]) if job["tls"] else None
    limit = safetensors.file_size(plan.carried())
    link = HttpLink(job["url"], key=key, context=context, patience=_PATIENCE, limit=limit)
    try:
        await Participant(plan, who, link=link, trainer=trainer, folder=folder).run()
    finally:
        await link.close()


def read_plan(folder: Path) -> Plan:
    """The plan of the participant whose folder it is."""
    body = json.loads((folder.parent / "plan.json").read_text())
    return Plan.from_parameters(body["parameters"], tuple(body["members"]))


def _prepared(folder: Path) -> Prepared:
    job = json.loads((folder / "job.json").read_text())
    return Prepared(Path(job["update"]), job["digests"], job["examples"])


async def main(folders: list[Path]) -> None:
    plan = read_plan(folders[0])
    await asyncio.gather(*(take_part(folder, plan, _prepared(folder)) for folder in folders))


if __name__ == "__main__":
    asyncio.run(main([Path(folder) for folder in sys.argv[1:]]))
