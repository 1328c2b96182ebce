from __future__ import annotations

import pytest

from tuwen.filters.addresses import refusal
from tuwen.filters.urls import wire_url


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.1.1",
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b:1::7f00:1",
        "2001:0:7f00:1::",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:a9fe:a9fe",
        "64:ff9b::10.0.0.1",
        "2002:7f00:1::",
        "2001:db8::1",
        "not an address",
    ],
)
def test_addresses_that_are_nobodys_website_are_refused(address: str) -> None:
    assert refusal(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "114.114.114.114", "2400:3200::1", "64:ff9b::8.8.8.8"])
def test_public_addresses_are_not(address: str) -> None:
    assert refusal(address) is None


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("http://A.Test/a b.jpg#top", "http://a.test/a%20b.jpg"),
        ("https://图片.test:8443/红.jpg?名=车", "https://xn--wcsw84d.test:8443/%E7%BA%A2.jpg?%E5%90%8D=%E8%BD%A6"),
        ("http://a.test/%E7%BA%A2.jpg", "http://a.test/%E7%BA%A2.jpg"),
        ("http://%E5%9B%BE.test/x", "http://xn--wcs.test/x"),
        ("http://127。0。0。1/x", "http://127.0.0.1/x"),
        ("http://%31%32%37.0.0.1/x", "http://127.0.0.1/x"),
        ("http://user:secret@a.test", "http://a.test/"),
        ("http://[2400:3200::1]/x", "http://[2400:3200::1]/x"),
    ],
)
def test_addresses_go_over_the_wire_in_ascii(written: str, sent: str) -> None:
    assert wire_url(written) == sent


@pytest.mark.parametrize(
    "written",
    [
        "file:///etc/passwd",
        "//a.test/x",
        "http://",
        "http://a.test:port/",
        "ftp://a/b",
        "http://a%2Fb/",
        "http://a%40b/",
        "http://a%3Ab/",
    ],
)
def test_what_is_no_web_address_says_so(written: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        wire_url(written)
