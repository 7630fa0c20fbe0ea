"""Commands ``publish dataset|compute`` for providers and ``publish algorithm|coordinator|workflow`` for data scientists."""

from pathlib import Path
from typing import Annotated

import typer

from nevermined_fl.cli.app import app, command
from nevermined_fl.cli.options import (
    ContinueFrom,
    JsonFlag,
    KeyFileOption,
    NetworkOption,
    PasswordOption,
    ProviderHome,
    data_scientist,
    provider,
    smallest_units,
)
from nevermined_fl.cli.output import Output

__all__ = ["group"]

group = typer.Typer(no_args_is_help=True, help="Publish an asset: DID on chain, DDO in the metadata API.")
app.add_typer(
    group, name="publish", epilog="Example: nevermined-fl publish dataset patients.csv --price 12 --name Patients"
)

Price = Annotated[str, typer.Option(help="In tokens, e.g. 12.5.")]
Name = Annotated[str, typer.Option(help="Shown in lists.")]
Description = Annotated[str, typer.Option(help="What is in it.")]
Timeout = Annotated[
    int, typer.Option("--timeout", min=0, help="Blocks that buyers should order with at least; 0: no refund.")
]
SessionToml = Annotated[Path, typer.Argument(metavar="SESSION.TOML", help="The file that `run` takes, too.")]


@command(group, "dataset", "nevermined-fl publish dataset patients.csv --home provider --price 12.5 --name Patients")
def dataset(
    *,
    file: Annotated[Path, typer.Argument(help="A CSV file with a header; it stays where it is.")],
    price: Price,
    name: Name,
    home: ProviderHome = Path(),
    description: Description = "",
    tag: Annotated[list[str] | None, typer.Option(help="A word to be found by; may be repeated.")] = None,
    timeout: Timeout = 1000,
    as_json: JsonFlag = False,
) -> None:
    """Publish a dataset with a compute service. Columns and made-up rows leave, data never."""
    seller = provider(home)
    did = seller.publish_dataset(
        file,
        price=smallest_units(price, seller.market.chain.token_decimals()),
        name=name,
        description=description,
        tags=tuple(tag or ()),
        timeout_blocks=timeout,
    )
    _done(did, as_json=as_json)


@command(group, "compute", "nevermined-fl publish compute --home provider --price 5 --name Coordinators")
def compute(
    *,
    price: Price,
    name: Name,
    home: ProviderHome = Path(),
    description: Description = "",
    timeout: Timeout = 1000,
    as_json: JsonFlag = False,
) -> None:
    """Publish a compute service that accepts inbound connections, for coordinators."""
    seller = provider(home)
    amount = smallest_units(price, seller.market.chain.token_decimals())
    _done(
        seller.publish_compute(price=amount, name=name, description=description, timeout_blocks=timeout),
        as_json=as_json,
    )


@command(group, "algorithm", "nevermined-fl publish algorithm session.toml")
def algorithm(
    *,
    session: SessionToml,
    network: NetworkOption = None,
    key: KeyFileOption = None,
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make the first model of the session's algorithm, upload both to a gateway, publish the algorithm.

    Of a session that begins with a participant's or an earlier model, the algorithm alone is uploaded.
    """
    from nevermined_fl.marketplace.session_file import load_session  # noqa: PLC0415  numpy and web3 for this command alone

    file = load_session(session)
    buyer = data_scientist(key or file.key, password_file or file.password_file, network or file.network)
    gateway = file.gateway or buyer.gateway_url(file.datasets[0])
    found = buyer.publish_algorithm(file.algorithm, gateway=gateway, settings=file.settings, name=file.algorithm_name)
    _done(found.did, as_json=as_json, digest=found.digest(), initial_model=found.initial_digest())


@command(group, "coordinator", "nevermined-fl publish coordinator session.toml")
def coordinator(
    *,
    session: SessionToml,
    continue_from: ContinueFrom = "",
    network: NetworkOption = None,
    key: KeyFileOption = None,
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Publish the coordinator's workflow with the plan; its DID is the session's."""
    from nevermined_fl.marketplace.publishing import prepare_algorithm  # noqa: PLC0415  as above
    from nevermined_fl.marketplace.session_file import load_session  # noqa: PLC0415  as above

    file = load_session(session, continue_from=continue_from)
    buyer = data_scientist(key or file.key, password_file or file.password_file, network or file.network)
    prepared = prepare_algorithm(file.algorithm, file.settings)
    did = buyer.publish_session(
        prepared, datasets=file.datasets, compute=file.compute, settings=file.settings, name=file.name
    )
    _done(did, as_json=as_json)


@command(group, "workflow", "nevermined-fl publish workflow --session did:nv:0a… --algorithm did:nv:0b…")
def workflow(
    *,
    session: Annotated[str, typer.Option(metavar="DID", help="The session.")],
    algorithm: Annotated[str, typer.Option(metavar="DID", help="The algorithm.")],
    review: Annotated[bool, typer.Option(help="Ask the data providers to review the algorithm.")] = True,
    network: NetworkOption = None,
    key: KeyFileOption = None,
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Let the session's providers download the algorithm, and publish the workflow that they all run."""
    buyer = data_scientist(key, password_file, network)
    did = buyer.publish_workflow(session, algorithm=algorithm)
    reviews = (
        {dataset: answer.get("state", "") for dataset, answer in buyer.request_review(did).items()} if review else {}
    )
    _done(did, as_json=as_json, reviews=reviews)


def _done(did: str, *, as_json: bool, **more: object) -> None:
    out = Output(as_json=as_json)
    out.say(did)
    for name, value in more.items():
        rows = value.items() if isinstance(value, dict) else [("", value)]
        for about, text in rows:
            out.say(f"{name}: {about} {text}" if about else f"{name}: {text}")
    out.result({"did": did} | more)
