"""Everything that a launcher dials goes through the provider's proxy, if it has one."""

import asyncio

import pytest
from aiohttp import web
from launcher_world import serve
from tiny_proxy import tiny_proxy

from nevermined_fl.chain.node import Node
from nevermined_fl.errors import ChainError, MetadataError, PermissionDenied, SettingsError, TransportError
from nevermined_fl.launcher.web import Web
from nevermined_fl.metadata import HttpMetadata
from nevermined_fl.settings import LauncherSettings, load_provider

NAME = "gateway.example.invalid"


@pytest.fixture
async def server():
    async def told(request):
        return web.json_response({"host": request.headers["Host"], "after": request.query.get("after")})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", told)
    runner = await serve(application)
    yield runner.addresses[0]
    await runner.cleanup()


@pytest.fixture
async def proxy(server):
    async with tiny_proxy({NAME: server}) as proxy:
        yield proxy


async def test_gateways_are_asked_through_the_proxy_that_may_know_more_names(server, proxy):
    client = Web(private=True, proxy=proxy.url)
    url = f"http://{NAME}/record?after=3"
    assert await client.json("GET", url) == (200, {"host": NAME, "after": "3"})
    assert await client.json("GET", f"http://127.0.0.1:{server[1]}/") == (
        200,
        {"host": f"127.0.0.1:{server[1]}"} | {"after": None},
    )
    assert [target for _, target in proxy.asked] == [url, f"http://127.0.0.1:{server[1]}/"]
    await client.close()


async def test_a_gateway_with_tls_is_reached_through_a_tunnel(proxy):
    client = Web(private=True, proxy=proxy.url)
    with pytest.raises(TransportError):  # the server behind speaks no TLS
        await client.json("GET", f"https://{NAME}/")
    assert proxy.asked == [("CONNECT", f"{NAME}:443")]
    await client.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254"])
async def test_private_addresses_are_judged_before_the_proxy_is_asked(proxy, host):
    client = Web(private=False, proxy=proxy.url)
    with pytest.raises(PermissionDenied) as refused:
        await client.json("GET", f"http://{host}:9/")
    assert (refused.value.check, proxy.asked) == ("target_allowed", [])
    await client.close()


async def test_chain_and_metadata_api_are_asked_through_it(proxy):
    with HttpMetadata(f"http://{NAME}", patience=0, proxy=proxy.url) as metadata, pytest.raises(MetadataError):
        await asyncio.to_thread(metadata.search, "anything")
    with pytest.raises(ChainError):
        await asyncio.to_thread(Node(f"http://{NAME}/rpc", patience=0, proxy=proxy.url).chain_id)
    assert [target.partition("?")[0] for _, target in proxy.asked] == [
        f"http://{NAME}/api/v1/metadata/assets/ddo/query",
        f"http://{NAME}/rpc",
    ]


def test_services_on_this_very_machine_are_asked_directly():
    settings = LauncherSettings(proxy="http://proxy.example:3128")
    assert settings.proxy_for("https://rpc.example/v1") == "http://proxy.example:3128"
    assert [settings.proxy_for(f"http://{host}:8545") for host in ("127.0.0.1", "localhost", "[::1]")] == [""] * 3


@pytest.mark.parametrize("proxy", ["proxy:3128", "https://proxy:3128", "http://me:secret@proxy:3128", "http://proxy"])
def test_a_proxy_that_is_none_is_refused_when_the_settings_are_loaded(tmp_path, proxy):
    text = f'name = "A"\nnetwork = "network.json"\n[launcher]\nproxy = "{proxy}"\n'
    (tmp_path / "provider.toml").write_text(text)
    with pytest.raises(SettingsError, match="proxy should be http://host:port"):
        load_provider(tmp_path)
    (tmp_path / "provider.toml").write_text(text.replace(proxy, "http://proxy:3128"))
    assert load_provider(tmp_path).launcher.proxy == "http://proxy:3128"
