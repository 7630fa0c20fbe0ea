"""The command ``nevermined-fl``: one module per group of commands, each a thin skin over ``marketplace`` and ``devnet``.

Here belongs what a person types and reads. Not here: any decision; a script that wants to do the same imports
``nevermined_fl`` instead. Heavy libraries are imported when a command runs, so that ``--help`` answers at once.
"""

import sys
from collections.abc import Sequence

__all__ = ["main"]

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``nevermined-fl``: run one command and exit."""
    try:
        from nevermined_fl.cli.app import main as run  # noqa: PLC0415  Ctrl-C is answered while it loads, too

        run(arguments)
    except KeyboardInterrupt:
        if "--json" in (sys.argv if arguments is None else arguments):
            sys.stdout.write('{"error": "Interrupted", "message": "interrupted", "hint": ""}\n')
        else:
            sys.stderr.write("error: interrupted\n")
        sys.exit(_INTERRUPTED)
