"""What each phase does with each event: one file per phase, one function per event. ``machine`` says which may happen."""
