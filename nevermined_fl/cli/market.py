"""Commands ``search``, ``show`` and ``fetch``: finding assets, and the one that was made."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nevermined_fl.cli.app import app, command
from nevermined_fl.cli.options import JsonFlag, KeyFileOption, NetworkOption, PasswordOption, data_scientist
from nevermined_fl.cli.output import Output, tokens

if TYPE_CHECKING:
    from nevermined_fl.marketplace.data_scientist import Asset

__all__: list[str] = []

_KINDS = ("dataset", "compute", "algorithm", "workflow", "fl-coordinator", "model")
Did = Annotated[str, typer.Argument(metavar="DID", help="did:nv:…")]


@command(app, "search", "nevermined-fl search digits --kind dataset")
def search(
    *,
    words: Annotated[list[str], typer.Argument(help="Words to look for.")],
    kind: Annotated[str, typer.Option(help=f"One of {', '.join(_KINDS)}.")] = "",
    network: NetworkOption = None,
    key: KeyFileOption = None,
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Find assets by words in their names, descriptions and tags."""
    out = Output(as_json=as_json)
    if kind and kind not in _KINDS:
        raise typer.BadParameter(f"expected one of {', '.join(_KINDS)}, got {kind!r}", param_hint="'--kind'")
    buyer = data_scientist(key, password_file, network)
    found = buyer.search(" ".join(words), kind=kind)
    decimals = buyer.market.chain.token_decimals()
    rows = [(s.did, s.kind, s.name, tokens(s.price, decimals), s.description) for s in found]
    out.table(f"{len(found)} found", ("DID", "kind", "name", "price", "description"), rows)
    out.result({"results": found})


@command(app, "show", "nevermined-fl show did:nv:0a…")
def show(
    *,
    did: Did,
    ddo: Annotated[bool, typer.Option("--ddo", help="Print the whole document instead.")] = False,
    network: NetworkOption = None,
    key: KeyFileOption = None,
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show an asset: price, timeout, columns, mock rows, whether it accepts inbound connections."""
    out = Output(as_json=as_json)
    buyer = data_scientist(key, password_file, network)
    asset = buyer.show(did)
    if ddo:
        out.say(json.dumps(asset.ddo, indent=2))
    else:
        _describe(out, asset, buyer.market.chain.token_decimals())
    out.result(
        {
            "summary": asset.summary,
            "owner": asset.owner,
            "terms": asset.terms,
            "schema": asset.schema,
            "sample": asset.sample,
            "ddo": asset.ddo,
        }
    )


@command(app, "fetch", "nevermined-fl fetch did:nv:0a… --into models")
def fetch(
    *,
    did: Did,
    into: Annotated[Path, typer.Option(help="Folder; the model gets one of its own in it.")] = Path("models"),
    network: NetworkOption = None,
    key: KeyFileOption = None,
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Download a model with its card; its digest is the published one, or nothing is kept."""
    out = Output(as_json=as_json)
    fetched = data_scientist(key, password_file, network).fetch(did, into)
    out.say(f"{fetched.path}\n{fetched.sha256}")
    out.result({"did": did, "path": fetched.path, "folder": fetched.folder, "sha256": fetched.sha256})


def _describe(out: Output, asset: "Asset", decimals: int) -> None:
    summary = asset.summary
    rows = [("kind", summary.kind), ("author", f"{summary.author} ({asset.owner})"), ("made", summary.created)]
    rows += [("license", summary.license), ("tags", ", ".join(summary.tags)), ("about", summary.description)]
    if asset.terms is not None:
        rows.append(("price", tokens(asset.terms.price(), decimals)))
        rows.append(("timeout", f"{asset.terms.timeout_blocks} blocks from the agreement's creation, at least"))
        rows.append(("inbound", "yes: coordinators can run here" if asset.terms.inbound else "no"))
        rows.append(("gateway", asset.terms.endpoint))
    if asset.schema is not None:
        rows.append(("rows", str(asset.schema.rows)))
    out.table(summary.name, ("", summary.did), rows)
    if asset.schema is not None:
        out.table("columns", ("name", "type"), [(c.name, c.dtype) for c in asset.schema.columns])
    if asset.sample is not None:
        shown = asset.sample["columns"][:8]
        out.table("mock rows, made up", shown, [row[: len(shown)] for row in asset.sample["rows"]])
