"""Metadata: where DDOs are published and found.

What belongs: one adapter per way to reach them, and what turns content and keys into DIDs and proofs. What does not:
what stands in a DDO (``assets``), the server (``metadata_api``).
"""

from nevermined_fl.metadata.http import HttpMetadata
from nevermined_fl.metadata.identity import hash_did, publisher, verify_proof
from nevermined_fl.metadata.memory import MemoryMetadata

__all__ = ["HttpMetadata", "MemoryMetadata", "hash_did", "publisher", "verify_proof"]
