"""An edited DDO is noticed, wherever it was edited, and the SDK's own checksums are ours."""

import copy
import hashlib
import json
import runpy
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nevermined_fl import assets
from nevermined_fl.errors import InvalidRequest
from nevermined_fl.metadata.identity import hash_did, verify_proof

ddos = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("ddos.py"))))
ACCESSORS = (
    assets.kind,
    assets.summary,
    assets.compute_terms,
    assets.gateway_url,
    assets.files,
    assets.algorithm_files,
    assets.dataset_schema,
    assets.sample,
    assets.session_spec,
    assets.session_of,
    assets.workflow_inputs,
    assets.algorithm_did,
    assets.container,
    assets.model_metrics,
    assets.creator,
    assets.did_seed,
    assets.registry_checksum,
    lambda ddo: assets.verify_integrity(ddo, hash_did),
)


def test_checksum_seed_and_did_are_those_of_a_ddo_made_by_the_nevermined_sdk():
    """Recorded from nevermined-sdk-py 0.14.0: a workflow, whose checksum can be recomputed."""
    main = {
        "name": "coordinator workflow",
        "dateCreated": "2026-11-22T04:00:00Z",
        "author": "Org",
        "license": "CC-BY",
        "price": "0",
        "type": "workflow",
        "workflow": {
            "stages": [
                {
                    "index": 0,
                    "stageType": "Filtering",
                    "requirements": {"container": {"image": "python", "tag": "3.11", "checksum": "sha256:53"}},
                    "input": [
                        {"index": 0, "id": "did:nv:4bdddb96d425c03b3e6efde210cf0fe16b8f886dc9e2ff1fc65ebf07a01713ca"}
                    ],
                    "transformation": {"id": "did:nv:1561c53365688b522b82a1e6bbbe99bb8f80c70a8b791cbae1ce8a34b77f8538"},
                    "output": {
                        "metadataUrl": "http://127.0.0.1:40453/api/v1/metadata/assets/ddo/",
                        "secretStoreUrl": "",
                        "accessProxyUrl": "http://127.0.0.1:40453/api/v1/gateway/",
                        "metadata": {},
                    },
                }
            ]
        },
    }
    did = "did:nv:f1cb5b52e3cb59fd9a5b18140ed1bbc2a65973fa8106f6c7ad0aa279a907bb82"
    proof = {
        "creator": "0xA97Ab20944d378714687749B03d5efA5ACc38D29",
        "checksum": {"0": "66b5dc5f232d269cb1874422584bbed8f17e773ea9c67d80bdc10f82d09c807a"},
        "signatureValue": "0xfc667458c9ca6d59061b5d9889f592e8cbbe41a6f2a02ac2df187c016c87f4e3"
        "73ac9766d031648a6ba60bb91beafd9bcb7716a48ae5c8aa6a04ae2b3e5328ac1b",
    }
    ddo = {"id": did, "proof": proof, "service": [{"type": "metadata", "index": 0, "attributes": {"main": main}}]}
    assert assets.checksum(main) == proof["checksum"]["0"]
    assert hash_did(assets.did_seed(ddo), proof["creator"]) == did
    verify_proof(ddo)
    with pytest.raises(InvalidRequest) as refused:
        assets.verify_integrity(ddo, hash_did)
    assert refused.value.check == "ddo_integrity"


def places(value, path=()):
    """Every place of a document that holds a scalar or an empty container."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [place for key, child in children for place in places(child, (*path, key))]
    return found or [path]


def at(document, path):
    for key in path:
        document = document[key]
    return document


def put(document, path, value):
    at(document, path[:-1])[path[-1]] = value


def other(value):
    """Another value of the same type where there is one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str) and value:
        return ("0" if value[-1] != "0" else "1").join([value[:-1], ""])
    return "x"


@pytest.mark.parametrize("kind", ddos.ALL)
def test_an_edit_of_any_value_is_noticed(kind):
    original = ddos.ALL[kind]
    paths = [path for path in places(original) if path[0] not in {"@context", "proof"}]
    assert len(paths) > 20
    for path in paths:
        ddo = copy.deepcopy(original)
        put(ddo, path, other(at(ddo, path)))
        with pytest.raises(InvalidRequest):
            assets.verify_integrity(ddo, hash_did)


@pytest.mark.parametrize("kind", ddos.ALL)
def test_an_edit_of_anything_but_the_proof_changes_the_checksum_on_chain(kind):
    original = ddos.ALL[kind]
    stated = assets.registry_checksum(original)
    for path in places(original):
        ddo = copy.deepcopy(original)
        put(ddo, path, other(at(ddo, path)))
        if path[0] == "proof":
            continue
        with suppress(InvalidRequest):
            assert assets.registry_checksum(ddo) != stated, path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("proof", "checksum", "0"), "0" * 64),
        (("proof", "checksum", "4"), None),
        (("proof", "checksum", "9"), "0" * 64),
        (("proof", "creator"), ddos.BUYER.address),
        (("proof", "signatureValue"), "0x" + "11" * 64 + "1b"),
        (("proof", "signatureValue"), 5),
    ],
)
def test_an_edited_proof_is_noticed(path, value):
    ddo = copy.deepcopy(ddos.ALL["dataset"])
    put(ddo, path, value)
    check = verify_proof if path[-1] == "signatureValue" else lambda found: assets.verify_integrity(found, hash_did)
    with pytest.raises(InvalidRequest):
        check(ddo)


def test_a_blank_more_is_noticed_although_the_sdks_checksum_ignores_blanks():
    ddo = copy.deepcopy(ddos.ALL["fl-coordinator"])
    main = ddo["service"][0]["attributes"]["main"]
    main["parameters"]["hyperparameters"]["kernel"] = "ab"
    assert assets.checksum(main) == ddo["proof"]["checksum"]["0"]
    with pytest.raises(InvalidRequest) as refused:
        assets.verify_integrity(ddo, hash_did)
    assert refused.value.check == "ddo_integrity"


