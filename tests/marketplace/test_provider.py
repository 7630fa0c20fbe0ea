"""A provider's data folder: made once, private, and its owner's lines kept."""

import socket
import stat

import pytest

from nevermined_fl.errors import NotFound, SettingsError
from nevermined_fl.keys import load_account, read_password
from nevermined_fl.marketplace.provider import Provider
from nevermined_fl.marketplace.provider_home import create_home, enlist_dataset
from nevermined_fl.settings import CoordinatorSettings, PolicySettings, ProviderSettings, load_provider

DID = "did:nv:" + "cd" * 32
OTHER = "did:nv:" + "ef" * 32


@pytest.fixture
def home(tmp_path):
    settings = ProviderSettings(
        home=tmp_path / "provider",
        name='Zoë\'s "clinic"',
        network="../network.json",
        policy=PolicySettings(buyers=("*",), allow_private_targets=True),
        coordinator=CoordinatorSettings(first_port=21000, last_port=21003),
    )
    create_home(settings, fast_key=True)
    return settings.home


def test_what_is_written_is_what_is_read(home):
    found = load_provider(home)
    assert found.name == 'Zoë\'s "clinic"'
    assert found.policy.buyers == ("*",)
    assert found.policy.allow_private_targets
    assert not found.policy.allow_no_isolation
    assert (found.coordinator.first_port, found.coordinator.last_port) == (21000, 21003)


def test_every_secret_is_private_and_the_key_opens(home):
    for name in ("key.json", "password", "launcher.secret", "provider.toml"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600, name
    assert load_account(home / "key.json", read_password(home / "password")).address.startswith("0x")


def test_a_provider_is_never_made_over_another(home):
    with pytest.raises(SettingsError, match="holds a provider already"):
        create_home(ProviderSettings(home=home, name="other", network="n"), fast_key=True)


def test_a_dataset_is_enlisted_and_comments_stay(home):
    file = home / "provider.toml"
    file.write_text("# our own words\n" + file.read_text())
    enlist_dataset(home, DID, home / "data" / "patients.csv")
    enlist_dataset(home, OTHER, home.parent / "elsewhere.csv")
    assert load_provider(home).datasets == {DID: "data/patients.csv", OTHER: str(home.parent / "elsewhere.csv")}
    assert file.read_text().startswith("# our own words\n")
    before = file.read_text()
    enlist_dataset(home, DID, home / "data" / "patients.csv")
    assert file.read_text() == before


def test_a_dataset_is_enlisted_where_the_file_has_no_such_table(tmp_path):
    (tmp_path / "provider.toml").write_text('name = "A"\nnetwork = "n"\n')
    enlist_dataset(tmp_path, DID, tmp_path / "a.csv")
    assert load_provider(tmp_path).datasets == {DID: "a.csv"}


def test_an_algorithm_is_read_approved_and_revoked(home):
    provider = Provider(home)
    digest = "sha256:" + "12" * 32
    with pytest.raises(NotFound, match="is not in"):
        provider.source(digest)
    (home / "content" / ("12" * 32)).write_text("class A: ...\n")
    assert provider.source(digest) == "class A: ...\n"
    assert provider.approve(digest).state == "approved"
    assert [review.state for review in provider.reviews()] == ["approved"]
    assert provider.revoke(digest).state == "revoked"


def test_logs_of_a_job_that_is_none_are_refused(home):
    with pytest.raises(NotFound, match="no job"):
        Provider(home).logs("../../etc/passwd")


def test_init_makes_a_provider_that_allows_nobody(tmp_path):
    (tmp_path / "network.json").write_text('{"rpc_url": "a", "metadata_url": "b", "contracts": {}}')
    made = Provider.init(tmp_path / "p", name="A", network=tmp_path / "network.json")
    assert made.settings.policy.buyers == ()
    assert made.settings.path(made.settings.network) == tmp_path / "network.json"
    assert made.jobs() == ()


def test_a_port_that_is_taken_is_named_before_anything_starts(home):
    file = home / "provider.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file.write_text(file.read_text().replace("port = 8030", f"port = {port}"))
        with pytest.raises(SettingsError, match=f"gateway cannot listen on 127.0.0.1:{port}"):
            Provider(home).serve()
