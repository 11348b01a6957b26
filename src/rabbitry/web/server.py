"""The dashboard's HTTP interface: its own pages, those of the apps, and the files that these share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Request, Response, WebSocket
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from rabbitry._version import __version__
from rabbitry.amqp.client.url import DEFAULT_URL, parse_url
from rabbitry.apps import Metric, Panel, Plugin, Role, Site, User, View, needs, user_of
from rabbitry.apps.exceptions import PluginError
from rabbitry.apps.installed import Broken, attempt, installed, resolve
from rabbitry.runtime.addresses import is_loopback
from rabbitry.runtime.http.guard import Guard
from rabbitry.web._files import Files, address
from rabbitry.web._navigation import OVERVIEW, OWN, Entry, navigation, own_place
from rabbitry.web._shell import STATIC, Page, Visitor, imported, shell
from rabbitry.web.api import routes as api_routes
from rabbitry.web.audit import Audit, default_file
from rabbitry.web.dead.routes import DeadLetters
from rabbitry.web.declaring import Declaring
from rabbitry.web.feed.pages import Feed
from rabbitry.web.flows import FlowRoutes
from rabbitry.web.history import History
from rabbitry.web.history.routes import routes as history_routes
from rabbitry.web.history.totals import BROKER, recorded
from rabbitry.web.login.gate import Access, Gate, Login
from rabbitry.web.login.oidc_routes import OidcRoutes
from rabbitry.web.login.roles import Roles, files_of, require_to_see
from rabbitry.web.login.routes import LoginRoutes
from rabbitry.web.metrics import Metrics
from rabbitry.web.queues import Queues
from rabbitry.web.refusals import add_refusals
from rabbitry.web.sources import Sources
from rabbitry.web.ways import Ways

if TYPE_CHECKING:
    from rabbitry.amqp.client.url import BrokerURL
    from rabbitry.apps.settings import Settings

PORT: Final = 8003

_Part: TypeAlias = Queues | Declaring | DeadLetters | Metrics | Ways | Login

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mount:
    """An app in the dashboard: its routes, if it has some, its views, and the functions that return its metrics."""

    plugin: Plugin
    router: APIRouter | None = None
    metrics: Sequence[Callable[[], Iterable[Metric]]] = ()

    @property
    def prefix(self) -> str:
        """The place of the app's routes, without a slash at its end."""
        return "" if self.plugin.routes_at_root else f"/{self.plugin.name}"

    @property
    def static(self) -> str:
        """The place of the app's files, without a slash at its beginning."""
        return f"{self.plugin.name}/static/"

    def place(self, view: View) -> str:
        """Return a view's place, without a slash at its beginning."""
        return f"{self.plugin.name}/{view.path}".strip("/") + "/"


def mounts(
    site: Site, options: Mapping[str, Mapping[str, object]] | None = None, history: History | None = None
) -> list[Mount]:
    """Return the dashboard's parts of the installed apps. An app that does not load is logged and left out.

    Args:
        site: The broker and the settings for the pages.
        options: App → the values of its own options; the defaults if there are none.
        history: Where the numbers of apps are recorded; None to record none.
    """
    found: list[Mount] = []
    site = replace(site, audit=partial(_audited, Audit(default_file()), parse_url(site.broker).virtual_host))
    for broken in installed().broken:
        _logger.warning("%s", broken)
    for name, plugin in installed().plugins.items():
        if plugin.router is None and not plugin.views:
            continue
        own = site if history is None else replace(site, record=partial(history.record, name))
        made = attempt(plugin, partial(_mount, plugin, own, (options or {}).get(name, {})))
        if isinstance(made, Broken):
            _logger.warning("%s", made)
        else:
            found.append(made)
    return found


def _audited(
    audit: Audit, vhost: str, who: str, action: str, what: str
) -> contextlib.AbstractAsyncContextManager[None]:
    """Log an app's change, see `Site.audit`."""
    return audit.entry(who, action, vhost, what)


def open_history(broker: str) -> History:
    """Return the history of a broker, whose file lies beside the audit log.

    Args:
        broker: The broker's URL.
    """
    return History(default_file().with_name("history.sqlite3"), str(parse_url(broker)))


