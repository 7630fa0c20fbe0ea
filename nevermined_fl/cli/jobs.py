"""Commands ``start``, ``status``, ``logs`` and ``stop``: running what was bought."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nevermined_fl.cli.app import app, command
from nevermined_fl.cli.options import JsonFlag, KeyFileOption, NetworkOption, PasswordOption, data_scientist
from nevermined_fl.cli.output import Output
from nevermined_fl.errors import NotFound
from nevermined_fl.marketplace.progress import headline, headline_with_time, members, waiting_for

if TYPE_CHECKING:
    from nevermined_fl import DataScientist

__all__: list[str] = []

_WATCH_PAUSE = 1.0
_OVER = {"Succeeded", "Failed", "Error"}

Agreement = Annotated[str, typer.Argument(metavar="AGREEMENT", help="0x…")]
Execution = Annotated[
    str, typer.Option("--execution", help="An execution's id, from `start`; default the agreement's newest.")
]


@command(app, "start", "nevermined-fl start 0x1f… --workflow did:nv:0c…")
def start(
    *,
    agreement: Agreement,
    workflow: Annotated[
        str, typer.Option(metavar="DID", help="The participants' workflow, or the session for a coordinator.")
    ],
    network: NetworkOption = None,
    key: KeyFileOption = None,
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Run what was bought, at the gateway of its provider. The order does not matter: who is early waits."""
    out = Output(as_json=as_json)
    execution = data_scientist(key, password_file, network).start(agreement, workflow=workflow)
    out.say(execution)
    out.result({"agreement": agreement, "execution": execution})


@command(app, "status", "nevermined-fl status 0x1f… --watch")
def status(
    *,
    agreement: Agreement,
    execution: Execution = "",
    watch: Annotated[bool, typer.Option("--watch", help="Go on until it is over.")] = False,
    network: NetworkOption = None,
    key: KeyFileOption = None,
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show how an execution is doing, and for a coordinator's the phase, the round, and who is late; fails when it failed."""
    out = Output(as_json=as_json)
    buyer = data_scientist(key, password_file, network)
    chosen = execution or _newest(buyer, agreement)
    found = buyer.status(agreement, chosen)
    last = ""
    while watch and found.get("status") not in _OVER:
        line = f"{found.get('status')} {found.get('stage', '')}".strip()
        if progress := _progress(found):
            line += f", {headline(progress)} ({waiting_for(progress)})"
        if line != last:
            out.progress(line)
        last = line
        time.sleep(_WATCH_PAUSE)
        found = buyer.status(agreement, chosen)
    rows = [(name, value) for name, value in found.items() if isinstance(value, str | int | float) and value != ""]
    out.table(chosen, ("", ""), rows)
    if progress := _progress(found):
        out.table(headline_with_time(progress), ("participant", "is", ""), members(progress))
    if found.get("status") == "Succeeded" and found.get("did"):
        out.say(f"the model: nevermined-fl fetch {found['did']}")
    out.result({"execution": chosen} | found)
    if found.get("status") in {"Failed", "Error"}:
        raise typer.Exit(1)


@command(app, "logs", "nevermined-fl logs 0x1f…")
def logs(
    *,
    agreement: Agreement,
    execution: Execution = "",
    network: NetworkOption = None,
    key: KeyFileOption = None,
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the structured events of an execution; what the algorithm printed stays with its provider."""
    out = Output(as_json=as_json)
    buyer = data_scientist(key, password_file, network)
    events = [_event(line) for line in buyer.logs(agreement, execution or _newest(buyer, agreement))]
    for event in events:
        moment = time.strftime("%H:%M:%S", time.localtime(event.pop("time", 0)))
        out.say(f"{moment} {event.pop('event', '')} " + " ".join(f"{name}={value}" for name, value in event.items()))
    out.result({"agreement": agreement, "events": events})


@command(app, "stop", "nevermined-fl stop 0x1f…")
def stop(
    *,
    agreement: Agreement,
    execution: Execution = "",
    network: NetworkOption = None,
    key: KeyFileOption = None,
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Stop an execution. What was not earned is refundable once the agreement has timed out."""
    out = Output(as_json=as_json)
    buyer = data_scientist(key, password_file, network)
    chosen = execution or _newest(buyer, agreement)
    before = buyer.status(agreement, chosen).get("status")
    if before not in _OVER:
        buyer.stop(agreement, chosen)
    out.say(f"{chosen} was over already: {before}" if before in _OVER else f"{chosen} is stopped")
    out.result({"agreement": agreement, "execution": chosen, "stopped": before not in _OVER})


def _progress(found: dict[str, Any]) -> dict[str, Any] | None:
    """How far the session is; a participant's job does not know."""
    progress = found.get("progress")
    return progress if isinstance(progress, dict) and found.get("status") not in _OVER else None


def _newest(buyer: "DataScientist", agreement: str) -> str:
    found = buyer.executions(agreement)
    if not found:
        raise NotFound(
            f"agreement {agreement} has no execution yet",
            check="execution_exists",
            hint=f"start one with: nevermined-fl start {agreement} --workflow DID",
        )
    return found[-1]


def _event(line: Any) -> dict[str, Any]:
    """One event of a pod's log; a line that is none is shown as it is."""
    content = line.get("content", "") if isinstance(line, dict) else str(line)
    try:
        event = json.loads(content)
    except ValueError:
        return {"event": content}
    return event if isinstance(event, dict) else {"event": content}
