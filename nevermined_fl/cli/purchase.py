"""Commands ``quote``, ``order`` and ``refund``: what it costs, buying it, and the money back."""

from typing import Annotated

import typer

from nevermined_fl.cli.app import app, command
from nevermined_fl.cli.options import JsonFlag, KeyFileOption, NetworkOption, PasswordOption, data_scientist
from nevermined_fl.cli.output import Output, tokens

__all__: list[str] = []

Session = Annotated[str, typer.Argument(metavar="SESSION", help="The session's DID: that of its coordinator workflow.")]
Agreements = Annotated[list[str], typer.Argument(metavar="AGREEMENT", help="0x…; one or more.")]


@command(app, "quote", "nevermined-fl quote did:nv:0a…")
def quote(
    *,
    session: Session,
    network: NetworkOption = None,
    key: KeyFileOption = None,
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a session costs: price per dataset and coordinator, total, balance, gas, and what the timeout means."""
    out = Output(as_json=as_json)
    found = data_scientist(key, password_file, network).quote(session)
    rows = [(p.role, p.name, tokens(p.price, found.decimals), p.did) for p in found.positions]
    out.table(
        "quote", ("role", "name", "price", "DID"), [*rows, ("total", "", tokens(found.total(), found.decimals), "")]
    )
    out.say(f"token {found.token}, balance {tokens(found.balance, found.decimals)}, about {found.gas():,} gas")
    out.say(found.meaning())
    if found.missing():
        out.say(f"{tokens(found.missing(), found.decimals)} tokens are missing")
    out.result(found.to_json())


@command(app, "order", "nevermined-fl order did:nv:0a… --dataset did:nv:0b…")
def order(
    *,
    session: Session,
    dataset: Annotated[
        list[str] | None, typer.Option(metavar="DID", help="Only this of its DIDs; may be repeated.")
    ] = None,
    again: Annotated[bool, typer.Option(help="Buy even what is paid already and was never started.")] = False,
    network: NetworkOption = None,
    key: KeyFileOption = None,
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Buy what a session needs: an agreement and a payment into escrow each. Interrupted orders are taken up again."""
    out = Output(as_json=as_json)
    buyer = data_scientist(key, password_file, network)
    if dataset:
        agreements = {did: buyer.order(did, session=session, again=again) for did in dataset}
    else:
        agreements = buyer.order_all(session, again=again)
    out.table("", ("agreement", "for"), [(agreement, did) for did, agreement in agreements.items()])
    out.result({"session": session, "agreements": agreements, "balance": buyer.balance()})


@command(app, "refund", "nevermined-fl refund 0x1f…")
def refund(
    *,
    agreement: Agreements,
    network: NetworkOption = None,
    key: KeyFileOption = None,
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Take the money of timed-out agreements back. Who is paid when is in docs/payments.md."""
    out = Output(as_json=as_json)
    buyer = data_scientist(key, password_file, network)
    states = {each: buyer.refund(each) for each in agreement}
    for each, state in states.items():
        out.say(f"{each}: {state}")
    out.result({"agreements": states, "balance": buyer.balance()})


@command(app, "payments", "nevermined-fl payments 0x1f… 0x2e…")
def payments(
    *,
    agreement: Agreements,
    network: NetworkOption = None,
    key: KeyFileOption = None,
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what became of the money of agreements: unpaid, locked, paid, refunded or aborted."""
    out = Output(as_json=as_json)
    buyer = data_scientist(key, password_file, network)
    found, decimals = buyer.payments(agreement), buyer.market.chain.token_decimals()
    rows = [(p.agreement, p.did, tokens(p.price, decimals), p.state) for p in found]
    out.table("", ("agreement", "for", "price", "state"), rows)
    out.result({"payments": found})
