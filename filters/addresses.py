"""Which network addresses a fetch may connect to.

The check is made on the address that the socket is about to connect to, so that a name that
resolves to something else a second time cannot slip through, and neither can decimal, octal or
IPv6-mapped spellings.
"""

from __future__ import annotations

import ipaddress

# 168.63.129.16 is Azure's, and the only one of these that looks public.
_METADATA = frozenset(
    ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.ip_network("2002::/16")


def refusal(address: str) -> str | None:
    """Why ``address`` (an IP address as text) must not be fetched from, or None where it may be."""
    if address in _METADATA:
        return "cloud metadata address"
    try:
        ip = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return "no IP address"
    if isinstance(ip, ipaddress.IPv6Address):
        inner = _embedded(ip)
        if inner is not None:
            return refusal(str(inner))
    # Site-local (fec0::/10) is given up since RFC 3879, still routed inside some networks, and is_global says yes.
    for name in ("loopback", "link_local", "site_local", "multicast", "unspecified", "private", "reserved"):
        if getattr(ip, f"is_{name}", False):
            return f"{name.replace('_', '-')} address"
    return None if ip.is_global else "address that is not global"


def _embedded(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address inside a mapped, translated (NAT64) or 6to4 one."""
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip in _SIX_TO_FOUR:
        return ipaddress.IPv4Address((int(ip) >> 80) & 0xFFFFFFFF)
    return None
