"""Story: a DDO of each kind is built, checked, and read back."""

import json
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from nevermined_fl import assets
from nevermined_fl.errors import InvalidRequest
from nevermined_fl.metadata.identity import hash_did, verify_proof

ddos = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("ddos.py"))))


@pytest.mark.parametrize("kind", ddos.ALL)
def test_a_ddo_of_each_kind_survives_json_and_proves_its_own_did(kind):
    ddo = assets.parse(json.dumps(ddos.ALL[kind]).encode())
    assert ddo == ddos.ALL[kind]
    assert assets.kind(ddo) == kind
    assets.verify_integrity(ddo, hash_did)
    verify_proof(ddo)
    assert ddo["service"][0]["serviceEndpoint"] == f"http://127.0.0.1:5000/api/v1/metadata/assets/ddo/{ddo['id']}"


def test_the_terms_read_are_the_terms_written():
    expected = replace(
        ddos.TERMS, creator=ddos.PROVIDER.address, endpoint="http://127.0.0.1:8030/api/v1/gateway/services/execute"
    )
    assert assets.compute_terms(ddos.ALL["dataset"]) == expected
    assert assets.compute_terms(ddos.ALL["compute"]) == replace(expected, inbound=True)
    assert expected.price() == 15


def test_a_dataset_says_its_schema_its_sample_and_its_gateway():
    ddo = ddos.ALL["dataset"]
    assert assets.dataset_schema(ddo) == ddos.SCHEMA
    assert assets.sample(ddo) == ddos.SAMPLE
    assert assets.gateway_url(ddo) == ddos.GATEWAY
    assert [file.size for file in assets.files(ddo)] == [4711]
    summary = assets.summary(ddo)
    assert (summary.did, summary.kind, summary.name, summary.price) == (ddo["id"], "dataset", "patients 1", 15)
    assert summary.tags == ("digits", "fl")
    assert summary.created == "2026-01-31T12:00:00Z"


def test_a_session_says_who_takes_part_where_and_how():
    spec = assets.session_spec(ddos.ALL["fl-coordinator"])
    assert spec.datasets == (ddos.dataset(1)["id"], ddos.dataset(2)["id"])
    assert spec.compute == ddos.ALL["compute"]["id"]
    assert spec.parameters == ddos.PARAMETERS
    assert spec.container == ddos.PYTHON


def test_a_workflow_says_its_session_its_inputs_and_its_algorithm():
    ddo = ddos.ALL["workflow"]
    assert assets.session_of(ddo) == ddos.ALL["fl-coordinator"]["id"]
    assert assets.workflow_inputs(ddo) == (ddos.dataset(1)["id"], ddos.dataset(2)["id"])
    assert assets.algorithm_did(ddo) == ddos.ALL["algorithm"]["id"]
    assert assets.container(ddo) == assets.container(ddos.ALL["algorithm"]) == ddos.PYTHON


def test_an_algorithm_and_a_model_say_their_files():
    assert assets.algorithm_files(ddos.ALL["algorithm"]) == ddos.FILES
    assert [file.name for file in assets.files(ddos.ALL["model"])] == ["model.safetensors", "card.json"]
    assert assets.model_metrics(ddos.ALL["model"]) == {"accuracy": 0.93, "loss": 0.21}
    assert assets.session_of(ddos.ALL["model"]) == ddos.ALL["fl-coordinator"]["id"]


def test_the_same_content_at_the_same_time_is_the_same_asset_and_not_otherwise():
    again = assets.build_compute(ddos.HOSPITAL, ddos.about("coordinators"), gateway_url=ddos.GATEWAY, terms=ddos.TERMS)
    same = assets.build_compute(ddos.HOSPITAL, ddos.about("coordinators"), gateway_url=ddos.GATEWAY, terms=ddos.TERMS)
    later = ddos.about("coordinators", ddos.NOW + 0.25)
    other = assets.build_compute(ddos.HOSPITAL, later, gateway_url=ddos.GATEWAY, terms=ddos.TERMS)
    assert again == same
    assert again["id"] != other["id"]
    assert other["created"] == "2026-01-31T12:00:00.250000Z"


def test_another_publisher_gets_another_did():
    assert ddos.dataset(1)["id"] != ddos.dataset(1, publisher=replace(ddos.SCIENTIST, name="Hospital A"))["id"]


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "kinds"),
    [
        (assets.compute_terms, {"dataset", "compute"}),
        (assets.dataset_schema, {"dataset"}),
        (assets.sample, {"dataset"}),
        (assets.gateway_url, {"dataset", "compute", "algorithm", "model"}),
        (assets.files, {"dataset", "compute", "algorithm", "model"}),
        (assets.algorithm_files, {"algorithm"}),
        (assets.session_spec, {"fl-coordinator"}),
        (assets.session_of, {"workflow", "model"}),
        (assets.workflow_inputs, {"workflow"}),
        (assets.algorithm_did, {"workflow"}),
        (assets.container, {"workflow", "fl-coordinator", "algorithm"}),
        (assets.model_metrics, {"model"}),
        (assets.summary, set(ddos.ALL)),
    ],
)
def test_an_accessor_refuses_the_other_kinds(read, kinds):
    for kind, ddo in ddos.ALL.items():
        if kind in kinds:
            read(ddo)
        else:
            with pytest.raises(InvalidRequest, match=f"is a {kind}, not a") as refused:
                read(ddo)
            # A workflow with inputs is refused as a session for its inputs first.
            assert refused.value.check == "main_type"


