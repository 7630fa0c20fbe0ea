"""One contract for every adapter of the Metadata port, over memory and over the real server in its own process."""

import copy
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nevermined_fl import assets
from nevermined_fl.errors import Conflict, InvalidRequest, NotFound
from nevermined_fl.metadata import HttpMetadata, MemoryMetadata

ddos = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent.parent / "assets" / "ddos.py")))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("metadata")
    command = [sys.executable, "-m", "nevermined_fl.metadata_api", "--home", str(home), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with process:
        yield process.stdout.readline().strip()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.fixture(params=["memory", "http"])
def metadata(request):
    if request.param == "memory":
        yield MemoryMetadata()
        return
    with HttpMetadata(request.getfixturevalue("server"), patience=5) as client:
        yield client


def fresh(number, name="patients", **about):
    """A dataset that no other test publishes: the server lives as long as this module."""
    terms = {"gateway_url": ddos.GATEWAY, "terms": ddos.TERMS, "files": [], "schema": ddos.SCHEMA}
    return assets.build_dataset(ddos.HOSPITAL, assets.About(name, ddos.NOW + number, **about), **terms)


def test_what_was_published_is_resolved_as_it_was(metadata):
    for ddo in ddos.ALL.values():
        metadata.publish(ddo)
        found = metadata.resolve(ddo["id"])
        assert found == ddo
        assert list(found["service"][0]["attributes"]["main"]) == list(ddo["service"][0]["attributes"]["main"])


def test_publishing_again_is_no_error_and_another_proof_is_a_conflict(metadata):
    ddo = fresh(1)
    metadata.publish(ddo)
    metadata.publish(ddo)
    other = copy.deepcopy(ddo)
    other["proof"]["created"] = "2020-01-01T00:00:00Z"
    with pytest.raises(Conflict) as refused:
        metadata.publish(other)
    assert refused.value.check == "ddo_exists"
    assert metadata.resolve(ddo["id"]) == ddo


def test_what_nobody_published_is_not_found(metadata):
    with pytest.raises(NotFound):
        metadata.resolve("did:nv:" + "0" * 64)


@pytest.mark.parametrize(
    ("path", "value", "check"),
    [
        (("service", 1, "attributes", "main", "_amounts"), ["1", "2"], "ddo_checksum"),
        (("service", 1, "serviceEndpoint"), "http://elsewhere/", "ddo_integrity"),
        (("service", 0, "attributes", "main", "type"), "spaceship", "main_type"),
        (("proof", "creator"), ddos.BUYER.address, "ddo_did"),
        (("proof", "signatureValue"), "0x" + "11" * 64 + "1b", "ddo_proof"),
        (("id",), "did:nv:" + "0" * 64, "ddo_integrity"),
        (("service",), [], "ddo_shape"),
    ],
)
def test_an_edited_ddo_is_refused_with_the_check_that_failed(metadata, path, value, check):
    ddo = fresh(2)
    holder = ddo
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    with pytest.raises(InvalidRequest) as refused:
        metadata.publish(ddo)
    assert refused.value.check == check


def test_search_finds_all_the_words_wherever_they_stand_and_the_name_counts_most(metadata):
    named = fresh(3, "zebra scans", description="of the savannah")
    mentioned = fresh(4, "lion scans", description="and a zebra", tags=("savannah",))
    for ddo in (named, mentioned):
        metadata.publish(ddo)
    assert [ddo["id"] for ddo in metadata.search("zebra")] == [named["id"], mentioned["id"]]
    assert [ddo["id"] for ddo in metadata.search("ZEB savan lion")] == [mentioned["id"]]
    assert metadata.search("zebra tiger") == []
    assert metadata.search(named["id"]) == [named]


def test_pages_do_not_overlap_and_end(metadata):
    published = [fresh(10 + n, f"giraffe number {n}") for n in range(5)]
    for ddo in published:
        metadata.publish(ddo)
    pages = [metadata.search("giraffe", page=page, size=2) for page in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    assert {ddo["id"] for page in pages for ddo in page} == {ddo["id"] for ddo in published}


def test_a_search_without_words_lists_all_newest_first(metadata):
    older, newer = fresh(20, "older"), fresh(21, "newer")
    for ddo in (older, newer):
        metadata.publish(ddo)
    assert metadata.search("", size=2) == [newer, older]


@pytest.mark.parametrize(
    "text", ['"', "zeb*ra OR", "NEAR(a b", "title:", "-", "a AND (b", "'; DROP TABLE ddos; --", "\0", "é" * 9999]
)
def test_no_search_text_is_an_error(metadata, text):
    assert isinstance(metadata.search(text), list)