def test_a_service_more_or_less_and_services_out_of_order_are_noticed():
    for change in (lambda s: s.append(copy.deepcopy(s[1]) | {"index": 5}), lambda s: s.pop(), lambda s: s.reverse()):
        ddo = copy.deepcopy(ddos.ALL["dataset"])
        change(ddo["service"])
        with pytest.raises(InvalidRequest):
            assets.verify_integrity(ddo, hash_did)


def test_a_key_beside_the_others_is_refused():
    with pytest.raises(InvalidRequest, match="no 'endpoint'"):
        assets.verify_integrity(ddos.ALL["dataset"] | {"endpoint": "http://elsewhere"}, hash_did)


def test_curation_and_the_stores_user_id_may_be_added_by_others():
    ddo = copy.deepcopy(ddos.ALL["dataset"]) | {"userId": "u-1"}
    ddo["service"][0]["attributes"]["curation"] = {"rating": 0.93, "numVotes": 12, "isListed": True}
    assets.verify_integrity(ddo, hash_did)
    assert assets.registry_checksum(ddo) == assets.registry_checksum(ddos.ALL["dataset"])


def test_somebody_elses_name_in_a_service_is_refused_even_with_the_right_digests():
    theirs = copy.deepcopy(ddos.ALL["dataset"])
    document = {"@context": theirs["@context"], "created": theirs["created"], "service": theirs["service"]}
    from nevermined_fl.assets.integrity import seal  # noqa: PLC0415  no part of the public interface

    with pytest.raises(InvalidRequest) as refused:
        assets.verify_integrity(seal(document, ddos.SCIENTIST), hash_did)
    assert refused.value.check == "ddo_creator"


# --- hostile documents -------------------------------------------------------------------------------------------


def refused_or_read(document):
    # A signature takes as long as all else together, and reads the proof and the id alone.
    proof = document.get("proof") if isinstance(document, dict) else None
    signed = proof in [ddo["proof"] for ddo in ddos.ALL.values()]
    for read in ACCESSORS if signed else (*ACCESSORS, verify_proof):
        with suppress(InvalidRequest):
            read(document)


DEEP = []
for _ in range(100_000):
    DEEP = [DEEP]
CYCLE: dict[str, object] = {}
CYCLE["self"] = CYCLE
HOSTILE = [
    None,
    True,
    -1,
    0,
    2**63,
    10**5000,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "did:nv:" + "0" * 64,
    "\ud800",
    "\0",
    "9" * 5000,
    "x" * (2 * assets.MAX_BYTES),
    [],
    {},
    [[]],
    [{}],
    {"": None},
    {1: 2},
    b"bytes",
    {1, 2},
    (1,),
    DEEP,
    CYCLE,
    [0] * 300_000,
]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_was_changed_only_invalid_request_comes_out(data):
    ddo = copy.deepcopy(ddos.ALL[data.draw(st.sampled_from(sorted(ddos.ALL)))])
    paths = places(ddo)
    for _ in range(data.draw(st.integers(1, 3))):
        path = paths[data.draw(st.integers(0, len(paths) - 1))]
        path = path[: data.draw(st.integers(1, len(path)))]
        # Indexes, because hypothesis prints what it draws, and some of these cannot be printed.
        n = data.draw(st.integers(0, len(HOSTILE)))
        value = HOSTILE[n] if n < len(HOSTILE) else data.draw(st.text() | st.integers())
        with suppress(LookupError, TypeError):  # an earlier change took the place away
            put(ddo, path, value)
    refused_or_read(ddo)


@pytest.mark.parametrize("n", range(len(HOSTILE)))
def test_a_hostile_value_in_place_of_the_whole_document_is_refused(n):
    refused_or_read(HOSTILE[n])


# A compute asset has no key that a dataset lacks.
@pytest.mark.parametrize("kind", sorted(set(ddos.ALL) - {"compute"}))
def test_a_ddo_without_any_one_of_its_keys_is_refused_or_still_whole(kind):
    paths = {path[: n + 1] for path in places(ddos.ALL[kind]) for n, key in enumerate(path) if isinstance(key, str)}
    for path in sorted(paths, key=str):
        ddo = copy.deepcopy(ddos.ALL[kind])
        del at(ddo, path[:-1])[path[-1]]
        refused_or_read(ddo)


@pytest.mark.parametrize(
    ("raw", "check"),
    [
        (b"", "ddo_json"),
        (b"[]", "ddo_json"),
        (b'{"a": NaN}', "ddo_json"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "ddo_json"),
        (b'{"a": 1' + b"0" * 30 + b"}", "ddo_json"),
        (b'{"a": "\\ud800"}', "ddo_json"),
        (b"\xff\xfe\xff", "ddo_json"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "ddo_json"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "ddo_size"),
        (b'{"a": [' + b"0," * 250_000 + b"0]}", "ddo_size"),
        (b" " * (assets.MAX_BYTES + 1), "ddo_size"),
    ],
)
def test_bytes_that_are_no_ddo_are_refused(raw, check):
    with pytest.raises(InvalidRequest) as refused:
        assets.parse(raw)
    assert refused.value.check == check


def test_the_checksum_is_sha3_and_not_keccak():
    assert assets.checksum({"b": 1, "a": "x y"}) == hashlib.sha3_256(b'{"a":"xy","b":1}').hexdigest()


def test_a_ddo_is_plain_json():
    for ddo in ddos.ALL.values():
        assert json.loads(json.dumps(ddo, allow_nan=False)) == ddo