def edited(kind, path, value):
    ddo = json.loads(json.dumps(ddos.ALL[kind]))
    holder = ddo
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return ddo


MAIN = ("service", 0, "attributes", "main")
SERVICE = ("service", 1, "attributes", "main")
CONDITIONS = ("service", 1, "attributes", "serviceAgreementTemplate", "conditions")


@pytest.mark.parametrize(
    ("read", "kind", "path", "value", "check"),
    [
        (assets.compute_terms, "dataset", (*SERVICE, "_amounts"), ["11", "3"], "compute_terms"),
        (assets.compute_terms, "dataset", (*SERVICE, "timeout"), 10, "compute_terms"),
        (assets.compute_terms, "dataset", (*CONDITIONS, 1, "timeout"), 10, "compute_terms"),
        (assets.compute_terms, "dataset", (*CONDITIONS, 0, "timeout"), 10, "ddo_shape"),
        (assets.compute_terms, "dataset", (*CONDITIONS, 2, "timelock"), 10, "ddo_shape"),
        (
            assets.compute_terms,
            "dataset",
            (*CONDITIONS, 2, "parameters", 2, "value"),
            [ddos.TOKEN] * 2,
            "compute_terms",
        ),
        (assets.compute_terms, "dataset", (*SERVICE, "_tokenAddress"), ddos.ESCROW, "compute_terms"),
        (assets.compute_terms, "dataset", (*SERVICE, "price"), "1", "compute_terms"),
        (assets.compute_terms, "dataset", (*MAIN, "price"), "1", "compute_terms"),
        (assets.compute_terms, "dataset", (*MAIN, "gateway"), "http://elsewhere", "compute_terms"),
        (assets.compute_terms, "dataset", ("service", 1, "type"), "access", "ddo_shape"),
        (assets.files, "model", (*MAIN, "files", 1, "index"), 0, "ddo_files"),
        (assets.files, "model", (*MAIN, "files", 1, "name"), "model.safetensors", "ddo_files"),
        (assets.files, "model", (*MAIN, "files", 1, "name"), "../card.json", "ddo_shape"),
        (assets.files, "model", (*MAIN, "files", 1, "contentLength"), "9" * 19, "ddo_shape"),
        (assets.algorithm_files, "algorithm", (*MAIN, "files"), [], "ddo_files"),
        (assets.algorithm_files, "algorithm", (*MAIN, "algorithm", "entrypoint"), "other.py", "ddo_files"),
        (
            assets.session_spec,
            "fl-coordinator",
            (*MAIN, "session", "datasets"),
            [ddos.dataset()["id"]] * 2,
            "ddo_shape",
        ),
        (
            assets.session_spec,
            "fl-coordinator",
            (*MAIN, "workflow", "stages", 0, "input"),
            [{"index": 0, "id": ddos.dataset()["id"]}],
            "no_data_inputs",
        ),
        (assets.session_spec, "fl-coordinator", (*MAIN, "parameters"), {"rounds": 7}, "ddo_shape"),
        (assets.session_spec, "fl-coordinator", (*MAIN, "type"), "coordinator", "main_type"),
        (assets.workflow_inputs, "workflow", (*MAIN, "workflow", "stages", 1, "index"), 0, "ddo_shape"),
        (assets.workflow_inputs, "workflow", (*MAIN, "workflow", "stages"), [], "ddo_shape"),
        (
            assets.workflow_inputs,
            "workflow",
            (*MAIN, "workflow", "stages", 1, "input", 0, "id"),
            ddos.dataset()["id"],
            "ddo_shape",
        ),
        (
            assets.algorithm_did,
            "workflow",
            (*MAIN, "workflow", "stages", 1, "transformation", "id"),
            ddos.dataset()["id"],
            "ddo_shape",
        ),
        (
            assets.container,
            "workflow",
            (*MAIN, "workflow", "stages", 1, "requirements", "container", "tag"),
            "evil",
            "ddo_shape",
        ),
        (assets.kind, "model", (*MAIN, "type"), "spaceship", "main_type"),
        (assets.kind, "model", (*MAIN, "type"), ["model"], "main_type"),
        (assets.kind, "model", ("service", 0, "index"), 1, "ddo_shape"),
        (assets.kind, "model", ("service",), [], "ddo_shape"),
        (assets.kind, "model", ("proof",), None, "ddo_shape"),
        (assets.kind, "model", ("id",), "did:nv:" + "A" * 64, "ddo_shape"),
    ],
)
def test_a_document_that_contradicts_itself_is_refused(read, kind, path, value, check):
    with pytest.raises(InvalidRequest) as refused:
        read(edited(kind, path, value))
    assert refused.value.check == check


def test_terms_need_a_receiver_for_each_amount():
    with pytest.raises(InvalidRequest, match="2 amounts for 1 receivers"):
        ddos.dataset(terms=replace(ddos.TERMS, receivers=(ddos.BUYER.address,)))


def test_a_builder_names_the_value_that_does_not_fit():
    with pytest.raises(InvalidRequest, match="gateway should be an http"):
        assets.build_compute(ddos.HOSPITAL, ddos.about("x"), gateway_url="ftp://host", terms=ddos.TERMS)
