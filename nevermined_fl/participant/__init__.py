"""The participant: everything that a data provider's job does in a session, up to the gate around the buyer's code.

``participant`` answers what ``asking`` heard, as far as it was ``bought``; ``models`` has the rounds' models, ``keep`` what
was finished, ``making`` turns training into an update as it travels, ``beside`` listens while the buyer's code is busy.
"""

from __future__ import annotations

from nevermined_fl.participant.participant import Credentials, Participant

__all__ = ["Credentials", "Participant"]
