"""Training over a slow and distant link, to a target accuracy: ours with int8 changes, Flower's legacy gRPC beside it."""
