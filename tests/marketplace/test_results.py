"""Fetching a model, and whom to believe about where it comes from."""

import hashlib

import pytest
from buyer_world import BUYER, a_buyer, serving
from permission_world import CLINIC, CLOUD, HOSPITAL, STRANGER, open_market

from nevermined_fl import assets
from nevermined_fl.errors import Conflict, DecodeError, InvalidRequest, NotFound, PermissionDenied

MODEL, CARD = b"model bytes", b'{"rounds": 2}'


def publish_model(world, url, home, *, stored=(MODEL, CARD), owner=BUYER):
    """A model of the hospital with its files in the content store, handed over to the buyer."""
    names = ("model.safetensors", "card.json")
    files = [
        assets.FileEntry(name, "application/octet-stream", len(raw), hashlib.sha256(raw).hexdigest())
        for name, raw in zip(names, (MODEL, CARD), strict=True)
    ]
    (home / "content").mkdir(exist_ok=True)
    for file, raw in zip(files, stored, strict=True):
        (home / "content" / file.sha256).write_bytes(raw)
    ddo = assets.build_model(
        world.publisher(HOSPITAL), world.about(), gateway_url=url, session=world.session, files=files, metrics={}
    )
    did = world.publish(HOSPITAL, ddo)
    world.chain.transfer_ownership(HOSPITAL, did, owner.address)
    return did


def test_a_model_is_fetched_whole_with_its_card_and_again_without_harm(tmp_path):
    buyer, world = a_buyer()
    with serving(tmp_path, world) as (_, url):
        did = publish_model(world, url, tmp_path)
        fetched = buyer.fetch(did, tmp_path / "models")
        assert fetched.path.read_bytes() == MODEL
        assert (fetched.folder / "card.json").read_bytes() == CARD
        assert fetched.sha256 == "sha256:" + hashlib.sha256(MODEL).hexdigest()
        assert buyer.fetch(did, tmp_path / "models") == fetched
    assert [path.name for path in (tmp_path / "models").iterdir()] == [did[7:19]]


@pytest.mark.parametrize("wrong", [b"model bytez", b"", b"model bytes and more"])
def test_other_bytes_than_the_published_ones_leave_nothing_behind(tmp_path, wrong):
    buyer, world = a_buyer()
    with serving(tmp_path, world) as (_, url):
        did = publish_model(world, url, tmp_path, stored=(wrong, CARD))
        with pytest.raises((DecodeError, NotFound, PermissionDenied, InvalidRequest)):
            buyer.fetch(did, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_folder_with_something_else_is_not_touched(tmp_path):
    buyer, world = a_buyer()
    with serving(tmp_path, world) as (_, url):
        did = publish_model(world, url, tmp_path)
        mine = tmp_path / "models" / did[7:19]
        mine.mkdir(parents=True)
        (mine / "notes.txt").write_text("mine")
        with pytest.raises(Conflict, match="holds something else"):
            buyer.fetch(did, tmp_path / "models")
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]


def test_nobody_else_fetches_it(tmp_path):
    buyer, world = a_buyer()
    with serving(tmp_path, world) as (_, url):
        did = publish_model(world, url, tmp_path, owner=STRANGER)
        with pytest.raises(PermissionDenied):
            buyer.fetch(did, tmp_path / "models")


def test_provenance_leaves_out_what_strangers_claim(tmp_path):
    buyer, world = a_buyer(open_market())
    model = publish_model(world, "http://127.0.0.1:8030", tmp_path, owner=BUYER)
    chain, activity = world.chain, world.session
    chain.used(HOSPITAL, did=world.dataset, activity=activity)
    chain.was_derived_from(HOSPITAL, new=model, source=world.dataset, activity=activity)
    chain.was_derived_from(CLINIC, new=model, source=world.other_dataset, activity=activity)
    claimed = world.publish_dataset(STRANGER)
    chain.was_derived_from(STRANGER, new=model, source=claimed, activity=activity)
    chain.used(HOSPITAL, did=world.dataset, activity="did:nv:" + "99" * 32)
    edges = buyer.provenance(model)
    assert [(edge.relation, edge.did, edge.other, edge.agent) for edge in edges] == [
        ("used", world.dataset, "", HOSPITAL.address),
        ("wasDerivedFrom", model, world.dataset, HOSPITAL.address),
        ("wasDerivedFrom", model, world.other_dataset, CLINIC.address),
    ]


def test_show_and_search_tell_price_schema_and_whether_a_coordinator_can_be_reached():
    buyer, world = a_buyer()
    dataset, compute = buyer.show(world.dataset), buyer.show(world.compute)
    assert (dataset.terms.price(), dataset.terms.inbound, dataset.schema.rows) == (15, False, 600)
    assert (compute.terms.inbound, compute.schema, compute.owner) == (True, None, CLOUD.address)
    assert buyer.show(world.session).terms is None
    kinds = {summary.kind for summary in buyer.search("asset")}
    assert {"dataset", "compute", "algorithm"} <= kinds
    assert {summary.did for summary in buyer.search("asset", kind="compute")} == {world.compute}
