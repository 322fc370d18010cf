"""The pages of a search: until one has nothing new, and smaller where a server cannot make large ones."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import requests

from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.ground.urls import host_of, is_loopback, located, one_line
from difffusr.pipeline.scenes.answers import json_of
from difffusr.pipeline.scenes.item import Item
from difffusr.pipeline.scenes.requests import PatientIO, RequestFailedError, Waiting

log = logging.getLogger("difffusr.catalog")

#: How many pages in a row may be empty although a further one is announced.
_EMPTY_PAGES = 3

#: How long a page is asked for, smaller and smaller: then no further try begins.
_PAGE_PATIENCE_S = 120.0

#: Pages and items of one search at most. A month of a continent has some 50 000 items, and servers that make small
#: pages put ten on one.
MOST_PAGES, MOST_ITEMS = 5_000, 200_000

_LIMIT, _NUMBERED = re.compile(r"(?<=[?&]limit=)\d+"), re.compile(r"[?&]page=\d+")


@dataclass(frozen=True)
class PageRequest:
    """A request for a page.

    Attributes:
        href: with its query.
        body: of a POST, else empty.
    """

    method: str
    href: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, method: str, href: str, parameters: Mapping[str, Any]) -> PageRequest:
        """The request for a first page, as a STAC client puts it."""
        if method == "POST":
            return cls(method, href, body=parameters)
        return cls(method, str(requests.Request("GET", href, params=parameters).prepare().url))

    @property
    def limit(self) -> int | None:
        """How many items it asks for, None where it does not say."""
        found = _LIMIT.search(self.href)
        stated = str(self.body.get("limit")) if self.method == "POST" else found[0] if found else ""
        return int(stated) if stated.isdecimal() else None

    @property
    def numbered(self) -> bool:
        """Whether it counts pages: then it means other items with another limit."""
        return "page" in self.body or _NUMBERED.search(self.href) is not None

    def limited(self, limit: int) -> PageRequest:
        """The same with another limit; the rest stays letter by letter."""
        if self.method == "POST":
            return replace(self, body={**self.body, "limit": limit})
        if self.limit is not None:
            return replace(self, href=_LIMIT.sub(str(limit), self.href))
        return replace(self, href=f"{self.href}{'&' if '?' in self.href else '?'}limit={limit}")

    def same_as(self) -> str:
        """A text that two requests have in common if they ask for the same."""
        return json.dumps([self.method, self.href, dict(self.headers), dict(self.body)], sort_keys=True, default=str)

    def after(self, page: Mapping[str, Any]) -> PageRequest | None:
        """The request that a page's `next` link makes, None where it has none. Raises ValueError for a wrong link."""
        links = page.get("links")
        onward = [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []
        link = next((link for link in onward if link.get("rel") == "next"), None)
        if link is None:
            return None
        href = located(str(link.get("href") or ""), self.href)
        if not href.startswith(("http://", "https://")) or (is_loopback(href) and not is_loopback(self.href)):
            raise ValueError(f"its next page is at {one_line(href)}, which no other machine reaches")
        body, headers = link.get("body"), link.get("headers")
        own = body if isinstance(body, dict) else {}
        before = self.body if link.get("merge") or not own else {}
        head = {str(key): str(value) for key, value in headers.items()} if isinstance(headers, dict) else {}
        if str(link.get("method") or "GET").upper() == "POST":
            return PageRequest("POST", href, {**(self.headers if link.get("merge") else {}), **head}, {**before, **own})
        return PageRequest("GET", href, head)


def pages_of(reader: PatientIO, first: PageRequest, name: str) -> Iterator[list[Item]]:
    """The items of a search, page by page. An item may come twice where pages had to become smaller.

    The search ends at a page without `next`, at one without a new item, and where a page was asked for before; with a
    warning where the server says that there are more.

    Args:
        name: the server's, in messages.

    Raises:
        RequestFailedError: a page does not come, small as it may be.
        CatalogError: an answer is not a page of items.
    """
    asked: set[str] = set()
    known: set[str] = set()
    request: PageRequest | None = first
    limit, shrunk, empty, pages = first.limit, False, 0, 0
    while request is not None:
        if shrunk and limit and (request.limit is None or request.limit > limit):
            request = request.limited(limit)
        asked.add(request.same_as())
        page, got = _page(reader, request, limit, name)
        shrunk = shrunk or got is not request
        if got is not request and request.numbered:
            first, limit = first.limited(got.limit or 1), got.limit
            asked, known, request = set(), set(), first
            continue
        request, limit = got, got.limit or limit
        asked.add(request.same_as())
        items = page["features"]
        pages += 1
        if pages > MOST_PAGES or len(known) > MOST_ITEMS:
            raise CatalogError(
                f"stac_api {name}: its pages do not end: {len(known):,} items on {pages:,} pages so far, at most "
                f"{MOST_ITEMS:,} on {MOST_PAGES:,} are read; choose a smaller area or a shorter period"
            )
        names = ((one.get("collection"), one.get("id")) if isinstance(one, dict) else one for one in items)
        new = {repr(name) for name in names} - known
        known |= new
        some = bool(items)
        empty = 0 if some else empty + 1
        if some and not new:
            _say_end(name, page, known, "its next page has nothing new")
            return
        yield items
        try:
            request = request.after(page)
        except ValueError as error:
            raise CatalogError(f"stac_api {name}: {one_line(error)}; tell its operator") from None
        if request is not None and (request.same_as() in asked or empty > _EMPTY_PAGES):
            _say_end(name, page, known, "its next page is one that was read" if some else "its pages are empty")
            return


def _say_end(name: str, page: Mapping[str, Any], known: set[str], why: str) -> None:
    context = page.get("context")
    matched = page.get("numberMatched", context.get("matched") if isinstance(context, dict) else None)
    if isinstance(matched, int) and matched <= len(known):
        log.debug("%s: %s", name, why)
        return
    of = f" of {matched}" if isinstance(matched, int) else ""
    log.warning("%s: %s: the search ends with %d%s items", name, why, len(known), of)


def _page(reader: PatientIO, request: PageRequest, limit: int | None, name: str) -> tuple[dict[str, Any], PageRequest]:
    """A page, and the request that it answers: the given one, or one for fewer items."""
    began = time.monotonic()
    with Waiting() as waiting:
        while True:
            limit = request.limit or limit or 1
            try:
                data = reader.ask(
                    request.href,
                    request.method,
                    request.headers,
                    request.body or None,
                    may_shrink=limit > 1,
                    waiting=waiting,
                )
                return _content(data, request), request
            except RequestFailedError as error:
                if limit <= 1 or not error.too_much or time.monotonic() - began > _PAGE_PATIENCE_S:
                    raise
                limit //= 2
                log.info("%s: no page of %d items (%s): asked for %d", name, 2 * limit, one_line(error), limit)
                request = request.limited(limit)


def _content(data: bytes, request: PageRequest) -> dict[str, Any]:
    """A page's content. Raises RequestFailedError where it is broken, CatalogError where it is no page."""
    host = host_of(request.href)
    try:
        page = json_of(data)
    except (ValueError, RecursionError):
        if data.lstrip()[:1] == b"<":
            raise RequestFailedError(f"{host} answers with a web page, not JSON", host, passing=False) from None
        raise RequestFailedError(f"{host} answers with broken JSON", host, too_much=True) from None
    if not isinstance(page, dict) or not isinstance(page.get("features"), list | None):
        raise ValueError("a page without features")
    return {**page, "features": page.get("features") or []}
