"""The gateway: HTTP, tokens and on-chain permission, as a Flask blueprint."""
