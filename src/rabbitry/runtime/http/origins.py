"""Where a browser's request comes from: the name that it asked for, and the site of the page that made it.

A page of another site can make a browser send requests to services on this machine, also under a name of its own that
its DNS leads here (DNS rebinding). Of the headers that are looked at here, programs that are no browsers send Host
alone.
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
        """names: served besides `localhost`, this machine's name and literal IP addresses."""
        self._names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names)}

    def __contains__(self, host: object) -> bool:
        """Return whether the value of a Host header is one that no stranger's DNS can stand for."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return name in self._names or is_address(name)


def is_from_another_site(headers: Headers) -> bool:
    """Return whether a browser sent this for a page of another origin, which must not cause anything here.

    Programs that are no browsers send none of these headers, and what a person types has no page. A browser leaves
    out Sec-Fetch-Site if it takes the address for untrustworthy, http://192.0.2.7 for one. What it sends there has
    no password: that is asked for beyond this machine, and browsers keep it apart for each site.
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
