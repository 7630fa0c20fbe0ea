import asyncio

import pytest

from nevermined_fl.launcher.sockets import bound_unix


async def answer(reader, writer):
    writer.close()


@pytest.mark.parametrize("turns", range(4))
async def test_who_is_cancelled_while_he_begins_to_listen_leaves_nothing_open(tmp_path, turns):
    opened = []

    async def listen():
        with bound_unix(tmp_path / "some.sock") as sock:
            opened.append(sock)
            server = await asyncio.start_unix_server(answer, sock=sock)
        server.close()
        await server.wait_closed()

    listening = asyncio.ensure_future(listen())
    for _ in range(turns):
        await asyncio.sleep(0)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    assert all(sock.fileno() == -1 for sock in opened)
    # The loop has forgotten the file, too: whoever gets its number next can be waited for.
    with bound_unix(tmp_path / "next.sock") as sock:
        server = await asyncio.start_unix_server(answer, sock=sock)
    server.close()
    await server.wait_closed()
