"""The origin of a browser's request: the host name in it, and the site of the page that made it.

A page of another site can make a browser send requests to services on this machine, even under its own host name if its
DNS resolves that name to this machine (DNS rebinding). Of the headers checked here, programs other than browsers send
only Host.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from rabbitry.runtime.addresses import is_address

SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing (RFC 9110, section 9.2.1), as far as Rabbitry's services answer them."""


class KnownHosts:
    """The hosts under which a service is asked for: literal addresses and this machine's names."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Know `names` besides `localhost`, this machine's name and literal IP addresses."""
        self._names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names)}

    def __contains__(self, host: object) -> bool:
        """Return whether the value of a Host header is one that DNS rebinding can't use."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return name in self._names or is_address(name)


def is_from_another_site(headers: Headers) -> bool:
    """Return whether a browser sent this request for a page of another origin, so that it must have no effect.

    Programs other than browsers send none of these headers, and a browser sends none for an address that the user
    typed. A browser omits Sec-Fetch-Site if it considers the address untrustworthy, such as http://192.0.2.7. Such a
    request carries no password: other machines need one, and browsers keep passwords for each site separately.
    """
    hosts, sites, origins = headers.getlist("host"), headers.getlist("sec-fetch-site"), headers.getlist("origin")
    host = hosts[0].lower() if len(hosts) == 1 else ""
    if any(site not in ("same-origin", "none") for site in sites):
        return True
    if any(not _is_origin_of(origin, host) for origin in origins):
        return True
    # Older browsers name it in the Referer alone.
    return not sites and any(not _is_origin_of(referer, host) for referer in headers.getlist("referer"))


def _is_origin_of(url: str, host: str) -> bool:
    scheme, separator, rest = url.partition("://")
    return separator != "" and scheme in ("http", "https") and rest.partition("/")[0].lower() == host
