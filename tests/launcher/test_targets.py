"""Which addresses a launcher dials."""

import pytest

from nevermined_fl.errors import PermissionDenied, TransportError
from nevermined_fl.launcher.targets import is_allowed, parse_endpoint, resolve

PRIVATE = [
    "10.1.2.3",
    "192.168.0.9",
    "172.31.255.1",
    "127.0.0.1",
    "169.254.7.7",
    "::1",
    "fe80::1%eth0",
    "fd12::1",
    "100.64.0.1",
]
NEVER = [
    "0.0.0.0",
    "::",
    "224.0.0.5",
    "ff02::1",
    "255.255.255.255",
    "169.254.169.254",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "not an address",
]
EMBEDDED = ["::ffff:10.0.0.1", "::ffff:7f00:1", "64:ff9b::a00:1", "2002:0a00:0001::1", "::10.0.0.1"]
PUBLIC = ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_for_those_who_allow_them(address):
    assert not is_allowed(address, private=False)
    assert is_allowed(address, private=True)


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_dialled(address):
    assert not is_allowed(address, private=False)
    assert not is_allowed(address, private=True)


@pytest.mark.parametrize("address", EMBEDDED)
def test_an_address_inside_of_another_counts(address):
    assert not is_allowed(address, private=False)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_dialled(address):
    assert is_allowed(address, private=False)


async def test_a_name_is_judged_by_its_addresses():
    with pytest.raises(PermissionDenied) as caught:
        await resolve("localhost", 443, private=False)
    assert caught.value.check == "target_allowed"
    target = await resolve("localhost", 443, private=True)
    assert (target.host, target.port) == ("localhost", 443)
    assert set(target.addresses) <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("host", ["0x7f000001", "2130706433", "127.1"])
async def test_odd_spellings_of_loopback_are_seen_through(host):
    with pytest.raises((PermissionDenied, TransportError)):
        await resolve(host, 443, private=False)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://fl.example.org:8443", ("fl.example.org", 8443)),
        ("https://127.0.0.1:20000", ("127.0.0.1", 20000)),
        ("https://[fd12::1]:20000", ("fd12::1", 20000)),
        ("https://fl.example.org:8443/", ("fl.example.org", 8443)),
    ],
)
def test_an_endpoint_is_a_host_and_a_port(url, expected):
    assert parse_endpoint(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://fl.example.org:80",
        "https://fl.example.org",
        "https://user:word@fl.example.org:1",
        "https://fl.example.org:1/path",
        "https://fl.example.org:1?x=1",
        "https://fl.example.org:99999",
        "https://:1",
        "https://fl example.org:1",
        "unix:///etc/passwd",
        "",
    ],
)
def test_anything_else_is_no_endpoint(url):
    with pytest.raises(PermissionDenied) as caught:
        parse_endpoint(url)
    assert caught.value.check == "endpoint_form"
