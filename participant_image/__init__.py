"""One participant of a session: what its container runs at a data provider."""
