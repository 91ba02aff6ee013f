"""Which address may this program be sent to by somebody else?

An address that a client chose (where a picture is, who wants to hear that a job is done) must not
lead into the network that this machine stands in. So a name is resolved here, every address that it
has is checked, and the connection is made to one of the checked addresses and no other: a name that
answers differently a moment later changes nothing. Each redirect that a client follows comes
through here again.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

import httpx

from kinoloom.errors import NetworkFailed

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 6052: the last four bytes are an IPv4 address, which a translator in the network goes on to.
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
# Never an address on the internet, though not every version of Python says so. `::/96` is the
# old way to write an IPv4 address.
_RESERVED = tuple(
    ipaddress.ip_network(network)
    for network in ("192.0.0.0/24", "192.88.99.0/24", "::/96", "64:ff9b:1::/48")
)


def is_public(address: Address) -> bool:
    """Whether the address is one of the internet: not private, shared, link-local, loopback,
    multicast or reserved, and no IPv6 address that stands for such an IPv4 address."""
    if any(address in network for network in _RESERVED):
        return False
    if any(not is_public(inner) for inner in _inside(address)):
        return False
    return address.is_global and not address.is_multicast


def is_loopback(address: Address) -> bool:
    """Whether the address is this machine itself."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def checked_addresses(host: str, port: int, *, loopback: bool = False) -> tuple[str, ...]:
    """The addresses of `host`, none of which leads where it must not; never empty.

    With `loopback` this machine itself is allowed as well. Raises NetworkFailed when the name has
    no address, or one that is not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label that no name may have
        raise NetworkFailed(
            f"The host {host[:255]!r} cannot be found.",
            cause=getattr(error, "strerror", None) or "This is not the name of a host.",
            hints=["Check the address."],
        ) from error
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    for text in addresses:
        # A link-local address may end in %interface.
        address = ipaddress.ip_address(text.partition("%")[0])
        if not (is_public(address) or (loopback and is_loopback(address))):
            raise NetworkFailed(
                f"The host {host[:255]!r} is not one that this server may call.",
                cause="It is not a public address of the internet.",
                hints=["Give an address that the public internet reaches."],
            )
    return addresses


class GuardedTransport(httpx.BaseTransport):
    """Sends each request to an address that `checked_addresses` let through.

    The request keeps its Host, and the certificate is checked against the name.
    """

    def __init__(self, *, loopback: bool = False) -> None:
        """With `loopback` this machine itself is allowed as well."""
        self._loopback = loopback
        # A kept connection belongs to an address, which two names may share: none is kept.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._transport = httpx.HTTPTransport(trust_env=False, limits=limits)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it. Raises NetworkFailed for an address that is not allowed, and what httpx raises
        when none of the allowed ones takes the connection."""
        url = request.url
        port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
        addresses = checked_addresses(url.host, port, loopback=self._loopback)
        for address in addresses[:-1]:
            try:
                return self._transport.handle_request(_sent_to(address, request))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue  # no connection, so nothing was sent: the next address may answer
        return self._transport.handle_request(_sent_to(addresses[-1], request))

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


def guarded_client(*, timeout: float, loopback: bool = False) -> httpx.Client:
    """A client for addresses that somebody else chose; it follows no redirect on its own.

    `timeout` is the seconds for each of connecting, sending and waiting for the next bytes. No
    proxy, password file or other setting of the environment is used: they would lead elsewhere.
    """
    return httpx.Client(
        transport=GuardedTransport(loopback=loopback),
        timeout=timeout,
        trust_env=False,
        follow_redirects=False,
    )


def _sent_to(address: str, request: httpx.Request) -> httpx.Request:
    """The same request, to an address in place of the name, whose certificate is wanted still."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )


def _inside(address: Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _TRANSLATED:
        yield ipaddress.IPv4Address(address.packed[-4:])
