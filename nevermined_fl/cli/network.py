"""Commands ``devnet up``, ``devnet down``, ``devnet status`` and ``devnet fund``."""

import signal
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nevermined_fl.chain import identifiers
from nevermined_fl.cli.app import app, command
from nevermined_fl.cli.options import JsonFlag
from nevermined_fl.cli.output import Output
from nevermined_fl.devnet import network
from nevermined_fl.devnet.home import DEFAULT_HOME, Home, State
from nevermined_fl.devnet.ready import answers
from nevermined_fl.errors import SettingsError
from nevermined_fl.settings import load_network

__all__ = ["group"]

group = typer.Typer(no_args_is_help=True, help="An embedded Nevermined network on this machine.")
app.add_typer(group, name="devnet", epilog="Example: nevermined-fl devnet up --providers 3")

_UNIT = 10**18

HomeOption = Annotated[Path, typer.Option("--home", help="The network's folder.")]


@command(group, "up", "nevermined-fl devnet up --providers 3")
def up(
    *,
    home: HomeOption = DEFAULT_HOME,
    providers: Annotated[int, typer.Option(min=1, max=50, help="How many data providers.")] = 3,
    rpc_url: Annotated[str, typer.Option(help="A development chain that runs already.")] = "",
    detach: Annotated[
        bool, typer.Option("--detach/--foreground", help="Leave it running, or stay until Ctrl-C.")
    ] = True,
    as_json: JsonFlag = False,
) -> None:
    """Start chain, contracts, metadata API and providers, each with its own key, gateway and launcher.

    What a network that was stopped left in the folder is removed first.
    """
    out = Output(as_json=as_json)
    with network.start(home, providers=providers, rpc_url=rpc_url) as net:
        with out.waiting("starting the network"):
            state = net.wait_ready(out.progress)
        _show(out, Home.at(home), state)
        if detach:
            net.release()
            return
        out.progress("Ctrl-C stops it")
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


@command(group, "down", "nevermined-fl devnet down")
def down(*, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Stop the network: no process and no listening port is left."""
    out = Output(as_json=as_json)
    stopped = network.down(home)
    out.say("stopped" if stopped else f"no network runs in {home}")
    out.result({"home": home.resolve(), "stopped": stopped})


@command(group, "status", "nevermined-fl devnet status --json")
def status(*, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Show which processes run and whether they answer; fails when the network does not run."""
    found = Home.at(home)
    state = found.load()
    _show(Output(as_json=as_json), found, state)
    if state.phase != "ready":
        raise typer.Exit(1)


@command(group, "fund", "nevermined-fl devnet fund 0x51… --ether 5 --tokens 100")
def fund(
    *,
    address: Annotated[list[str], typer.Argument(metavar="ADDRESS...")],
    ether: Annotated[int, typer.Option(min=0, max=1000, help="For gas.")] = 1,
    tokens: Annotated[int, typer.Option(min=0, max=1_000_000, help="To buy with.")] = 0,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Give keys of your own ether and tokens of this network, which are worth nothing."""
    from nevermined_fl.devnet import contracts  # noqa: PLC0415  web3 takes seconds

    out = Output(as_json=as_json)
    found = Home.at(home)
    if not found.load().is_running():
        raise SettingsError(f"no network runs in {found.root}", hint="start one with: nevermined-fl devnet up")
    named = [identifiers.checked_address(each) for each in address]
    amounts = {"ether": ether * _UNIT, "tokens": tokens * _UNIT}
    contracts.fund(load_network(found.network_file), contracts.development_owner(), named, **amounts)
    out.say(f"{ether} ether and {tokens} tokens to each of {', '.join(named)}")
    out.result({"addresses": named} | amounts)


def _show(out: Output, home: Home, state: State) -> None:
    processes = (
        [asdict(entry) | {"answers": answers(entry.url)} for entry in state.processes] if state.is_running() else []
    )
    rows = [(row["name"], row["pid"], row["url"], "yes" if row["answers"] else "no") for row in processes]
    out.table(f"network {state.phase} in {home.root}", ("process", "pid", "url", "answers"), rows)
    if state.message:
        out.say(state.message)
    out.result(
        {
            "home": home.root,
            "phase": state.phase,
            "message": state.message,
            "rpc_url": state.rpc_url,
            "metadata_url": state.metadata_url,
            "network": home.network_file,
            "processes": processes,
            "providers": [asdict(entry) for entry in state.providers],
        }
    )
