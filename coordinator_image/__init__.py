"""The coordinator of one session: what its container runs."""