def create_app(
    settings: Settings,
    mounted: Sequence[Mount],
    management: str | None = None,
    history: History | None = None,
    access: Access | None = None,
) -> FastAPI:
    """Return the dashboard, an ASGI application. The background work of the apps runs while it runs.

    Args:
        settings: The broker, the address of the page, and its password.
        mounted: The apps in it.
        management: The URL of the broker's management API; RabbitMQ's port on the broker's host if it is None.
        history: The history of numbers, that of `mounts`; None if none is kept.
        access: The settings of access; None for the password of `settings` and the default file of users.

    Raises:
        UsageError: `management`, or the broker's URL, is no URL; the file of users can't be used.
    """
    broker = parse_url(settings.broker)
    access = access or Access(password=settings.password)
    sources = Sources(settings.broker, management, access.masking)
    login, roles = Login(access), Roles(is_read_only=access.is_read_only)
    audit = Audit(default_file())
    ways = Ways(sources.telemetry, access.masking)
    queues = Queues(settings.broker, management, audit, access.masking)
    apps = [(mount.plugin.name, each) for mount in mounted for each in mount.metrics]
    metrics = Metrics(settings.broker, management, apps)
    flows = FlowRoutes(broker, sources.flows, sources.documents, audit)
    dead = DeadLetters(settings.broker, management, audit, access.masking)
    sources.telemetry.listeners.append(dead.types.take)
    topics = {**sources.topics, **dead.topics}
    feed = Feed(topics)
    app = _without_routes(settings, roles, login)
    folders = {"static/": Files(STATIC)}
    folders |= {mount.static: Files(mount.plugin.static) for mount in mounted if mount.plugin.static is not None}
    live = _add_pages(app, mounted, roles, login, folders)
    app.include_router(queues.router, prefix="/queues/api")
    app.include_router(flows.router, prefix="/flows/api")
    app.include_router(dead.router, prefix="/dead/api")
    app.include_router(audit.router, prefix="/audit/api")
    app.include_router(metrics.router)
    app.include_router(api_routes(app, topics), prefix="/api")
    declaring = Declaring(settings.broker, management, audit)
    app.include_router(declaring.router)
    if history is not None:
        app.include_router(history_routes(history), prefix="/api/history")
    app.include_router(LoginRoutes(login).router)
    app.include_router(OidcRoutes(login).router)
    app.include_router(ways.router, prefix="/way/api")

    _add_live(app, live, feed, broker)
    app.mount("/static", folders["static/"])
    # This replaces the lifespan of `include_router`, which ends the dashboard if that of one app fails.
    parts: list[_Part] = [queues, declaring, dead, metrics, ways, login]
    app.router.lifespan_context = partial(_running, live, sources, parts, history)
    return app


def _without_routes(settings: Settings, roles: Roles, login: Login) -> FastAPI:
    """Return an application that checks each request and has no routes."""
    # No pages of API documentation: they load scripts from elsewhere, which the policy forbids.
    app = FastAPI(
        title="Rabbitry", version=__version__, docs_url=None, redoc_url=None, openapi_url=None,
        dependencies=[Depends(roles.check)],
    )  # fmt: skip
    add_refusals(app)
    app.add_middleware(Gate, login=login)
    app.add_middleware(Guard, names=[settings.host], has_login=lambda: login.has_login)
    return app


def _add_pages(
    app: FastAPI, mounted: Sequence[Mount], roles: Roles, login: Login, folders: Mapping[str, Files]
) -> list[Mount]:
    """Add the dashboard's own pages and the apps. Return the apps; those that can't start are removed later."""
    live = [*mounted]
    add_view = partial(_add_view, app, live, login, partial(address, folders))
    for view in (view for views in OWN.values() for view in views):
        add_view(f"/{own_place(view)}", partial(_own_page, view))
    for mount in mounted:
        if mount.router is not None:
            roles.add_app(mount.plugin.name, mount.router)
            app.include_router(mount.router, prefix=mount.prefix)
        for view in mount.plugin.views:
            # After the router, which may serve a page of its own there.
            page = _page_of(mount, view)
            add_view(f"/{page.place}", partial(_same, page), mount.plugin.name)
        if mount.static in folders:
            app.mount(f"/{mount.plugin.name}/static", files_of(mount.plugin.name, folders[mount.static]))
    return live


def _add_live(app: FastAPI, live: Sequence[Mount], feed: Feed, broker: BrokerURL) -> None:
    """Add the routes of what runs: the navigation, the feed, and the check of health."""

    @app.get("/static/views.js", include_in_schema=False)
    @needs(Role.MEMBER)
    async def views(request: Request) -> Response:
        """Return the navigation, and the modules of the first page's panels."""
        described = _described(_seen(live, user_of(request)), broker, user_of(request))
        return Response(described, media_type="text/javascript")

    @app.websocket("/feed")
    @needs(Role.VIEWER)
    async def page(websocket: WebSocket) -> None:
        """Serve a page the topics that it subscribes to."""
        await feed.serve(websocket)

    @app.get("/healthz", include_in_schema=False)
    @needs(Role.VIEWER)
    async def health() -> JSONResponse:
        """Return that the dashboard runs, if no app adds a state of its own."""
        return JSONResponse({"broker": "unknown"})


@contextlib.asynccontextmanager
async def _running(
    live: list[Mount],
    sources: Sources,
    others: Sequence[_Part],
    history: History | None,
    app: FastAPI,
) -> AsyncIterator[None]:
    """Run the history, the feed's sources, the login, clients of the management API, and the apps' background work.

    An app that can't start is logged and left out of the navigation.
    """
    async with contextlib.AsyncExitStack() as stack:
        if history is not None:
            await stack.enter_async_context(history.running())
            stack.enter_context(recorded(sources.broker, partial(history.record, BROKER, "")))
        await stack.enter_async_context(sources.running())
        for other in others:
            await stack.enter_async_context(other.running())
        for mount in [*live]:
            if mount.router is None:
                continue
            try:
                await stack.enter_async_context(mount.router.lifespan_context(app))
            except Exception:
                _logger.exception("app %r is left out: it does not start", mount.plugin.name)
                live.remove(mount)
        yield


