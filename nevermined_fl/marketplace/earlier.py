"""May a session of this algorithm begin with the model of that earlier one, and which file is it?

Everything is asked before anything is bought: whose the model is, what it looks like, and who will have to download it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nevermined_fl import assets, permissions
from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import InvalidRequest, PermissionDenied
from nevermined_fl.session.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.marketplace.market import Market
    from nevermined_fl.session.plan import TensorSchema

__all__ = ["earlier_model"]


def earlier_model(market: Market, did: str, schema: Sequence[TensorSchema], *, compute: str) -> str:
    """Digest of a model's file, if a session at ``compute`` may begin with it and its tensors are those of ``schema``.

    Raises:
        InvalidRequest: it is no model, or one with other tensors.
        PermissionDenied: the buyer may not download it, or cannot let the coordinator's provider do so.
    """
    model = permissions.check_download(market.chain, market.metadata, did=did, caller=market.account.address)
    ddo = market.metadata.resolve(did)
    if (found := assets.kind(ddo)) != "model":
        raise InvalidRequest(f"continue_from: {did} is of type {found}, not a model", check="main_type")
    spec = assets.session_spec(market.metadata.resolve(assets.session_of(ddo)))
    _check_schema(did, Plan.from_parameters(spec.parameters, spec.datasets).schema, schema)
    file, size = model.files[0], safetensors.file_size(tuple(schema))
    if file.size != size:
        raise InvalidRequest(f"continue_from: {did} has {file.size} bytes; such a model has {size}", check="plan")
    _check_grant(market, did, market.owner(compute))
    return f"sha256:{file.sha256}"


def _check_schema(did: str, found: Sequence[TensorSchema], wanted: Sequence[TensorSchema]) -> None:
    """Name the first tensor that differs."""
    theirs, ours = ({tensor.name: tensor for tensor in schema} for schema in (found, wanted))
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            raise InvalidRequest(
                f"continue_from: tensor {name} is {_shown(theirs.get(name))} in {did}, {_shown(ours.get(name))} in the algorithm",
                check="plan",
                hint="continue with the algorithm that the model was trained with, and the same hyperparameters",
            )


def _shown(tensor: TensorSchema | None) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}" if tensor else "missing"


def _check_grant(market: Market, did: str, provider: str) -> None:
    if not market.chain.may_download(did, provider) and market.owner(did) != market.account.address:
        raise PermissionDenied(
            f"continue_from: {provider}, who runs the coordinator, may not download {did}, and only its owner can allow it",
            check="download_allowed",
            hint="ask the model's owner for grantPermission",
        )
