"""What HTTPS adds to the contract: limits before bodies, JSON errors, a pinned certificate, patience."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress

import httpx
import pytest
from transport_worlds import ALICE, BOB, SESSION, HttpWorld, digest, make_certificate, make_model

from nevermined_fl.errors import (
    Conflict,
    DecodeError,
    InvalidRequest,
    LocalProtocolError,
    NotFound,
    PermissionDenied,
    RemoteProtocolError,
    SettingsError,
    TransportError,
    Unauthenticated,
)
from nevermined_fl.messages import MAX_MESSAGE_BYTES, JoinRequest, Wait, encode
from nevermined_fl.spool import Sink
from nevermined_fl.tokens.statement import MAX_TOKEN_CHARACTERS
from nevermined_fl.transports.http.client import HttpLink, fingerprint_of, pinned_context
from nevermined_fl.transports.http.server import HttpServer, server_context
from nevermined_fl.transports.http.wire import error_answer, error_of


@pytest.fixture
async def world(tmp_path):
    world = await HttpWorld(tmp_path).start()
    yield world
    await world.close()


@pytest.fixture
async def raw(world):
    """A client that knows nothing of the protocol."""
    context = pinned_context(world.certificate, world.fingerprint)
    async with httpx.AsyncClient(verify=context, base_url=f"https://127.0.0.1:{world.port}") as client:
        yield client


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("a", check="x"),
        Unauthenticated("b", check="y"),
        PermissionDenied("c", check="z", hint="h"),
        NotFound("d"),
        Conflict("e"),
        DecodeError("f", code="not_finite"),
        DecodeError("g", code="size"),
        RemoteProtocolError("i", code="late", hint="j"),
    ],
)
def test_every_error_arrives_as_it_was_sent(error):
    again = error_of(*error_answer(error))
    assert (type(again), str(again), again.hint) == (type(error), str(error), error.hint)
    assert getattr(again, "check", "") == getattr(error, "check", "")
    assert getattr(again, "code", "") == getattr(error, "code", "")


def test_our_own_failures_are_not_told_but_may_be_tried_again():
    status, body = error_answer(LocalProtocolError("secret path /x"))
    assert "secret" not in str(body)
    assert isinstance(error_of(status, body), TransportError)


def test_an_answer_of_another_kind_is_some_refusal():
    assert error_of(418, {"error": 7, "message": ["x"], "check": {}}).message == "the answer was HTTP 418"


async def test_health_is_for_everybody(raw):
    assert (await raw.get("/v1/health")).json()["session"] == SESSION


async def test_refusals_are_json_whatever_is_asked(raw):
    for method, path, status in [
        ("GET", "/", 404),
        ("DELETE", "/v1/join", 405),
        ("GET", "/v1/tasks", 401),
        ("GET", f"/v1/models/{digest(b'')}", 401),
        ("PUT", f"/v1/rounds/1/updates/{digest(b'')}", 401),
        ("PUT", f"/v1/rounds/x/updates/{digest(b'')}", 404),
        ("POST", "/v1/rounds/1/report", 401),
        ("POST", "/v1/leave", 401),
        ("POST", "/v1/join", 400),
    ]:
        answer = await raw.request(method, path, headers={"Authorization": "Bearer forged"})
        assert answer.status_code == status
        assert set(answer.json()) >= {"error", "message"}


async def test_a_message_that_is_too_long_is_not_read(raw):
    async def unannounced():
        for _ in range(2 * MAX_MESSAGE_BYTES // 65536):
            yield b" " * 65536

    announced = await raw.post("/v1/join", content=b" " * (MAX_MESSAGE_BYTES + 1))
    assert (announced.status_code, announced.json()["error"]) == (413, "too_large")
    assert (await raw.post("/v1/join", content=unannounced())).status_code == 413


async def test_a_stranger_is_read_no_further_than_a_token_and_a_proof_are_long(raw):
    async def unannounced():
        for _ in range(5):
            yield b" " * 65536

    assert (await raw.post("/v1/join", content=b" " * 300_000)).status_code == 413
    assert (await raw.post("/v1/join", content=unannounced())).status_code == 413
    longest = encode(JoinRequest("t" * MAX_TOKEN_CHARACTERS, "p" * 2000))
    assert (await raw.post("/v1/join", content=longest)).json()["error"] != "too_large"


async def test_a_header_that_is_not_utf_8_is_a_strangers(world, raw, caplog):
    for path in ("/v1/tasks", "/v1/metrics"):
        answer = await raw.get(path, headers={"Authorization": b"Bearer \xff\xfe"})
        assert answer.status_code == 401
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("asked", ["bytes=x-", "bytes=9-2", "lines=1-", "bytes=-", "bytes=99999999999-"])
async def test_a_range_that_makes_no_sense_is_not_satisfiable(world, raw, asked):
    link = await world.joined(ALICE)
    url = f"/v1/models/{world.plan.initial_model}"
    assert (await raw.get(url, headers=link._headers | {"Range": asked})).status_code == 416


async def test_another_version_is_refused(raw):
    answer = await raw.post("/v1/join", content=b'{"v":2,"type":"join","token":"t","proof":"p"}')
    assert (answer.status_code, answer.json()["error"]) == (400, "version")


async def test_an_upload_says_its_length_and_goes_on_where_the_coordinator_is(world, raw):
    link = await world.joined(ALICE)
    await world.joined(next(name for name in world.keys if name != ALICE))
    body = make_model(2.0)
    url = f"/v1/rounds/1/updates/{digest(body)}"
    who = link._headers | {"Upload-Length": str(len(body))}

    async def pieces():
        yield body

    at_end = await raw.put(url, headers=who | {"Upload-Offset": "7"}, content=body[7:])
    assert (at_end.status_code, at_end.headers["Upload-Offset"]) == (409, "0")
    no_length = await raw.put(url, headers=who | {"Upload-Offset": "0"}, content=pieces())
    assert no_length.status_code == 413
    too_long = await raw.put(url, headers=who | {"Upload-Offset": "0"}, content=body + b"x")
    assert too_long.status_code == 413
    for offset in ("-1", "x", "nan", "1e400", ""):
        assert (await raw.put(url, headers=who | {"Upload-Offset": offset}, content=b"")).status_code == 400
    part = await raw.put(url, headers=who | {"Upload-Offset": "0"}, content=body[:1000])
    assert (part.status_code, part.headers["Upload-Offset"]) == (204, "1000")
    rest = await raw.put(url, headers=who | {"Upload-Offset": "1000"}, content=body[1000:])
    assert (rest.status_code, rest.headers["Upload-Offset"]) == (204, str(len(body)))


async def test_the_end_of_a_large_update_is_taken_in_beside_the_loop(world, monkeypatch):
    link, _ = await world.joined(ALICE), await world.joined(BOB)
    model, met = make_model(2.0), []
    monkeypatch.setattr(Sink, "write", noted(Sink.write, met))
    monkeypatch.setattr(Sink, "commit", noted(Sink.commit, met))
    await world.upload_part(link, 1, ALICE, model, len(model) - 1000)
    (world.folder / "update").write_bytes(model)
    await link.send_update(round_number=1, digest=digest(model), path=world.folder / "update")
    assert world.driver._uploads.has(ALICE, 1, digest(model))
    assert threading.main_thread() not in met


def noted(method, met):
    """The method, and in which thread it ran."""

    def called(*arguments):
        met.append(threading.current_thread())
        return method(*arguments)

    return called


async def test_a_model_is_fetched_on_from_where_it_broke_off(world, tmp_path):
    link = await world.joined(ALICE)
    body = (tmp_path / "initial.safetensors").read_bytes()
    (tmp_path / "got.part").write_bytes(body[:100_000])
    await link.fetch_model(digest(body), tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == body
    (tmp_path / "got.part").write_bytes(body + b"too much")
    await link.fetch_model(digest(body), tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == body


async def test_a_part_that_is_not_of_this_model_is_noticed(world, tmp_path):
    link = await world.joined(ALICE)
    body = (tmp_path / "initial.safetensors").read_bytes()
    (tmp_path / "got.part").write_bytes(b"x" * 1000)
    with pytest.raises(DecodeError) as caught:
        await link.fetch_model(digest(body), tmp_path / "got")
    assert caught.value.code == "digest"
    assert not (tmp_path / "got").exists()


async def test_a_model_that_is_longer_than_the_plans_is_not_stored(world, tmp_path):
    context = pinned_context(world.certificate, world.fingerprint)
    link = HttpLink(f"https://127.0.0.1:{world.port}", key=world.keys[ALICE], context=context, limit=1000)
    await link.join(JoinRequest(ALICE, world.proof(ALICE)))
    with pytest.raises(DecodeError) as caught:
        await link.fetch_model(world.plan.initial_model, tmp_path / "got")
    assert caught.value.code == "size"
    await link.close()


async def test_another_certificate_is_not_talked_to(world, tmp_path):
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other")
    with pytest.raises(SettingsError):
        pinned_context(other, world.fingerprint)
    context = pinned_context(other, fingerprint_of(other))
    link = HttpLink(f"https://127.0.0.1:{world.port}", key=world.keys[ALICE], context=context, patience=0.05)
    with pytest.raises(TransportError, match="certificate"):
        await link.join(JoinRequest(ALICE, world.proof(ALICE)))
    await link.close()


def test_a_certificate_that_is_none_is_a_wrong_setting():
    with pytest.raises(SettingsError):
        fingerprint_of("nothing")


async def test_a_coordinator_that_is_away_for_a_moment_is_waited_for(world):
    link = await world.joined(ALICE)
    await world.server.close()
    waiting = asyncio.create_task(link.next_task(after=0, wait=0))
    await asyncio.sleep(0)
    await world.stop()
    await world.start()
    with pytest.raises(Unauthenticated):
        await waiting
    await world.join(link, ALICE)
    assert await link.next_task(after=0, wait=0) == Wait(0)


async def test_patience_runs_out(world):
    link = world.link(ALICE, patience=0.2)
    await world.server.close()
    with pytest.raises(TransportError, match=r"did not answer for 0\.2 s"):
        await link.join(JoinRequest(ALICE, world.proof(ALICE)))


async def test_a_taken_port_is_said(world):
    with pytest.raises(TransportError, match="cannot listen"):
        await world.server.__class__(world.driver.service, status=dict).start("127.0.0.1", world.port, None)


async def test_a_new_upload_ends_the_old_one_that_hangs(world, tmp_path):
    link = await world.joined(ALICE)
    await world.joined(next(name for name in world.keys if name != ALICE))
    body = make_model(2.0)
    context = pinned_context(world.certificate, world.fingerprint)
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port, ssl=context)
    lines = [f"PUT /v1/rounds/1/updates/{digest(body)} HTTP/1.1", "Host: coordinator", "Upload-Offset: 0"]
    lines += [f"Authorization: {link._headers['Authorization']}", f"Upload-Length: {len(body)}"]
    writer.write("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body[:5000])
    await writer.drain()
    while ALICE not in world.server._uploads:  # noqa: ASYNC110  the server is not ours to wake
        await asyncio.sleep(0.005)
    path = tmp_path / "update"
    path.write_bytes(body)
    await link.send_update(round_number=1, digest=digest(body), path=path)
    answer = await asyncio.wait_for(reader.read(), 20)  # to the end of the connection
    assert not answer or b"superseded" in answer
    writer.close()
    assert world.driver._uploads.has(ALICE, 1, digest(body))


async def test_connections_of_strangers_do_not_stay(tmp_path, world):
    """Else one stranger takes all that the coordinator's process may open, and nobody can join."""
    server = HttpServer(world.driver.service, status=dict, greeting=0.6, strangers=2)
    port = await server.start("127.0.0.1", 0, server_context(tmp_path / "tls.crt", tmp_path / "tls.key"))
    context = pinned_context(world.certificate, world.fingerprint)
    link = HttpLink(f"https://127.0.0.1:{port}", key=world.keys[ALICE], context=context)
    await link.join(JoinRequest(ALICE, world.proof(ALICE)))
    mine = set(server._guests.known)
    waiting = asyncio.ensure_future(link.next_task(after=99, wait=3))
    strangers = []
    for words in (b"", b"GET /v1/health HTTP/1.1\r\nSlow: ", b"POST /v1/join HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(words)
        strangers.append((reader, writer))
    ended = []
    for reader, writer in strangers:
        with suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 10)
        ended.append(writer)
    assert len(ended) == 3
    assert await waiting == Wait(99)
    assert set(server._guests.known) >= mine
    await link.close()
    await server.close()


async def test_of_many_strangers_the_oldest_go(tmp_path, world):
    server = HttpServer(world.driver.service, status=dict, strangers=2)
    port = await server.start("127.0.0.1", 0, server_context(tmp_path / "tls.crt", tmp_path / "tls.key"))
    context = pinned_context(world.certificate, world.fingerprint)
    first, second, third = [await asyncio.open_connection("127.0.0.1", port, ssl=context) for _ in range(3)]
    with suppress(ConnectionError):
        await asyncio.wait_for(first[0].read(), 10)
    for _, writer in (second, third):
        writer.write(b"GET /v1/health HTTP/1.1\r\nHost: c\r\n\r\n")
    assert [await reader.readline() for reader, _ in (second, third)] == [b"HTTP/1.1 200 OK\r\n"] * 2
    await server.close()