def _mount(plugin: Plugin, site: Site, options: Mapping[str, object]) -> Mount:
    if plugin.static is not None and not plugin.static.is_dir():
        raise PluginError(f"its static folder '{plugin.static}' is not there")
    if plugin.router is None:
        return Mount(plugin)
    metrics: list[Callable[[], Iterable[Metric]]] = []
    router = resolve(plugin.router)(replace(site, export=metrics.append), **options)
    if not isinstance(router, APIRouter):
        raise PluginError(f"{plugin.router!r} returned a {type(router).__name__}, and no fastapi.APIRouter")
    return Mount(plugin, router, metrics)


def _page_of(mount: Mount, view: View) -> Page:
    """Return the page of an app's view."""
    module, folder = f"{mount.static}{view.module}", mount.plugin.static
    later = imported(module, folder, later=True)
    return Page(view, mount.place(view), mount.static, imported(module, folder), later)


def _add_view(
    app: FastAPI,
    live: Sequence[Mount],
    login: Login,
    file_address: Callable[[str], str],
    path: str,
    page: Callable[[Sequence[Mount]], Page],
    of_app: str | None = None,
) -> None:
    """Add a page. of_app: the app that it belongs to; None if it is one of the dashboard's own."""

    @needs(Role.MEMBER)
    async def show(request: Request) -> Response:
        user = user_of(request)
        entries = _entries(_seen(live, user), user)
        if path == "/" and user.role is Role.MEMBER and entries:
            return RedirectResponse(entries[0].path, 303)  # relative: a proxy may have removed a prefix
        require_to_see(user, of_app)
        visitor = Visitor(user, login.token_for(request), login.has_login)
        # In a thread, since both look at the files that the page names.
        document = await asyncio.to_thread(lambda: shell(page(live), entries, visitor, file_address))
        return HTMLResponse(document.html, headers={"Content-Security-Policy": document.policy})

    app.add_api_route(path, show, include_in_schema=False)


def _same(page: Page, _: Sequence[Mount]) -> Page:
    return page


def _own_page(view: View, live: Sequence[Mount]) -> Page:
    """Return the page of one of the dashboard's own views. The first page has the panels of the apps."""
    module = f"static/{view.module}"
    panels = _panels(live) if view is OVERVIEW else []
    later = [*imported(module, None, later=True)]
    for mount, panel in panels:
        own = f"{mount.static}{panel.module}"
        later += [own, *imported(own, mount.plugin.static, later=True)]
    styles = tuple(f"{mount.static}{style}" for mount, panel in panels for style in panel.styles)
    return Page(view, own_place(view), "static/", imported(module, None), tuple(later), styles)


def _seen(live: Sequence[Mount], user: User) -> list[Mount]:
    """Return the apps whose pages a user may see."""
    return [mount for mount in live if user.role >= Role.VIEWER or mount.plugin.name in user.apps]


def _entries(live: Sequence[Mount], user: User) -> list[Entry]:
    places = ((view.title, mount.place(view)) for mount in live for view in mount.plugin.views)
    return navigation(places, with_own=user.role >= Role.VIEWER)


def _panels(live: Sequence[Mount]) -> list[tuple[Mount, Panel]]:
    return [(mount, mount.plugin.panel) for mount in live if mount.plugin.panel is not None]


def _described(live: Sequence[Mount], broker: BrokerURL, user: User) -> str:
    """Return the module `views.js`, with the apps that a user may see."""
    views = msgspec.json.encode(_entries(live, user)).decode()
    panels = msgspec.json.encode([f"{mount.static}{panel.module}" for mount, panel in _panels(live)]).decode()
    trials = msgspec.json.encode(_trials(broker) if user.role >= Role.VIEWER else []).decode()
    return f"export const views = {views};\nexport const panels = {panels};\nexport const trials = {trials};\n"


def _trials(login: BrokerURL) -> list[dict[str, object]]:
    """Return what newcomers may try, with the whole command; nothing if it would need a password, which is not shown.

    `key` is the queue's in the topic `topology`.
    """
    host, port = login.hosts[0]
    if (login.user, login.password) != ("guest", "guest") or login.tls or not is_loopback(host):
        return []
    usual = parse_url(DEFAULT_URL).hosts[0][1]
    vhost = "" if login.virtual_host == "/" else quote(login.virtual_host, safe="")
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    broker = "" if (port, vhost) == (usual, "") else f" --broker amqp://{address}/{vhost}"
    return [
        {
            "title": trial.title,
            "command": f"rabbitry {trial.command}{broker}",
            "key": f"q:{login.virtual_host}/{trial.queue}",
            "consumes": trial.consumes,
        }
        for plugin in installed().plugins.values()
        for trial in plugin.trials
    ]
