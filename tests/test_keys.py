"""Keys: addresses, key files and personal signatures against numbers of others."""

from __future__ import annotations

import json
import stat

import pytest

from nevermined_fl.errors import SettingsError
from nevermined_fl.keys import (
    PASSWORD_VARIABLE,
    KeyAccount,
    KeyFile,
    checksum_address,
    load_account,
    read_password,
    recover_message,
)

# the first account of the mnemonic "test test ... junk" that every development chain uses
SECRET = bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


def test_the_address_is_the_one_that_wallets_compute():
    assert KeyAccount.from_secret(SECRET).address == ADDRESS


def test_two_new_keys_differ():
    assert KeyAccount.create().address != KeyAccount.create().address


def test_the_secret_is_not_in_the_repr():
    account = KeyAccount.from_secret(SECRET)
    assert SECRET.hex() not in repr(account)
    assert "secret" not in repr(account)


@pytest.mark.parametrize("address", ["0x" + ADDRESS[2:].lower(), ADDRESS, bytes.fromhex(ADDRESS[2:])])
def test_a_checksum_is_made_from_every_form(address):
    assert checksum_address(address) == ADDRESS


@pytest.mark.parametrize("address", ["0x12", ADDRESS[2:], ADDRESS + "00", "0x" + "g" * 40])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match="expected an address"):
        checksum_address(address)


def test_a_key_file_opens_with_its_password_and_is_private(tmp_path):
    path = tmp_path / "deep" / "key.json"
    created = KeyFile.create(path, "pass word", fast=True)
    assert load_account(path, "pass word") == created
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["version"] == 3
    assert [p.name for p in path.parent.iterdir()] == ["key.json"]


def test_an_existing_key_can_be_kept_and_a_wallet_opens_the_file(tmp_path):
    from eth_account import Account  # noqa: PLC0415  as slow as web3

    KeyFile.create(tmp_path / "key.json", "x", account=KeyAccount.from_secret(SECRET), fast=True)
    assert Account.decrypt((tmp_path / "key.json").read_text(), "x") == SECRET


def test_another_password_does_not_open_it(tmp_path):
    KeyFile.create(tmp_path / "key.json", "right", fast=True)
    with pytest.raises(SettingsError, match="the password does not open it"):
        load_account(tmp_path / "key.json", "wrong")


def test_a_key_file_is_never_overwritten(tmp_path):
    first = KeyFile.create(tmp_path / "key.json", "x", fast=True)
    with pytest.raises(SettingsError, match="never overwritten"):
        KeyFile.create(tmp_path / "key.json", "x", fast=True)
    assert load_account(tmp_path / "key.json", "x") == first


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"version": 3}', '{"version": 9}', "\x00"])
def test_what_is_no_key_file_is_said_to_be_none(tmp_path, body):
    (tmp_path / "key.json").write_text(body)
    with pytest.raises(SettingsError, match="not a V3 keystore"):
        load_account(tmp_path / "key.json", "x")


def test_a_missing_key_file_says_how_to_make_one(tmp_path):
    with pytest.raises(SettingsError) as caught:
        load_account(tmp_path / "key.json", "x")
    assert "keys new" in caught.value.hint


def test_the_password_comes_from_the_file_before_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv(PASSWORD_VARIABLE, "of the variable")
    (tmp_path / "password").write_text("of the file \n")
    assert read_password(tmp_path / "password") == "of the file "
    assert read_password(tmp_path / "absent") == "of the variable"
    assert read_password() == "of the variable"


def test_no_password_anywhere_is_a_settings_error(tmp_path, monkeypatch):
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    with pytest.raises(SettingsError, match="no password"):
        read_password(tmp_path / "absent")


def test_a_personal_signature_is_the_one_that_wallets_make():
    from eth_account import Account  # noqa: PLC0415  as slow as web3
    from eth_account.messages import encode_defunct  # noqa: PLC0415

    signature = KeyAccount.from_secret(SECRET).sign_message(b"hello")
    assert signature == Account.from_key(SECRET).sign_message(encode_defunct(b"hello")).signature
    assert recover_message(b"hello", signature) == ADDRESS
    assert recover_message(b"hellp", signature) != ADDRESS


@pytest.mark.parametrize("signature", [b"", b"\x01" * 64, b"\x00" * 65, b"\xff" * 64 + b"\x1b", b"\x01" * 64 + b"\x1d"])
def test_what_is_no_signature_is_refused(signature):
    with pytest.raises(ValueError):
        recover_message(b"hello", signature)
