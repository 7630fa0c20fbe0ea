"""The command ``nevermined-fl``: one module per group of commands, each a thin skin over ``marketplace`` and ``devnet``.

Here belongs what a person types and reads. Not here: any decision; a script that wants to do the same imports
``nevermined_fl`` instead. Heavy libraries are imported when a command runs, so that ``--help`` answers at once.
"""

from nevermined_fl.cli.app import main

__all__ = ["main"]
