"""Flower and NVFlare beside us: each in an environment of its own, alternating with our own rounds. ``make bench-peers``."""
