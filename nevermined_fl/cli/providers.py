"""Commands ``provider init|serve|status|review|approve|revoke|logs``: the seller's side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import nevermined_fl
from nevermined_fl.cli.app import app, command
from nevermined_fl.cli.options import JsonFlag, NetworkOption, ProviderHome, network_file, provider
from nevermined_fl.cli.output import Output
from nevermined_fl.devnet.ready import answers

if TYPE_CHECKING:
    from nevermined_fl.settings import ProviderSettings

__all__ = ["group"]

group = typer.Typer(no_args_is_help=True, help="Run a provider of data or compute.")
app.add_typer(group, name="provider", epilog="Example: nevermined-fl provider serve --home provider")

Digest = Annotated[str, typer.Argument(metavar="DIGEST", help="sha256:… of the algorithm's file, or its DID.")]


@command(group, "init", "nevermined-fl provider init --home provider --name 'Hospital A'")
def init(
    *,
    name: Annotated[str, typer.Option(help="Shown in DDOs.")],
    home: ProviderHome = Path(),
    network: NetworkOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a data folder: key, password file, launcher secret, and a provider.toml that allows nothing yet."""
    out = Output(as_json=as_json)
    made = nevermined_fl.Provider.init(home, name=name, network=network_file(network))
    file = made.home / "provider.toml"
    out.say(f"address {made.address}: it needs ether for gas before it can publish")
    out.say(f"{file}: say there who may buy, then\nnevermined-fl provider serve --home {home}")
    out.result({"home": made.home, "settings": file, "address": made.address})


@command(group, "serve", "nevermined-fl provider serve --home provider")
def serve(*, home: ProviderHome = Path(), as_json: JsonFlag = False) -> None:
    """Run gateway and launcher until Ctrl-C."""
    out = Output(as_json=as_json)
    seller = provider(home)
    out.progress(
        f"gateway {seller.settings.gateway_url()}, launcher {seller.settings.launcher_url()}; Ctrl-C stops both"
    )
    seller.serve()
    out.result({"home": seller.home, "served": True})


@command(group, "status", "nevermined-fl provider status --home provider")
def status(*, home: ProviderHome = Path(), as_json: JsonFlag = False) -> None:
    """Show whether gateway and launcher answer, and all jobs."""
    out = Output(as_json=as_json)
    seller = provider(home)
    serving = {name: answers(f"{url}/") for name, url in _servers(seller.settings)}
    jobs = seller.jobs()
    for name, up in serving.items():
        out.say(f"{name}: {'answers' if up else 'does not answer'}")
    rows = [(j.id, j.order.kind, j.status, j.stage, j.isolation, j.payment, j.reason) for j in jobs]
    out.table("jobs", ("id", "kind", "status", "stage", "isolation", "payment", "reason"), rows)
    shown = [
        {"id": j.id, "kind": j.order.kind, "agreement": j.order.agreement, "session": j.order.session} for j in jobs
    ]
    states = ("status", "stage", "reason", "isolation", "payment", "attempts", "model")
    body = [row | {name: getattr(job, name) for name in states} for row, job in zip(shown, jobs, strict=True)]
    out.result({"home": seller.home, "serving": serving, "jobs": body})


@command(group, "review", "nevermined-fl provider review sha256:9f… --home provider")
def review(
    *,
    digest: Annotated[str, typer.Argument(metavar="DIGEST", help="Print this algorithm; default list all.")] = "",
    home: ProviderHome = Path(),
    as_json: JsonFlag = False,
) -> None:
    """List the algorithms that buyers asked about, or print one to read it before approving."""
    out = Output(as_json=as_json)
    seller = provider(home)
    if digest:
        text = seller.source(digest)
        out.say(text)
        out.result({"digest": digest, "source": text})
        return
    reviews = seller.reviews()
    rows = [(r.digest, r.state, r.algorithm, r.requested_by) for r in reviews]
    out.table("algorithms", ("digest", "state", "algorithm", "asked by"), rows)
    out.result({"reviews": reviews})


@command(group, "approve", "nevermined-fl provider approve sha256:9f… --home provider")
def approve(*, digest: Digest, home: ProviderHome = Path(), as_json: JsonFlag = False) -> None:
    """Let this very algorithm run on your data."""
    found = provider(home).approve(digest)
    out = Output(as_json=as_json)
    out.say(f"{found.digest}: {found.state}")
    out.result({"digest": found.digest, "state": found.state})


@command(group, "revoke", "nevermined-fl provider revoke sha256:9f… --home provider")
def revoke(*, digest: Digest, home: ProviderHome = Path(), as_json: JsonFlag = False) -> None:
    """Take an approval back; jobs that run already go on."""
    found = provider(home).revoke(digest)
    out = Output(as_json=as_json)
    out.say(f"{found.digest}: {found.state}")
    out.result({"digest": found.digest, "state": found.state})


@command(group, "logs", "nevermined-fl provider logs nvm-fl-1a2b3c4d5e --home provider")
def logs(
    *,
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job's id, from `provider status`.")],
    home: ProviderHome = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Print a job's raw output: for your eyes; it may hold what the algorithm saw of your data."""
    out = Output(as_json=as_json)
    text = provider(home).logs(job)
    out.say(text)
    out.result({"job": job, "output": text})


def _servers(settings: "ProviderSettings") -> tuple[tuple[str, str], ...]:
    return ("gateway", settings.gateway_url()), ("launcher", settings.launcher_url())
