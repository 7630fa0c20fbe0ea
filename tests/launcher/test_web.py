"""Requests to hosts that strangers named."""

import pytest
from aiohttp import web

from nevermined_fl.errors import InvalidRequest, NotFound, PermissionDenied, TransportError
from nevermined_fl.launcher.web import Web


@pytest.fixture
async def server(unused_tcp_port):
    async def told(request):
        return web.json_response({"method": request.method, "after": request.query.get("after")})

    async def refused(_):
        return web.json_response({"message": "not you"}, status=403)

    async def moved(_):
        raise web.HTTPFound("http://169.254.169.254/")

    async def huge(_):
        return web.Response(body=b"[" + b" " * 300_000 + b"]")

    async def text(_):
        return web.Response(text="<html>")

    async def empty(_):
        return web.Response(status=204)

    async def broken(_):
        raise web.HTTPBadGateway

    application = web.Application()
    for handler in (told, refused, moved, huge, text, empty, broken):
        application.router.add_get(f"/{handler.__name__}", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    yield f"http://127.0.0.1:{unused_tcp_port}"
    await runner.cleanup()


@pytest.fixture
async def client():
    client = Web(private=True)
    yield client
    await client.close()


async def test_json_comes_back(server, client):
    assert await client.json("GET", f"{server}/told", params={"after": "3"}) == (200, {"method": "GET", "after": "3"})
    assert await client.json("GET", f"{server}/empty") == (204, None)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("refused", PermissionDenied),
        ("nothing", NotFound),
        ("moved", PermissionDenied),
        ("huge", TransportError),
        ("text", TransportError),
        ("broken", TransportError),
    ],
)
async def test_whatever_else_comes_is_an_error_of_ours(server, client, path, error):
    with pytest.raises(error):
        await client.json("GET", f"{server}/{path}")


async def test_a_refusal_says_what_the_other_side_said(server, client):
    with pytest.raises(PermissionDenied, match="not you"):
        await client.json("GET", f"{server}/refused")


async def test_nobody_there_is_worth_a_retry(client, unused_tcp_port):
    with pytest.raises(TransportError):
        await client.json("GET", f"http://127.0.0.1:{unused_tcp_port}/")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "[::ffff:127.0.0.1]"])
async def test_private_hosts_are_not_asked(host):
    client = Web(private=False)
    with pytest.raises(PermissionDenied) as caught:
        await client.json("GET", f"http://{host}:9/")
    assert caught.value.check == "target_allowed"
    await client.close()


@pytest.mark.parametrize("url", ["", "http://", "file:///etc/passwd", "no url at all"])
async def test_what_is_no_url_is_refused(client, url):
    with pytest.raises((InvalidRequest, PermissionDenied, TransportError)):
        await client.json("GET", url)
