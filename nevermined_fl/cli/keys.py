"""Command ``keys new``."""

from pathlib import Path
from typing import Annotated

import typer

from nevermined_fl.cli.app import app, command
from nevermined_fl.cli.options import JsonFlag, PasswordOption
from nevermined_fl.cli.output import Output
from nevermined_fl.keys import KeyFile, read_password

__all__ = ["group"]

group = typer.Typer(no_args_is_help=True, help="Key files.")
app.add_typer(group, name="keys", epilog="Example: nevermined-fl keys new key.json")


@command(group, "new", "NEVERMINED_FL_PASSWORD=… nevermined-fl keys new key.json")
def new(
    *,
    file: Annotated[Path, typer.Argument(help="The key file to make; never overwritten.")],
    password_file: PasswordOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a key in an encrypted file (V3 keystore); its password never stands on the command line."""
    out = Output(as_json=as_json)
    account = KeyFile.create(file, read_password(password_file))
    out.say(f"{file}: {account.address}")
    out.result({"file": file.resolve(), "address": account.address})
