"""Assets: DDOs are built, sealed, checked and read here, and nowhere else.

What belongs: everything that knows where something stands in a DDO. What does not: publishing and resolving them
(``metadata``), registering them (``chain``), judging who may do what (``permissions``).
"""

from nevermined_fl.assets.build import (
    About,
    build_algorithm,
    build_compute,
    build_dataset,
    build_model,
    build_session,
    build_workflow,
)
from nevermined_fl.assets.document import MAX_BYTES, check_json, kind, parse
from nevermined_fl.assets.integrity import (
    Publisher,
    checksum,
    creator,
    did_seed,
    proof_message,
    registry_checksum,
    verify_integrity,
)
from nevermined_fl.assets.read import (
    Column,
    FileEntry,
    Schema,
    SessionSpec,
    Summary,
    algorithm_did,
    algorithm_files,
    container,
    dataset_schema,
    files,
    gateway_url,
    model_metrics,
    sample,
    session_of,
    session_spec,
    summary,
    workflow_inputs,
)
from nevermined_fl.assets.terms import Container, Server, Terms, compute_terms

__all__ = [
    "MAX_BYTES",
    "About",
    "Column",
    "Container",
    "FileEntry",
    "Publisher",
    "Schema",
    "Server",
    "SessionSpec",
    "Summary",
    "Terms",
    "algorithm_did",
    "algorithm_files",
    "build_algorithm",
    "build_compute",
    "build_dataset",
    "build_model",
    "build_session",
    "build_workflow",
    "check_json",
    "checksum",
    "compute_terms",
    "container",
    "creator",
    "dataset_schema",
    "did_seed",
    "files",
    "gateway_url",
    "kind",
    "model_metrics",
    "parse",
    "proof_message",
    "registry_checksum",
    "sample",
    "session_of",
    "session_spec",
    "summary",
    "verify_integrity",
    "workflow_inputs",
]
