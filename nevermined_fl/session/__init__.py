"""The federated session as a pure state machine: what belongs here decides, what does I/O does not belong here."""
