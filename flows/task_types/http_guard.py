"""Which addresses an outgoing request may reach, checked on the resolved address. (spec 8.6)"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from taskcenter.errors import Refused, StepFailed
from taskcenter.settings import Settings

__all__ = ["Target", "check_address", "check_url", "resolve_target"]

_NAT64 = IPv6Network("64:ff9b::/96")
_NEVER: tuple[tuple[IPv4Network | IPv6Network, str], ...] = tuple(
    (ip_network(network), why)
    for network, why in (
        ("169.254.0.0/16", "a link-local address, where clouds keep machine metadata"),
        ("fe80::/10", "a link-local address"),
        ("fd00:ec2::/32", "a cloud's metadata address"),
        ("100.100.100.200/32", "a cloud's metadata address"),
        ("168.63.129.16/32", "a cloud's metadata address"),
        ("192.0.0.192/32", "a cloud's metadata address"),
        ("0.0.0.0/8", "not an address of a host"),
        ("::/128", "not an address of a host"),
        ("224.0.0.0/4", "a multicast address"),
        ("ff00::/8", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
    )
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes: the name for Host and TLS, and the checked addresses to connect to."""

    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]


def check_url(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of ``url``. Refused unless it is http or https, with a host and no login in it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(f"not an address: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise Refused(f"only http and https are allowed, not {parts.scheme or 'an address without a scheme'}")
    if not parts.hostname:
        raise Refused("the address names no host")
    if parts.username is not None or parts.password is not None:
        raise Refused("a login inside the address would stand in logs; use auth with a secret")
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def check_address(address: str, port: int, settings: Settings) -> None:
    """Refused when ``address`` may never be reached, or is one of Task Center's own doors."""
    ip = _plain(ip_address(address.partition("%")[0]))
    for network, why in _NEVER:
        if ip.version == network.version and ip in network:
            raise Refused(f"requests to {ip} are refused: it is {why}")
    own = {settings.port, settings.prefect_port, _prefect_port(settings)}
    if port in own and _is_this_machine(ip):
        raise Refused(f"requests to {ip}:{port} are refused: it is Task Center's own port")


async def resolve_target(url: str, settings: Settings) -> Target:
    """Look the host up and check every address it has; the request must then go to one of exactly these."""
    scheme, host, port = check_url(url)
    # A pool of its own, left behind: a look-up cannot be interrupted, and the time-out must not wait for it.
    pool = ThreadPoolExecutor(1, thread_name_prefix="lookup")
    try:
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(pool, look_up)
    except (OSError, UnicodeError) as error:
        raise StepFailed(f"the host {host!r} cannot be found: {error}", error_type="http_connect") from None
    finally:
        pool.shutdown(wait=False)
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        check_address(address, port, settings)
    return Target(scheme, host, port, addresses)


def _plain(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address inside an IPv6 one (mapped, 6to4, NAT64), since that is where the packets end."""
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped or ip.sixtofour:
            return ip.ipv4_mapped or ip.sixtofour or ip
        if ip in _NAT64:
            return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip


def _is_this_machine(ip: IPv4Address | IPv6Address) -> bool:
    """Whether connecting to ``ip`` stays here: only then can a socket be bound to it."""
    if ip.is_loopback:
        return True
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(ip), 0))
        return True
    except OSError:
        return False


def _prefect_port(settings: Settings) -> int | None:
    try:
        return urlsplit(settings.prefect_api_url or "").port
    except ValueError:
        return None
