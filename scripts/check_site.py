"""Check the built site: each link has a target, and no page loads anything from another server.

Argument: the site's folder. Prints a line for each problem; the exit code is 1 if there is any.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The targets and references of a page.

    Attributes:
        ids: The anchors in it.
        links: The targets of its links.
        loaded: The addresses that a browser loads to show it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record the references of a tag."""
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") not in {"canonical", "next", "prev"}:
            self.loaded.append(found.get("href", ""))
        elif "src" in found:
            self.loaded.append(found["src"])


def problems(site: Path) -> list[str]:
    """Return a line for each broken link and each file of another server."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    found = []
    for path, page in pages.items():
        for target in [*page.links, *page.loaded]:
            url = urlsplit(target)
            if url.scheme == "data":
                continue
            if url.scheme or url.netloc:
                if target in page.loaded:
                    found.append(f"{path.relative_to(site)}: loads {target}")
                continue
            there = (path.parent / unquote(url.path)).resolve() if url.path else path
            there = there / "index.html" if there.is_dir() else there
            if not there.is_file():
                found.append(f"{path.relative_to(site)}: links to {target}, which does not exist")
            elif url.fragment and there in pages and unquote(url.fragment) not in pages[there].ids:
                found.append(f"{path.relative_to(site)}: links to {target}, but that page has no such anchor")
    return found


def main() -> None:
    """Check the site named by the argument."""
    site = Path(sys.argv[1]).resolve()
    if not any(site.rglob("*.html")):
        sys.exit(f"no page in {site}")
    found = problems(site)
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
