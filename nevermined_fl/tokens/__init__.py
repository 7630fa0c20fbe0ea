"""Tokens: signed statements that travel between parties who share nothing but the chain.

Everything here is a JWS by joserfc; nothing here signs, verifies or parses on its own. Every failed check is
``Unauthenticated`` with ``check`` one of ``token_malformed``, ``token_type``, ``token_signature``, ``token_signer``,
``token_expired``, ``token_audience``, ``token_claims``. Who may use a token *once* remembers its ``replay_id`` himself.
"""

from __future__ import annotations

from nevermined_fl.tokens.bearer import (
    issue_access_token,
    make_assertion,
    replay_id,
    verify_access_token,
    verify_assertion,
)
from nevermined_fl.tokens.job import JobKey, make_join_proof, verify_job, verify_join_proof
from nevermined_fl.tokens.provider import (
    JoinToken,
    make_join_token,
    provider_sign,
    verify_join_token,
    verify_provider,
)
from nevermined_fl.tokens.record import Contributor, SessionRecord, verify_record
from nevermined_fl.tokens.statement import EVALUATED, JOIN, PROOF, RECORD, REPORT

__all__ = [
    "EVALUATED",
    "JOIN",
    "PROOF",
    "RECORD",
    "REPORT",
    "Contributor",
    "JobKey",
    "JoinToken",
    "SessionRecord",
    "issue_access_token",
    "make_assertion",
    "make_join_proof",
    "make_join_token",
    "provider_sign",
    "replay_id",
    "verify_access_token",
    "verify_assertion",
    "verify_job",
    "verify_join_proof",
    "verify_join_token",
    "verify_provider",
    "verify_record",
]
