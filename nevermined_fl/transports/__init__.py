"""The wire between participant and coordinator: one adapter per transport, each with a server's and a participant's side.

Rule 1: transports do not know each other; ``tests/contracts/test_transport.py`` runs the same suite over all of them.
"""
