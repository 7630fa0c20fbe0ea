"""A Flower app for the SuperLink: its server says when each round is over, its clients train nothing."""
