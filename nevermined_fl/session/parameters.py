"""Is this a plan? Every parameter of a session's DDO, with its bounds.

Rule 1: a parameter that is not known is refused, so that a misspelt one is never silently ignored.
Rule 2: bounds are checked on the numbers as they came, before anything is multiplied or allocated.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from nevermined_fl import aggregation
from nevermined_fl.errors import InvalidRequest
from nevermined_fl.session.plan import DTYPES, FROM_PARTICIPANT, EarlyStop, Metric, Plan, TensorSchema
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
    _object("parameters", parameters)
    for name in _REQUIRED:
        if name not in parameters:
            _refuse(name, "a value", "nothing")
    for name in parameters:
        if name not in PARAMETERS:
            raise InvalidRequest(f"{shown(name)}: expected one of {', '.join(PARAMETERS)}", check="plan")
    found = {field: read(name, parameters[name]) for name, (field, read) in PARAMETERS.items() if name in parameters}
    plan = Plan(members=_members(members), **found)
    _judge_counts(plan)
    if plan.early_stop is not None:
        _judge_early_stop(plan.early_stop, plan.metrics)
    if plan.initial_asset and plan.initial_model == FROM_PARTICIPANT:
        _refuse("initialAsset", "none, for a participant makes the initial model", plan.initial_asset)
    _unique("schema", [tensor.name for tensor in plan.carried()])
    if (size := len(_json("parameters", dict(parameters)))) > MAX_PARAMETERS_BYTES:
        _refuse("parameters", f"at most {MAX_PARAMETERS_BYTES} bytes of JSON", size)
    return plan


def _judge_counts(plan: Plan) -> None:
    """Every round has at least ``min_participants`` updates, however many are drawn; they must be enough."""
    if plan.min_participants > len(plan.members):
        _refuse("minParticipants", f"at most the {len(plan.members)} datasets of the session", plan.min_participants)
    fewest = aggregation.create(plan.strategy, dict(plan.strategy_options)).fewest()
    if plan.min_participants < fewest:
        _refuse("minParticipants", f"at least {fewest} for {plan.strategy} with these options", plan.min_participants)


def _judge_early_stop(stop: EarlyStop, metrics: tuple[Metric, ...]) -> None:
    metric = next((metric for metric in metrics if metric.name == stop.metric), None)
    if metric is None:
        _refuse("earlyStop.metric", "one of the plan's metrics", stop.metric)
    if stop.target is not None and not metric.low <= stop.target <= metric.high:
        _refuse("earlyStop.target", f"{metric.low:g} to {metric.high:g}, the range of {metric.name}", stop.target)


def _refuse(name: str, expected: str, got: Any) -> NoReturn:
    # A hostile integer may have more digits than Python agrees to print.
    plain = isinstance(got, str | float) or (isinstance(got, int) and abs(got) < 10**30)
    came = str(got) if plain or got is None else type(got).__name__
    raise InvalidRequest(f"{name}: expected {expected}, got {shown(came)}", check="plan")


def _integer(low: int, high: int, name: str, value: Any) -> int:
    if type(value) is not int or not low <= value <= high:
        _refuse(name, f"an integer {low} to {high}", value)
    return value


def _number(name: str, value: Any, low: float = -1e300, high: float = 1e300) -> float:
    # The comparison refuses NaN and infinities too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        _refuse(name, f"a number {low:g} to {high:g}", value)
    return float(value)


def _positive(high: float, name: str, value: Any) -> float:
    number = _number(name, value, 0.0, high)
    if number == 0:
        _refuse(name, f"a number above 0, at most {high:g}", value)
    return number


def _matching(pattern: re.Pattern[str], name: str, value: Any) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        _refuse(name, f"text like {pattern.pattern}", value)
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        _refuse(name, "text", value)
    return value


def _one_of(words: tuple[str, ...], name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in words:
        _refuse(name, f"one of {', '.join(words)}", value)
    return value


def _or_none(read: Callable[[str, Any], Any], name: str, value: Any) -> Any:
    return None if value is None else read(name, value)


def _initial_model(name: str, value: Any) -> str:
    return FROM_PARTICIPANT if value == FROM_PARTICIPANT else _matching(_DIGEST, name, value)


def _early_stop(name: str, value: Any) -> EarlyStop:
    row = _row(name, value, {"metric"}, {"goal", "target", "tolerance", "patience"})
    metric = _matching(_NAME, f"{name}.metric", row["metric"])
    goal = _one_of(("max", "min"), f"{name}.goal", row.get("goal", "max"))
    target = _or_none(_number, f"{name}.target", row.get("target"))
    tolerance = _or_none(partial(_number, low=0.0), f"{name}.tolerance", row.get("tolerance"))
    if target is None and tolerance is None:
        _refuse(name, "a target, a tolerance or both", "neither")
    return EarlyStop(metric, goal, target, tolerance, _integer(1, 100_000, f"{name}.patience", row.get("patience", 1)))


def _engine(name: str, value: Any) -> str:
    if value != "native":
        _refuse(name, "native, the only engine of this version", value)
    return "native"


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        _refuse(name, "a JSON object", value)
    return value


def _json(name: str, value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{name}: expected JSON with finite numbers, got {error}"[:200], check="plan") from error


def _options(name: str, value: Any) -> tuple[tuple[str, float], ...]:
    return tuple((key, _number(f"{name}.{shown(key)}", number)) for key, number in sorted(_object(name, value).items()))


def _hyperparameters(name: str, value: Any) -> tuple[tuple[str, Any], ...]:
    # As a DDO, a journal and a Trainer get them: tuples are lists, and keys are texts.
    raw = _json(name, _object(name, value))
    plain = json.loads(raw)
    if _json(name, plain) != raw:
        _refuse(name, "each key once when they are texts", "two alike")
    return tuple(sorted(plain.items()))


def _list(name: str, value: Any, low: int, high: int) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not low <= len(value) <= high:
        got = f"{len(value)} of them" if isinstance(value, list | tuple) else value
        _refuse(name, f"a list of {low} to {high}", got)
    return value


def _unique(name: str, names: list[str]) -> None:
    seen: set[str] = set()
    for item in names:
        if item in seen:
            _refuse(name, "each name once", f"{item} twice")
        seen.add(item)


def _row(name: str, value: Any, required: set[str], optional: set[str]) -> dict[str, Any]:
    row = _object(name, value)
    if not required <= set(row) <= required | optional:
        _refuse(name, f"an object with {', '.join(sorted(required | optional))}", ", ".join(sorted(row)))
    return row


def _members(value: Any) -> tuple[str, ...]:
    names = [_matching(_MEMBER, "members", member) for member in _list("members", value, 1, 10_000)]
    _unique("members", names)
    return tuple(names)


def _metrics(name: str, value: Any) -> tuple[Metric, ...]:
    metrics = tuple(_metric(f"{name}[{i}]", row) for i, row in enumerate(_list(name, value, 0, 64)))
    _unique(name, [metric.name for metric in metrics])
    return metrics


def _metric(name: str, value: Any) -> Metric:
    row = _row(name, value, {"name"}, {"low", "high", "digits"})
    low, high = _number(f"{name}.low", row.get("low", 0.0)), _number(f"{name}.high", row.get("high", 1.0))
    if low >= high:
        _refuse(f"{name}.high", f"more than low, {low:g}", high)
    digits = _integer(0, 12, f"{name}.digits", row.get("digits", 6))
    # Else a metric within the range leaves it when the participant rounds it, and the coordinator refuses the answer.
    if round(low, digits) < low:
        _refuse(f"{name}.low", f"a number that rounding to {digits} digits does not lower", low)
    if round(high, digits) > high:
        _refuse(f"{name}.high", f"a number that rounding to {digits} digits does not raise", high)
    return Metric(_matching(_NAME, f"{name}.name", row["name"]), low, high, digits)


def _schema(name: str, value: Any) -> tuple[TensorSchema, ...]:
    schema = tuple(_tensor(f"{name}[{i}]", row) for i, row in enumerate(_list(name, value, 1, 10_000)))
    _unique(name, [tensor.name for tensor in schema])
    if (size := sum(tensor.size() for tensor in schema)) > _MAX_MODEL_BYTES:
        _refuse(name, f"at most {_MAX_MODEL_BYTES} bytes of tensors", f"{size} bytes" if size < 10**30 else "more")
    return schema


def _tensor(name: str, value: Any) -> TensorSchema:
    row = _row(name, value, {"name", "dtype", "shape"}, set())
    if not isinstance(row["dtype"], str) or row["dtype"] not in DTYPES:
        _refuse(f"{name}.dtype", f"one of {', '.join(DTYPES)}", row["dtype"])
    if row["name"] == "__metadata__":
        _refuse(f"{name}.name", "another name, for safetensors has a use of its own for this one", row["name"])
    shape = [
        _integer(1, _MAX_MODEL_BYTES, f"{name}.shape", size) for size in _list(f"{name}.shape", row["shape"], 0, 32)
    ]
    return TensorSchema(_matching(_NAME, f"{name}.name", row["name"]), row["dtype"], tuple(shape))


PARAMETERS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "engine": ("engine", _engine),
    "minParticipants": ("min_participants", partial(_integer, 1, 10_000)),
    "participantsRatio": ("participants_ratio", partial(_positive, 1.0)),
    "rounds": ("rounds", partial(_integer, 1, 100_000)),
    "strategy": ("strategy", _text),
    "strategyOptions": ("strategy_options", _options),
    "seed": ("seed", partial(_integer, 0, _MAX_EXACT)),
    "selectionTimeout": ("selection_timeout", partial(_positive, _MAX_TIMEOUT)),
    "roundTimeout": ("round_timeout", partial(_positive, _MAX_TIMEOUT)),
    "maxWeight": ("max_weight", partial(_integer, 1, _MAX_EXACT)),
    "metrics": ("metrics", _metrics),
    "hyperparameters": ("hyperparameters", _hyperparameters),
    "overSelection": ("over_selection", partial(_number, low=1.0, high=100.0)),
    "evaluationTimeout": ("evaluation_timeout", partial(_or_none, partial(_positive, _MAX_TIMEOUT))),
    "repeats": ("repeats", partial(_integer, 0, 1000)),
    "lateUpdates": ("late_updates", partial(_one_of, ("drop", "use"))),
    "earlyStop": ("early_stop", partial(_or_none, _early_stop)),
    "evaluateEvery": ("evaluate_every", partial(_integer, 1, 100_000)),
    "checkpointEvery": ("checkpoint_every", partial(_integer, 0, 100_000)),
    "normBound": ("norm_bound", partial(_or_none, partial(_positive, 1e300))),
    "controlBound": ("control_bound", partial(_or_none, partial(_positive, 1e300))),
    "precision": ("precision", partial(_one_of, ("f32", "f16", "bf16", "int8"))),
    "arithmetic": ("arithmetic", partial(_one_of, ("fixed", "float"))),
    "initialModel": ("initial_model", _initial_model),
    "initialAsset": ("initial_asset", partial(_matching, _ASSET)),
    "schema": ("schema", _schema),
}
"""Name in the DDO -> field of Plan and the check that reads it."""
