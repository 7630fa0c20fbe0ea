"""Commands ``demo``, ``simulate`` and ``run``: whole sessions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nevermined_fl.cli.app import app, command
from nevermined_fl.cli.options import JsonFlag
from nevermined_fl.cli.output import Output, tokens

if TYPE_CHECKING:
    from nevermined_fl.devnet.demo import Demo, Result

__all__: list[str] = []


@command(app, "demo", "nevermined-fl demo --dataset breast-cancer --rounds 5")
def demo(
    *,
    providers: Annotated[int, typer.Option(min=1, max=20, help="How many data providers.")] = 3,
    dataset: Annotated[str, typer.Option(help="digits or breast-cancer.")] = "digits",
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds.")] = 10,
    strategy: Annotated[str, typer.Option(help="fedavg, fedavgm, fedadam, median or trimmed_mean.")] = "fedavg",
    seed: Annotated[int, typer.Option(min=0, help="Of the split and the session.")] = 0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the network running; stop it with `devnet down`.")
    ] = False,
    home: Annotated[Path, typer.Option(help="The demo's folder, removed and made anew.")] = Path(".nevermined-fl/demo"),
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
    facts += [(f"DDO of the {name}", link) for name, link in story.links.items()]
    facts += [("picture", str(path)) for path in story.pictures]
    facts += [("seconds", ", ".join(f"{name} {value:.1f}" for name, value in result.seconds.items()))]
    out.table("", ("what", "value"), facts)
    if story.options.keep:
        out.say(f"the network runs on: nevermined-fl devnet down --home {story.options.home}")
