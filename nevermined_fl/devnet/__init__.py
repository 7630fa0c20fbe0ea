"""An embedded Nevermined network in one folder: chain, contracts, metadata API, providers with gateway and launcher.

Here belongs what starts and stops the processes of a throw-away network and what prepares their folders. Not here: the
processes themselves (they live in their own rooms and are started as modules, never imported), and the demo's story,
which is a client of the network like any other.
"""
