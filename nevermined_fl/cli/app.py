"""How does a command line become a call, and a mistake an exit code?

0: done. 1: it failed, and a sentence says why. 2: the command line makes no sense. Nobody's mistake shows a traceback;
ours does with NEVERMINED_FL_DEBUG=1.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nevermined_fl import __version__
from nevermined_fl.cli.output import Output
from nevermined_fl.errors import NeverminedFLError, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["app", "command", "main"]

DEBUG_VARIABLE = "NEVERMINED_FL_DEBUG"
# typer does not export the base of its usage errors, only this subclass of it.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_INTERRUPTED = 130
_MODULES = ("story", "network", "market", "publish", "purchase", "jobs", "providers", "keys")

app = typer.Typer(
    name="nevermined-fl",
    help="Train one model over data that may not leave its owners, bought and paid through the Nevermined marketplace.",
    epilog="Example: nevermined-fl demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback(invoke_without_command=True)
def _root(
    *, version: Annotated[bool, typer.Option("--version", help="Show the version and do nothing else.")] = False
) -> None:
    """Train one model over data that may not leave its owners, bought and paid through the Nevermined marketplace."""
    if version:
        sys.stdout.write(f"nevermined-fl {__version__}\n")
        raise typer.Exit


def command(group: typer.Typer, name: str, example: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a command; its help ends with ``example``."""
    return group.command(name, epilog=f"Example: {example}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``nevermined-fl``: run one command and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(words, Output(as_json="--json" in words)))


def _run(words: list[str], out: Output) -> int:
    for name in _MODULES:
        import_module(f"nevermined_fl.cli.{name}")
    code: int = 1
    try:
        code = app(args=words, prog_name="nevermined-fl", standalone_mode=False)
    except _UsageError as error:
        return _usage(error, out)
    except RequestError as error:
        out.error(type(error).__name__, error.message, hint=error.hint, check=error.check)
    except NeverminedFLError as error:
        out.error(type(error).__name__, error.message, hint=error.hint)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python must not complain about it once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except Exception as error:  # noqa: BLE001  nothing that a command raises may show a traceback
        _unforeseen(error, out)
    else:
        code = code if isinstance(code, int) else 0
    if code == _INTERRUPTED:
        # typer answers Ctrl-C with this code and not a word.
        out.error("Interrupted", "interrupted")
    return code


def _usage(error: Exception, out: Output) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "nevermined-fl"
    message = str(getattr(error, "format_message", lambda: str(error))())
    if message:
        out.error("UsageError", message, hint=f"{path} --help")
    return 2


def _unforeseen(error: Exception, out: Output) -> None:
    """A file of the user's that cannot be read or written, or else a bug of ours; the traceback is for developers."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.filename is not None:
        hint = "choose another place, or change its permissions"
        out.error("FileError", f"{error.filename}: {error.strerror}", hint=hint)
        return
    hint = f"this is a bug of ours; {DEBUG_VARIABLE}=1 shows where"
    out.error("InternalError", f"{type(error).__name__}: {error}", hint=hint)
