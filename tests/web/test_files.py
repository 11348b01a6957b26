"""Files of pages: kept by browsers under addresses with versions, and requested anew when they change."""

import contextlib
import json
import os
import re
import threading
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from rabbitry.apps import Plugin, View
from rabbitry.apps.settings import Settings
from rabbitry.web import server
from rabbitry.web.server import Mount, create_app

_KEPT = "private, max-age=31536000, immutable"


@contextlib.asynccontextmanager
async def _client(folder: Path, place: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """A client of a dashboard with the app `a`, whose files are in `folder`, and whose only view is at `place`."""
    plugin = Plugin(name="a", title="X", views=(View(title="A", module="main.js", path=place),), static=folder)
    app = create_app(Settings(port=0), [Mount(plugin)])
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/") as client,
    ):
        yield client


def _map(page: str) -> str:
    found = re.search(r'<script type="importmap">(.*?)</script>', page)
    assert found is not None
    return found[1]


def _imports(page: str) -> dict[str, str]:
    """Return the addresses of modules by their places."""
    imports: dict[str, str] = json.loads(_map(page))["imports"]
    return imports


async def test_a_file_is_kept_under_its_version_alone(tmp_path: Path) -> None:
    (tmp_path / "main.js").write_text("export const a = 1;\n")
    async with _client(tmp_path) as client:
        versioned = _imports((await client.get("/a/")).text)["../a/static/main.js"]
        address = f"/{versioned.removeprefix('../')}"
        plain = address.partition("?")[0]
        kept = await client.get(address)
        assert (kept.headers["Cache-Control"], kept.text) == (_KEPT, "export const a = 1;\n")
        same = await client.get(address, headers={"If-None-Match": kept.headers["ETag"]})
        assert (same.status_code, same.headers["Cache-Control"]) == (304, _KEPT)
        for other in (plain, f"{plain}?v=", f"{plain}?v=0123456789abcdef", f"{address}0", f"{address}&x"):
            answer = await client.get(other)
            assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-cache"), other
        for missing in ("none.js", "", "x" * 300):
            answer = await client.get(f"/a/static/{missing}?v=0123456789abcdef")
            assert (answer.status_code, answer.headers["Cache-Control"]) == (404, "no-cache"), missing


async def test_no_file_outside_the_folder_has_a_version(tmp_path: Path) -> None:
    (tmp_path / "secret.js").write_text("secret")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "link.js").symlink_to(tmp_path / "secret.js")
    version = sha256(b"secret").hexdigest()[:16]
    async with _client(tmp_path / "files") as client:
        for name in ("../secret.js", "%2e%2e/secret.js", "link.js"):
            assert (await client.get(f"/a/static/{name}?v={version}")).status_code == 404


async def test_a_changed_file_has_another_version_at_once(tmp_path: Path) -> None:
    file = tmp_path / "main.js"
    file.write_text("export const a = 1;\n")
    async with _client(tmp_path) as client:
        before = _imports((await client.get("/a/")).text)["../a/static/main.js"]
        file.write_text("export const a = 2;\n")
        os.utime(file, ns=(0, 0))
        page = (await client.get("/a/")).text
        after = _imports(page)["../a/static/main.js"]
        assert before != after
        assert f'src="{after}"' in page
        assert (await client.get(f"/{after.removeprefix('../')}")).headers["Cache-Control"] == _KEPT
        # An open page that was made before asks for the old version: it gets what is there, but does not keep it.
        late = await client.get(f"/{before.removeprefix('../')}")
        assert (late.text, late.headers["Cache-Control"]) == ("export const a = 2;\n", "no-cache")
        file.unlink()
        assert "../a/static/main.js" not in _imports((await client.get("/a/")).text)


async def test_the_policy_of_a_page_permits_its_import_map_and_no_other_script(tmp_path: Path) -> None:
    async with _client(tmp_path, "deep") as client:
        policies = {}
        for place in ("/", "/queues/", "/a/deep/"):
            answer = await client.get(place)
            digest = b64encode(sha256(_map(answer.text).encode()).digest()).decode()
            policies[place] = answer.headers["Content-Security-Policy"]
            assert f"script-src 'self' 'sha256-{digest}'; " in policies[place]
            assert len(re.findall(r"<script(?![^>]* src=)", answer.text)) == 1
        assert len(set(policies.values())) == 3
        assert "sha256" not in (await client.get("/healthz")).headers["Content-Security-Policy"]


async def test_a_map_names_only_files_below_the_root_of_its_page(tmp_path: Path) -> None:
    (tmp_path / "main.js").write_text('import "../../static/html.js";\nimport "../../static/views.js";\n')
    async with _client(tmp_path, "very/deep") as client:
        for place, base in (("/", "./"), ("/queues/", "../"), ("/a/very/deep/", "../../../")):
            imports = _imports((await client.get(place)).text)
            assert {f"{base}static/shell.js", f"{base}static/html.js"} <= imports.keys()
            assert not any("views.js" in module for module in imports), "it is made for each user"
            for module, address in imports.items():
                assert re.fullmatch(rf"{re.escape(module)}\?v=[0-9a-f]{{16}}", address)
                assert module.startswith(base)


async def test_the_modules_of_a_page_are_read_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set[int]()

    def imported(module: str, folder: Path | None, *, later: bool = False) -> tuple[str, ...]:
        threads.add(threading.get_ident())
        return ()

    async with _client(tmp_path) as client:
        monkeypatch.setattr(server, "imported", imported)
        for place in ("/", "/queues/"):
            assert (await client.get(place)).status_code == 200
    assert threads
    assert threading.get_ident() not in threads


async def test_a_map_has_what_modules_fetch_later(tmp_path: Path) -> None:
    """The library for charts and the styles of the history are no modules: they are had by `import.meta.resolve`."""
    async with _client(tmp_path) as client:
        imports = _imports((await client.get("/")).text)
    for name in ("vendor/uplot/uPlot.iife.min.js", "history/history.js", "history/history.css"):
        assert imports[f"./static/{name}"].startswith(f"./static/{name}?v=")


async def test_odd_names_of_files_are_no_markup(tmp_path: Path) -> None:
    odd = "ma&in<!--<script>.js"
    (tmp_path / odd).touch()
    (tmp_path / "main.js").write_text(f'import "./{odd}";\n')
    async with _client(tmp_path) as client:
        page = (await client.get("/a/")).text
        assert f"../a/static/{odd}" in _imports(page)
        assert odd not in page
