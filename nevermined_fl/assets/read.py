"""Read: what a DDO says, as values that the rest of the library can trust.

Every function checks the whole document first and raises InvalidRequest naming what is wrong. None of them checks the
checksums: ``verify_integrity`` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nevermined_fl.assets.document import kind, main_of
from nevermined_fl.assets.terms import Container
from nevermined_fl.errors import InvalidRequest

__all__ = [
    "Column",
    "FileEntry",
    "Schema",
    "SessionSpec",
    "Summary",
    "algorithm_did",
    "algorithm_files",
    "container",
    "dataset_schema",
    "files",
    "gateway_url",
    "model_metrics",
    "sample",
    "session_of",
    "session_spec",
    "summary",
    "workflow_inputs",
]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A published file: plain name, media type, size in bytes, SHA-256 in hex without prefix."""

    name: str
    content_type: str
    size: int
    sha256: str

    def values(self, index: int) -> dict[str, Any]:
        """As the templates ask for it."""
        return {
            "index": index,
            "name": self.name,
            "contentType": self.content_type,
            "checksum": self.sha256,
            "contentLength": str(self.size),
        }


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a dataset."""

    name: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns of a dataset and how many rows it has."""

    columns: tuple[Column, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """What a session's DDO fixes: who may take part, where the coordinator runs, the plan's parameters."""

    datasets: tuple[str, ...]
    compute: str
    parameters: dict[str, Any]
    container: Container


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list of assets shows of one. ``price`` is in the token's smallest unit."""

    did: str
    kind: str
    name: str
    author: str
    creator: str
    created: str
    price: int
    license: str
    description: str
    tags: tuple[str, ...]


def summary(ddo: Any) -> Summary:
    """What people read about any asset."""
    found = kind(ddo)
    attributes = ddo["service"][0]["attributes"]
    main, information = attributes["main"], attributes["additionalInformation"]
    return Summary(
        did=ddo["id"],
        kind=found,
        name=main["name"],
        author=main["author"],
        creator=ddo["proof"]["creator"],
        created=main["dateCreated"],
        price=int(main["price"]),
        license=main["license"],
        description=information["description"],
        tags=tuple(information["tags"]),
    )


def gateway_url(ddo: Any) -> str:
    """The gateway that runs (dataset, compute) or hands out (algorithm, model) this asset."""
    url: str = main_of(ddo, "dataset", "compute", "algorithm", "model")["gateway"]
    return url


def files(ddo: Any) -> tuple[FileEntry, ...]:
    """The files of an asset, in the order of their indexes, which start at 0."""
    entries = main_of(ddo, "dataset", "compute", "algorithm", "model")["files"]
    if [entry["index"] for entry in entries] != list(range(len(entries))):
        raise InvalidRequest("main.files should have the indexes 0, 1, 2 …", check="ddo_files")
    if len({entry["name"] for entry in entries}) != len(entries):
        raise InvalidRequest("two of main.files have the same name", check="ddo_files")
    return tuple(_file(entry) for entry in entries)


def _file(entry: dict[str, Any]) -> FileEntry:
    return FileEntry(entry["name"], entry["contentType"], int(entry["contentLength"]), entry["checksum"])


def algorithm_files(ddo: Any) -> tuple[FileEntry, FileEntry | None]:
    """The Trainer's file of an algorithm, and its initial model unless sessions begin with another one."""
    main = main_of(ddo, "algorithm")
    found = files(ddo)
    if not 1 <= len(found) <= 2 or found[0].name != main["algorithm"]["entrypoint"]:
        raise InvalidRequest("an algorithm's files are its entrypoint and perhaps an initial model", check="ddo_files")
    return found[0], found[1] if len(found) == 2 else None


def dataset_schema(ddo: Any) -> Schema:
    """The columns of a dataset."""
    schema = main_of(ddo, "dataset")["schema"]
    return Schema(tuple(Column(column["name"], column["dtype"]) for column in schema["columns"]), schema["rows"])


def sample(ddo: Any) -> dict[str, Any] | None:
    """Mock rows of a dataset ``{columns, rows}``, or None when it shows none."""
    table: dict[str, Any] | None = main_of(ddo, "dataset").get("sample")
    return table


def session_spec(ddo: Any) -> SessionSpec:
    """What a session's DDO fixes. ``check`` is ``no_data_inputs`` when its stage asks for data.

    The parameters are the plan's to judge: ``Plan.from_parameters(spec.parameters, spec.datasets)``.
    """
    _refuse_inputs(ddo)
    main = main_of(ddo, "fl-coordinator")
    _refuse_repeats(main["session"]["datasets"], "main.session.datasets")
    return SessionSpec(
        datasets=tuple(main["session"]["datasets"]),
        compute=main["session"]["compute"],
        parameters=main["parameters"],
        container=container(ddo),
    )


def _refuse_inputs(ddo: Any) -> None:
    """Say it before the template would, under the name that the protocol gives to this check."""
    try:
        main = ddo["service"][0]["attributes"]["main"]
        wanted = main["workflow"]["stages"][0]["input"]
    except (LookupError, TypeError):
        return
    if main.get("type") == "fl-coordinator" and isinstance(wanted, list) and wanted:
        raise InvalidRequest("a coordinator has no data inputs: stages[0].input should be []", check="no_data_inputs")


def _refuse_repeats(dids: list[str], where: str) -> None:
    if len(set(dids)) != len(dids):
        raise InvalidRequest(f"{where} names a DID twice", check="ddo_shape")


def session_of(ddo: Any) -> str:
    """The session's DID of a participants' workflow or of a model."""
    did: str = main_of(ddo, "workflow", "model")["session"]
    return did


def _stages(ddo: Any) -> list[dict[str, Any]]:
    stages: list[dict[str, Any]] = main_of(ddo, "workflow")["workflow"]["stages"]
    if not stages or [stage["index"] for stage in stages] != list(range(len(stages))):
        raise InvalidRequest("a workflow's stages should have the indexes 0, 1, 2 …", check="ddo_shape")
    return stages


def workflow_inputs(ddo: Any) -> tuple[str, ...]:
    """The datasets' DIDs of a participants' workflow, in the order of its stages."""
    dids = [stage["input"][0]["id"] for stage in _stages(ddo)]
    _refuse_repeats(dids, "workflow.stages")
    return tuple(dids)


def algorithm_did(ddo: Any) -> str:
    """The one algorithm of a participants' workflow."""
    dids = {stage["transformation"]["id"] for stage in _stages(ddo)}
    if len(dids) != 1:
        raise InvalidRequest("all stages of a workflow run the same algorithm", check="ddo_shape")
    did: str = dids.pop()
    return did


def container(ddo: Any) -> Container:
    """The image that a workflow, session or algorithm asks for."""
    main = main_of(ddo, "workflow", "fl-coordinator", "algorithm")
    holders = [main["algorithm"]] if main["type"] == "algorithm" else main["workflow"]["stages"]
    found = {_container(holder["requirements"]["container"]) for holder in holders}
    if len(found) != 1:
        raise InvalidRequest("all stages of a workflow run in the same image", check="ddo_shape")
    return found.pop()


def _container(found: dict[str, Any]) -> Container:
    return Container(found["image"], found["tag"], found["checksum"])


def model_metrics(ddo: Any) -> dict[str, float]:
    """The metrics of a model's last evaluation."""
    return dict(main_of(ddo, "model")["metrics"])
