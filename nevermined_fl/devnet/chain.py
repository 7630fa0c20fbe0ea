"""Embedded chain: an EVM of our own behind HTTP JSON-RPC, which also mines when nobody asks for anything.

``python -m nevermined_fl.devnet.chain --port 8545 --block-time 1``. State is lost when it stops. Timeouts of agreements are
counted in blocks, so a chain that mined only transactions would let none of them ever run out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from nevermined_fl.devnet.evm import Evm

__all__ = ["answer", "chain_command", "main", "serve"]

logger = logging.getLogger(__name__)
_MAX_BODY = 8 * 1024**2
_MAX_DEPTH = 64
_BRACKET = re.compile(rb"[\[\]{}]")


def chain_command(port: int, *, block_time: int = 1, anvil: bool = True) -> list[str]:
    """How to start a chain on a loopback port: anvil when it is on PATH or in ./node_modules, else our own.

    Args:
        port: where it shall listen.
        block_time: seconds between blocks when nothing happens; 0 mines transactions alone.
        anvil: whether anvil may be taken.
    """
    found = _find_anvil() if anvil else None
    if found is None:
        own = [sys.executable, "-m", "nevermined_fl.devnet.chain"]
        return [*own, "--port", str(port), "--block-time", str(block_time)]
    mining = ["--block-time", str(block_time), "--mixed-mining"] if block_time else []
    return [found, "--host", "127.0.0.1", "--port", str(port), "--silent", *mining]


def _find_anvil() -> str | None:
    modules = Path("node_modules")
    places = [*modules.glob("@foundry-rs/anvil-*/bin/anvil"), modules / ".bin" / "anvil"]
    return shutil.which("anvil") or next((str(p.resolve()) for p in places if os.access(p, os.X_OK)), None)


def answer(evm: Evm, request: Any) -> dict[str, Any]:
    """The answer to one JSON-RPC request, an error object for whatever is wrong with it."""
    from nevermined_fl.devnet.evm import METHODS, RpcError  # noqa: PLC0415  2 s that chain_command does not need

    number = request.get("id") if isinstance(request, dict) else None
    head = {"jsonrpc": "2.0", "id": number}
    try:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            raise RpcError(-32600, "not a JSON-RPC request")
        method, parameters = METHODS.get(request["method"]), request.get("params") or []
        if method is None:
            raise RpcError(-32601, f"the method {request['method'][:80]} does not exist")
        if not isinstance(parameters, list):
            raise RpcError(-32602, "params should be a list")
        return head | {"result": method(evm, *parameters)}
    except RpcError as error:
        return head | {"error": error.to_json()}
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        return head | {"error": {"code": -32602, "message": f"bad params: {type(error).__name__}: {error}"[:300]}}
    except Exception as error:  # one odd request must not take the chain down
        logger.exception("unexpected failure")
        return head | {"error": {"code": -32603, "message": f"{type(error).__name__}: {error}"[:300]}}


async def serve(port: int, *, block_time: float, host: str = "127.0.0.1") -> None:
    """Serve until cancelled; says on stdout where."""
    from aiohttp import web  # noqa: PLC0415  as above

    from nevermined_fl.devnet.evm import Evm  # noqa: PLC0415  as above

    evm = Evm()

    async def handle(request: web.Request) -> web.Response:
        try:
            body = _parse(await request.read())
        except ValueError:
            error = {"code": -32700, "message": "not JSON"}
            return web.json_response({"jsonrpc": "2.0", "id": None, "error": error})
        # One after the other on the loop's own thread: the EVM has one state.
        return web.json_response([answer(evm, r) for r in body] if isinstance(body, list) else answer(evm, body))

    app = web.Application(client_max_size=_MAX_BODY)
    app.router.add_post("/", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(f"listening on http://{host}:{port}", flush=True)  # noqa: T201  for whoever started it
    await _mine(evm, block_time)


def _parse(raw: bytes) -> Any:
    """JSON of a sane depth: py-evm raises Python's recursion limit beyond what the stack holds, so none would raise."""
    depth = 0
    for bracket in _BRACKET.findall(raw):
        depth += 1 if bracket in b"[{" else -1
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
    return json.loads(raw)


async def _mine(evm: Evm, block_time: float) -> None:
    """A block whenever none came for ``block_time`` seconds; none at all for 0."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(max(evm.mined + block_time - loop.time(), 0.01) if block_time else 3600)
        if block_time and loop.time() >= evm.mined + block_time:
            evm.mine()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the embedded chain until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m nevermined_fl.devnet.chain", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8545, help="0 takes a free one and says which")
    parser.add_argument("--block-time", type=float, default=1.0, help="seconds; 0 mines transactions alone")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        # There is nothing to save, and a deployment keeps the loop busy for a second: leave at once.
        signal.signal(number, lambda *_: os._exit(0))
    asyncio.run(serve(options.port, block_time=options.block_time, host=options.host))


if __name__ == "__main__":
    main()
