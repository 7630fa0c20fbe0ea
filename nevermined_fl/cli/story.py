"""Commands ``demo``, ``simulate`` and ``run``: whole sessions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nevermined_fl.aggregation import AGGREGATORS
from nevermined_fl.cli.app import app, command
from nevermined_fl.cli.options import (
    ContinueFrom,
    JsonFlag,
    KeyFileOption,
    NetworkOption,
    PasswordOption,
    data_scientist,
)
from nevermined_fl.cli.output import Output, tokens
from nevermined_fl.devnet.home import DEFAULT_HOME

if TYPE_CHECKING:
    from nevermined_fl.devnet.demo import Demo, Result

__all__: list[str] = []


@command(app, "demo", "nevermined-fl demo --dataset breast-cancer --rounds 5")
def demo(
    *,
    providers: Annotated[int, typer.Option(min=1, max=20, help="How many data providers.")] = 3,
    dataset: Annotated[str, typer.Option(help="digits or breast-cancer.")] = "digits",
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds.")] = 10,
    strategy: Annotated[str, typer.Option(help=f"{', '.join(AGGREGATORS)}.")] = "fedavg",
    seed: Annotated[int, typer.Option(min=0, help="Of the split and the session.")] = 0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the network running; stop it with `devnet down`.")
    ] = False,
    home: Annotated[Path, typer.Option(help="The demo's folder, removed and made anew.")] = DEFAULT_HOME,
    rpc_url: Annotated[str, typer.Option(help="A development chain that runs already.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Run a federated session from purchase to fetched model, on an embedded Nevermined network."""
    from nevermined_fl.devnet.demo import Demo, Options  # noqa: PLC0415  it imports web3, for seconds

    out = Output(as_json=as_json)
    options = Options(providers, dataset, rounds, strategy, seed, keep, home, rpc_url)
    story = Demo(options, progress=out.progress)
    result = story.run()
    _show_demo(out, story, result)
    out.result(result.to_json())
    for text in result.shortcomings():
        out.progress(f"NOT AS IT SHOULD BE: {text}")
    if result.shortcomings():
        raise typer.Exit(1)


@command(app, "simulate", "nevermined-fl simulate algorithm.py --data a.csv --data b.csv --rounds 5")
def simulate(
    algorithm: Annotated[Path, typer.Argument(help="A Python file with one Trainer.")],
    *,
    data: Annotated[
        list[Path] | None, typer.Option(help="One participant's file or folder; repeat it. Default: the demo's digits.")
    ] = None,
    session: Annotated[Path | None, typer.Option(help="Take the settings from a session.toml.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="How many rounds.")] = None,
    strategy: Annotated[str, typer.Option(help=f"{', '.join(AGGREGATORS)}.")] = "",
    seed: Annotated[int | None, typer.Option(min=0, help="Of the session.")] = None,
    hyperparameter: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=JSON", help="A hyperparameter; repeat it.")
    ] = None,
    into: Annotated[Path, typer.Option(help="Folder for the model and its card.")] = Path("models/simulated"),
    as_json: JsonFlag = False,
) -> None:
    """Run a session on this machine, without a chain and free: what you would buy, before you buy it."""
    from nevermined_fl.cli import rehearsal  # noqa: PLC0415  numpy and aiohttp for this command alone

    out = Output(as_json=as_json)
    changes: dict[str, Any] = {"rounds": rounds, "strategy": strategy or None, "seed": seed}
    settings = rehearsal.settings(session, changes, hyperparameter or [], demo=not data)
    result = rehearsal.run(algorithm, data or [], settings, into, out.progress)
    names = sorted({name for row in result.rounds for name in row.metrics})
    rows = [(row.number, *(f"{row.metrics[name]:.4f}" for name in names)) for row in result.rounds]
    out.table("", ("round", *names), rows)
    out.say(f"{result.path}\n{result.sha256}")
    out.result({"path": result.path, "sha256": result.sha256, "rounds": result.rounds})


@command(app, "run", "nevermined-fl run session.toml")
def run(
    session: Annotated[Path, typer.Argument(metavar="SESSION.TOML", help="examples/session.toml is one.")],
    *,
    continue_from: ContinueFrom = "",
    network: NetworkOption = None,
    key: KeyFileOption = None,
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Do all of it from one file: publish, review, order, start, wait, fetch. Run again after an interruption."""
    from nevermined_fl.marketplace.session_file import load_session  # noqa: PLC0415  numpy for this command alone

    out = Output(as_json=as_json)
    file = load_session(session, continue_from=continue_from)
    buyer = data_scientist(key or file.key, password_file or file.password_file, network or file.network)
    outcome = buyer.run(file, progress=out.progress)
    decimals = buyer.market.chain.token_decimals()
    rows = [(p.did, tokens(p.price, decimals), p.state, p.agreement) for p in outcome.payments]
    out.table("payments", ("for", "tokens", "state", "agreement"), rows)
    out.say(f"{outcome.fetched.path}\n{outcome.fetched.sha256}")
    out.result(
        {
            "session_did": outcome.receipt.session,
            "model_did": outcome.receipt.model,
            "path": outcome.fetched.path,
            "sha256": outcome.fetched.sha256,
            "receipt": outcome.receipt,
            "payments": outcome.payments,
        }
    )


def _show_demo(out: Output, story: "Demo", result: "Result") -> None:
    names = story.cast.names() if story.cast else {}
    accuracy = result.accuracy
    rows = [("federated", accuracy.federated), ("pooled, if data could move", accuracy.pooled)]
    rows += [(f"{name} alone", value) for name, value in accuracy.alone.items()]
    title = f"accuracy on held-out rows after {result.rounds} rounds"
    out.table(title, ("model", "accuracy"), [(name, f"{value:.3f}") for name, value in rows])
    decimals = story.quote.decimals if story.quote else 0
    paid = [(names.get(p.did, ""), tokens(p.price, decimals), p.state, p.agreement) for p in result.payments]
    out.table("payments", ("for", "tokens", "state", "agreement"), paid)
    facts = [("session", result.session_did), ("model", result.model_did), ("sha256", result.fetched_sha256)]
    facts += [("replay gives the same bytes", "yes" if accuracy.replay_identical else "NO")]
    facts += [("listening sockets of participants", str(result.listening_participants))]
    facts += [("provenance edges", str(len(result.provenance))), ("fetched to", result.fetched_path)]
    facts += [("picture", str(path)) for path in story.pictures]
    facts += [("seconds", ", ".join(f"{name} {value:.1f}" for name, value in result.seconds.items()))]
    out.table("", ("what", "value"), facts)
    out.table(
        "DDOs" if story.options.keep else "DDOs (demo --keep keeps them)", ("of", "link"), list(story.links.items())
    )
    if story.options.keep:
        out.say(f"the network runs on, until: nevermined-fl devnet down --home {story.options.home}")
