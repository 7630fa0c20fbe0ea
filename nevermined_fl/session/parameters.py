"""Is this a plan? Every parameter of a session's DDO, with its bounds.

Rule 1: a parameter that is not known is refused, so that a misspelt one is never silently ignored.
Rule 2: bounds are checked on the numbers as they came, before anything is multiplied or allocated.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from nevermined_fl import aggregation
from nevermined_fl.errors import InvalidRequest
from nevermined_fl.session.plan import DTYPES, FROM_PARTICIPANT, EarlyStop, Metric, Plan, TensorSchema
from nevermined_fl.session.reading import (
    integer,
    json_bytes,
    json_list,
    json_object,
    json_row,
    matching,
    number,
    one_of,
    or_none,
    positive,
    refuse,
    text,
    unique,
)
from nevermined_fl.session.wording import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["MAX_PARAMETERS_BYTES", "PARAMETERS", "parse"]

MAX_PARAMETERS_BYTES = 512 * 1024  # they travel in a DDO and in the Joined message, of 1 MiB each
_MAX_EXACT = 2**53 - 1  # the largest integer that every JSON reader keeps
_MAX_TIMEOUT = 365 * 24 * 3600.0
_MAX_MODEL_BYTES = 2**40
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-/]{0,127}")
_MEMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._\-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ASSET = re.compile(r"(did:nv:[0-9a-f]{64})?")
_REQUIRED = ("minParticipants", "rounds", "initialModel", "schema")


def parse(parameters: Mapping[str, Any], members: tuple[str, ...]) -> Plan:
    """The plan of these parameters. Raises InvalidRequest naming the parameter, what was expected and what came."""
    json_object("parameters", parameters)
    for name in _REQUIRED:
        if name not in parameters:
            refuse(name, "a value", "nothing")
    for name in parameters:
        if name not in PARAMETERS:
            raise InvalidRequest(f"{shown(name)}: expected one of {', '.join(PARAMETERS)}", check="plan")
    found = {field: read(name, parameters[name]) for name, (field, read) in PARAMETERS.items() if name in parameters}
    plan = Plan(members=_members(members), **found)
    _judge_counts(plan)
    if plan.early_stop is not None:
        _judge_early_stop(plan.early_stop, plan.metrics)
    if plan.initial_asset and plan.initial_model == FROM_PARTICIPANT:
        refuse("initialAsset", "none, for a participant makes the initial model", plan.initial_asset)
    unique("schema", [tensor.name for tensor in plan.carried()])
    if (size := len(json_bytes("parameters", dict(parameters)))) > MAX_PARAMETERS_BYTES:
        refuse("parameters", f"at most {MAX_PARAMETERS_BYTES} bytes of JSON", size)
    return plan


def _judge_counts(plan: Plan) -> None:
    """Every round has at least ``min_participants`` updates, however many are drawn; they must be enough."""
    if plan.min_participants > len(plan.members):
        refuse("minParticipants", f"at most the {len(plan.members)} datasets of the session", plan.min_participants)
    fewest = aggregation.create(plan.strategy, dict(plan.strategy_options)).fewest()
    if plan.min_participants < fewest:
        refuse("minParticipants", f"at least {fewest} for {plan.strategy} with these options", plan.min_participants)


def _judge_early_stop(stop: EarlyStop, metrics: tuple[Metric, ...]) -> None:
    metric = next((metric for metric in metrics if metric.name == stop.metric), None)
    if metric is None:
        refuse("earlyStop.metric", "one of the plan's metrics", stop.metric)
    if stop.target is not None and not metric.low <= stop.target <= metric.high:
        refuse("earlyStop.target", f"{metric.low:g} to {metric.high:g}, the range of {metric.name}", stop.target)


def _initial_model(name: str, value: Any) -> str:
    return FROM_PARTICIPANT if value == FROM_PARTICIPANT else matching(_DIGEST, name, value)


def _early_stop(name: str, value: Any) -> EarlyStop:
    row = json_row(name, value, {"metric"}, {"goal", "target", "tolerance", "patience"})
    metric = matching(_NAME, f"{name}.metric", row["metric"])
    goal = one_of(("max", "min"), f"{name}.goal", row.get("goal", "max"))
    target = or_none(number, f"{name}.target", row.get("target"))
    tolerance = or_none(partial(number, low=0.0), f"{name}.tolerance", row.get("tolerance"))
    if target is None and tolerance is None:
        refuse(name, "a target, a tolerance or both", "neither")
    return EarlyStop(metric, goal, target, tolerance, integer(1, 100_000, f"{name}.patience", row.get("patience", 1)))


def _engine(name: str, value: Any) -> str:
    if value != "native":
        refuse(name, "native, the only engine of this version", value)
    return "native"


def _options(name: str, value: Any) -> tuple[tuple[str, float], ...]:
    options = sorted(json_object(name, value).items())
    return tuple((option, number(f"{name}.{shown(option)}", given)) for option, given in options)


def _hyperparameters(name: str, value: Any) -> tuple[tuple[str, Any], ...]:
    # As a DDO, a journal and a Trainer get them: tuples are lists, and keys are texts.
    raw = json_bytes(name, json_object(name, value))
    plain = json.loads(raw)
    if json_bytes(name, plain) != raw:
        refuse(name, "each key once when they are texts", "two alike")
    return tuple(sorted(plain.items()))


def _members(value: Any) -> tuple[str, ...]:
    names = [matching(_MEMBER, "members", member) for member in json_list("members", value, 1, 10_000)]
    unique("members", names)
    return tuple(names)


def _metrics(name: str, value: Any) -> tuple[Metric, ...]:
    metrics = tuple(_metric(f"{name}[{i}]", row) for i, row in enumerate(json_list(name, value, 0, 64)))
    unique(name, [metric.name for metric in metrics])
    return metrics


def _metric(name: str, value: Any) -> Metric:
    row = json_row(name, value, {"name"}, {"low", "high", "digits"})
    low, high = number(f"{name}.low", row.get("low", 0.0)), number(f"{name}.high", row.get("high", 1.0))
    if low >= high:
        refuse(f"{name}.high", f"more than low, {low:g}", high)
    digits = integer(0, 12, f"{name}.digits", row.get("digits", 6))
    # Else a metric within the range leaves it when the participant rounds it, and the coordinator refuses the answer.
    if round(low, digits) < low:
        refuse(f"{name}.low", f"a number that rounding to {digits} digits does not lower", low)
    if round(high, digits) > high:
        refuse(f"{name}.high", f"a number that rounding to {digits} digits does not raise", high)
    return Metric(matching(_NAME, f"{name}.name", row["name"]), low, high, digits)


def _schema(name: str, value: Any) -> tuple[TensorSchema, ...]:
    schema = tuple(_tensor(f"{name}[{i}]", row) for i, row in enumerate(json_list(name, value, 1, 10_000)))
    unique(name, [tensor.name for tensor in schema])
    if (size := sum(tensor.size() for tensor in schema)) > _MAX_MODEL_BYTES:
        refuse(name, f"at most {_MAX_MODEL_BYTES} bytes of tensors", f"{size} bytes" if size < 10**30 else "more")
    return schema


def _tensor(name: str, value: Any) -> TensorSchema:
    row = json_row(name, value, {"name", "dtype", "shape"}, set())
    if not isinstance(row["dtype"], str) or row["dtype"] not in DTYPES:
        refuse(f"{name}.dtype", f"one of {', '.join(DTYPES)}", row["dtype"])
    if row["name"] == "__metadata__":
        refuse(f"{name}.name", "another name, for safetensors has a use of its own for this one", row["name"])
    shape = [
        integer(1, _MAX_MODEL_BYTES, f"{name}.shape", size) for size in json_list(f"{name}.shape", row["shape"], 0, 32)
    ]
    return TensorSchema(matching(_NAME, f"{name}.name", row["name"]), row["dtype"], tuple(shape))


PARAMETERS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "engine": ("engine", _engine),
    "minParticipants": ("min_participants", partial(integer, 1, 10_000)),
    "participantsRatio": ("participants_ratio", partial(positive, 1.0)),
    "rounds": ("rounds", partial(integer, 1, 100_000)),
    "strategy": ("strategy", text),
    "strategyOptions": ("strategy_options", _options),
    "seed": ("seed", partial(integer, 0, _MAX_EXACT)),
    "selectionTimeout": ("selection_timeout", partial(positive, _MAX_TIMEOUT)),
    "roundTimeout": ("round_timeout", partial(positive, _MAX_TIMEOUT)),
    "maxWeight": ("max_weight", partial(integer, 1, _MAX_EXACT)),
    "metrics": ("metrics", _metrics),
    "hyperparameters": ("hyperparameters", _hyperparameters),
    "overSelection": ("over_selection", partial(number, low=1.0, high=100.0)),
    "evaluationTimeout": ("evaluation_timeout", partial(or_none, partial(positive, _MAX_TIMEOUT))),
    "repeats": ("repeats", partial(integer, 0, 1000)),
    "lateUpdates": ("late_updates", partial(one_of, ("drop", "use"))),
    "earlyStop": ("early_stop", partial(or_none, _early_stop)),
    "evaluateEvery": ("evaluate_every", partial(integer, 1, 100_000)),
    "checkpointEvery": ("checkpoint_every", partial(integer, 0, 100_000)),
    "normBound": ("norm_bound", partial(or_none, partial(positive, 1e300))),
    "controlBound": ("control_bound", partial(or_none, partial(positive, 1e300))),
    "precision": ("precision", partial(one_of, ("f32", "f16", "bf16", "int8"))),
    "arithmetic": ("arithmetic", partial(one_of, ("fixed", "float"))),
    "initialModel": ("initial_model", _initial_model),
    "initialAsset": ("initial_asset", partial(matching, _ASSET)),
    "schema": ("schema", _schema),
}
"""Name in the DDO -> field of Plan and the check that reads it."""
