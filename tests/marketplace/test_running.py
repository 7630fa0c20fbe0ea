"""run: what the receipt lists is not done twice."""

import json

import pytest
from buyer_world import a_buyer

from nevermined_fl.errors import Conflict, PermissionDenied, SettingsError
from nevermined_fl.marketplace.running import Receipt, run, wait_approved
from nevermined_fl.marketplace.session_file import load_session


def test_a_receipt_remembers_and_an_absent_one_is_empty(tmp_path):
    path = tmp_path / "session.receipt.json"
    assert Receipt.load(path) == Receipt()
    kept = Receipt(algorithm="a", session="s", agreements={"d": "0x1"}).save(path)
    assert Receipt.load(path) == kept


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"algorithm": "a"})])
def test_a_file_that_is_no_receipt_is_refused_instead_of_bought_again(tmp_path, text):
    path = tmp_path / "session.receipt.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match="is no receipt"):
        Receipt.load(path)


class Asked:
    """A buyer whose providers decide as listed."""

    def __init__(self, *answers):
        self._answers = list(answers)

    def request_review(self, _):
        return {did: {"state": state} for did, state in self._answers.pop(0).items()}


def test_a_refusal_or_silence_of_a_provider_comes_before_any_payment():
    with pytest.raises(PermissionDenied, match="provider of b refuses"):
        wait_approved(Asked({"a": "approved", "b": "revoked"}), "w")
    with pytest.raises(PermissionDenied, match="provider of a has not decided"):
        wait_approved(Asked({"a": "pending"}), "w", patience=0)
    wait_approved(Asked({"a": "approved"}), "w", patience=0)


class Running:
    """A gateway at which the agreement's execution lives already."""

    def __init__(self, check, **workflows):
        self.check, self.workflows = check, workflows

    def execute(self, _, *, workflow):
        raise Conflict("refused", check=self.check)

    def compute(self, verb, _, execution):
        return list(self.workflows) if verb == "list" else {"workflowDid": self.workflows[execution]}


def test_a_start_whose_answer_got_lost_is_the_same_execution():
    buyer, world = a_buyer()
    agreement = world.order(world.dataset)
    gateways = buyer.market._gateways
    gateways[world.gateway_url] = Running("one_live_execution", old="did:nv:other", new=world.workflow)
    assert buyer.start(agreement, workflow=world.workflow) == "new"
    with pytest.raises(Conflict):
        buyer.start(agreement, workflow=world.session)
    gateways[world.gateway_url] = Running("one_live_session", new=world.workflow)
    with pytest.raises(Conflict):
        buyer.start(agreement, workflow=world.workflow)


def test_a_receipt_is_not_applied_to_what_the_file_did_not_say_then(tmp_path):
    did = "did:nv:" + "ab" * 32
    (tmp_path / "a.py").write_text("one")
    text = f'[session]\ndatasets = ["{did}"]\ncompute = "{did}"\nrounds = 3\n[algorithm]\nfile = "a.py"\n'
    (tmp_path / "s.toml").write_text(text)
    file = load_session(tmp_path / "s.toml")
    Receipt(declared="sha256:" + "0" * 64, session=did).save(file.receipt)
    with pytest.raises(SettingsError, match="have changed since") as refused:
        run(None, file)
    assert "start anew" in refused.value.hint
    (tmp_path / "a.py").unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        run(None, file)
