"""Build: DDOs of every kind, rendered from the templates and sealed by their publisher."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import workflows
from nevermined_fl.assets.integrity import seal
from nevermined_fl.assets.terms import EXECUTE
from nevermined_fl.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.assets.integrity import Publisher
    from nevermined_fl.assets.read import FileEntry, Schema
    from nevermined_fl.assets.terms import Container, Terms

__all__ = [
    "About",
    "build_algorithm",
    "build_compute",
    "build_dataset",
    "build_model",
    "build_session",
    "build_workflow",
]

DDO_PATH = "/api/v1/metadata/assets/ddo"


@dataclass(frozen=True, slots=True)
class About:
    """What people read about an asset. ``now`` is its time of creation in Unix seconds.

    The same publisher, content and time give the same DID: keep ``now`` to publish again, change it for a new asset.
    """

    name: str
    now: float
    description: str = ""
    tags: tuple[str, ...] = ()
    license: str = "No License Specified"


def build_dataset(
    publisher: Publisher,
    about: About,
    *,
    gateway_url: str,
    terms: Terms,
    files: Sequence[FileEntry],
    schema: Schema,
    sample: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A dataset with a compute service; ``sample`` is a table of mock rows ``{columns, rows}``."""
    columns = [{"name": column.name, "dtype": column.dtype} for column in schema.columns]
    values = _service(publisher, gateway_url, terms) | _files(files)
    return _build("dataset", publisher, about, **values, columns=columns, rows=schema.rows, sample=sample)


def build_compute(publisher: Publisher, about: About, *, gateway_url: str, terms: Terms) -> dict[str, Any]:
    """A compute service without data, for coordinators."""
    return _build("compute", publisher, about, **_service(publisher, gateway_url, terms))


def build_algorithm(
    publisher: Publisher,
    about: About,
    *,
    gateway_url: str,
    files: Sequence[FileEntry],
    container: Container,
    version: str = "1",
) -> dict[str, Any]:
    """An algorithm: file 0 holds the Trainer, file 1 the initial model."""
    values = _files(files) | container.values()
    entrypoint = files[0].name if files else ""
    return _build("algorithm", publisher, about, **values, gateway=gateway_url, version=version, entrypoint=entrypoint)


def build_workflow(
    publisher: Publisher, about: About, *, session: str, datasets: Sequence[str], algorithm: str, container: Container
) -> dict[str, Any]:
    """The participants' workflow: one stage per dataset."""
    shared = {"algorithm": algorithm, "metadata": publisher.metadata_url + DDO_PATH} | container.values()
    stages = [{"index": n, "dataset": did} | shared for n, did in enumerate(datasets)]
    return _build("workflow", publisher, about, session=session, stages=stages)


def build_session(
    publisher: Publisher,
    about: About,
    *,
    datasets: Sequence[str],
    compute: str,
    parameters: Mapping[str, Any],
    container: Container,
) -> dict[str, Any]:
    """The coordinator's workflow; its DID is the session's. ``parameters`` is ``Plan.to_parameters()``."""
    values: dict[str, Any] = {"datasets": list(datasets), "compute": compute, "parameters": dict(parameters)}
    return _build("fl-coordinator", publisher, about, **values, **container.values())


def build_model(
    publisher: Publisher,
    about: About,
    *,
    gateway_url: str,
    session: str,
    files: Sequence[FileEntry],
    metrics: Mapping[str, float],
) -> dict[str, Any]:
    """A trained model; ``metrics`` are those of its last evaluation."""
    values = _files(files) | {"gateway": gateway_url, "session": session, "metrics": dict(metrics)}
    return _build("model", publisher, about, **values)


def _service(publisher: Publisher, gateway_url: str, terms: Terms) -> dict[str, Any]:
    if len(terms.amounts) != len(terms.receivers):
        raise InvalidRequest(
            f"{len(terms.amounts)} amounts for {len(terms.receivers)} receivers", check="compute_terms"
        )
    return terms.values() | {"gateway": gateway_url, "execute": gateway_url + EXECUTE, "creator": publisher.address}


def _files(files: Sequence[FileEntry]) -> dict[str, Any]:
    return {"files": [file.values(n) for n, file in enumerate(files)]}


def _build(kind: str, publisher: Publisher, about: About, /, **values: Any) -> dict[str, Any]:
    shared = {
        "name": about.name,
        "created": _timestamp(about.now),
        "description": about.description,
        "tags": list(about.tags),
        "license": about.license,
        "author": publisher.name,
        "metadata": publisher.metadata_url + DDO_PATH,
    }
    try:
        document = workflows.render(kind, **(shared | values))
    except workflows.TemplateError as error:
        raise InvalidRequest(f"{kind}: {error}", check="ddo_shape") from error
    return seal(document, publisher)


def _timestamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).replace(tzinfo=None).isoformat() + "Z"
