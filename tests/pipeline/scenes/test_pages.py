"""A search gets every item once and ends, however its server counts, repeats itself, or fails at large pages."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from paged_api import Answer, Asked, PagedApi, page_of, paged_api
from shapely.geometry import box

from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.scenes import requests
from difffusr.pipeline.scenes.documents import items_of
from difffusr.pipeline.scenes.pages import PageRequest
from difffusr.pipeline.scenes.question import Search

MANY = 230


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_FIRST_PAUSE_S", 0.001)


def items(first: int, end: int) -> list[dict[str, Any]]:
    return [{"type": "Feature", "id": f"i{k}", "collection": "c"} for k in range(first, min(end, MANY))]


def search_of(api: PagedApi) -> Search:
    day = dt.datetime(2023, 6, 1, tzinfo=dt.UTC)
    return Search("stac_api", api.url, None, day, day, (), 100.0, None, box(10, 46, 11, 47))


def found_by(api: PagedApi) -> list[str]:
    """The ids that a search gives, each once."""
    return list(dict.fromkeys(item["id"] for item, _ in items_of(search_of(api))))


EVERY = [f"i{k}" for k in range(MANY)]

Link = Callable[[Asked, int, str], dict[str, Any]]


def by_token(asked: Asked, onward: int, url: str) -> dict[str, Any]:
    return {"method": "POST", "href": f"{url}/search", "body": {**asked.query, "token": onward}}


def by_merged_token(asked: Asked, onward: int, url: str) -> dict[str, Any]:
    return {"method": "POST", "href": f"{url}/search", "body": {"token": onward}, "merge": True}


def by_query(asked: Asked, onward: int, url: str) -> dict[str, Any]:
    return {"href": f"{url}/search?limit={asked.limit}&token={onward}"}


def by_relative_query(asked: Asked, onward: int, url: str) -> dict[str, Any]:
    return {"href": f"?limit={asked.limit}&token={onward}", "method": "get"}


def by_opaque_query(asked: Asked, onward: int, url: str) -> dict[str, Any]:
    return {"href": f"/search?token={onward}"}


def by_page(asked: Asked, onward: int, url: str) -> dict[str, Any]:
    return {"href": f"{url}/search?limit={asked.limit}&page={int(asked.query.get('page', 1)) + 1}"}


def by_page_in_body(asked: Asked, onward: int, url: str) -> dict[str, Any]:
    page = int(asked.query.get("page", 1)) + 1
    return {"method": "POST", "href": f"{url}/search", "body": {"page": page}, "merge": True}


LINKS = [by_token, by_merged_token, by_query, by_relative_query, by_opaque_query, by_page, by_page_in_body]


def in_pages(link: Link, url: Callable[[], str]) -> Callable[[Asked], Answer]:
    def answer(asked: Asked) -> Answer:
        if "page" in asked.query:
            first = (int(asked.query["page"]) - 1) * asked.limit
        else:
            first = int(asked.query.get("token", 0))
        onward = first + asked.limit
        return page_of(items(first, onward), link(asked, onward, url()) if onward < MANY else None)

    return answer


class Over:
    """A server that answers requests for more than so many items with something else."""

    def __init__(self, most: int, instead: Callable[[], Answer | None], link: Link, after: int = 0) -> None:
        self.most, self.instead, self.after, self.url = most, instead, after, ""
        self.usual = in_pages(link, lambda: self.url)

    def __call__(self, asked: Asked) -> Answer | None:
        begun = int(asked.query.get("token", asked.query.get("page", 0)))
        return self.instead() if asked.limit > self.most and begun >= self.after else self.usual(asked)


@pytest.mark.parametrize(
    ("link", "method"),
    [(link, "POST") for link in LINKS] + [(link, "GET") for link in LINKS if "body" not in link.__name__],
)
def test_every_way_to_the_next_page_is_followed_to_the_end(link: Link, method: str) -> None:
    server = Over(1000, lambda: None, link)
    with paged_api(server, method) as api:
        server.url = api.url
        assert found_by(api) == EVERY
    assert len(api.limits()) >= 3


FAILURES: dict[str, Callable[[], Answer | None]] = {
    "502": lambda: Answer(b"bad gateway", 502),
    "500": lambda: Answer(b"{}", 500),
    "504": lambda: Answer(b"", 504),
    "503": lambda: Answer(b"", 503, {"Retry-After": "0"}),
    "413": lambda: Answer(b"", 413),
    "too high a limit": lambda: Answer(b'{"detail": "limit must be at most 20"}', 400),
    "cut off": lambda: Answer(b'{"type": "FeatureCollection", "fea', cut=5000),
    "half the JSON": lambda: Answer(b'{"type": "FeatureCollection", "features": [{"id": "i0"'),
    "hung up": lambda: None,
}


@pytest.mark.parametrize("fault", FAILURES)
def test_a_page_that_is_too_large_is_asked_for_in_halves(fault: str) -> None:
    server = Over(20, FAILURES[fault], by_token)
    with paged_api(server) as api:
        server.url = api.url
        assert found_by(api) == EVERY
    # What has once been small enough stays.
    assert set(api.limits()[api.limits().index(12) :]) == {12}
    assert sorted(set(api.limits()), reverse=True) == [100, 50, 25, 12]


@pytest.mark.parametrize("most", [1, 7, 60])
@pytest.mark.parametrize("link", LINKS, ids=lambda link: link.__name__)
def test_later_pages_may_be_too_large_as_well_and_nothing_is_lost(link: Link, most: int) -> None:
    server = Over(most, FAILURES["502"], link, after=2)
    with paged_api(server) as api:
        server.url = api.url
        assert sorted(found_by(api)) == sorted(EVERY)


def test_a_server_that_fails_at_every_size_is_one_line_soon() -> None:
    with paged_api(lambda _: Answer(b"", 502)) as api, pytest.raises(CatalogError, match="HTTP 502") as caught:
        found_by(api)
    assert api.limits() == [100, 100, 50, 50, 25, 25, 12, 12, 6, 6, 3, 3, 1, 1, 1, 1]
    assert "127.0.0.1" in str(caught.value)


def test_waiting_for_smaller_and_smaller_pages_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(requests, "_SAY_AFTER_S", 0.15)
    monkeypatch.setattr(requests, "_FIRST_PAUSE_S", 0.05)
    server = Over(20, FAILURES["502"], by_token)
    with paged_api(server) as api, caplog.at_level(logging.WARNING, "difffusr.catalog"):
        server.url = api.url
        assert found_by(api) == EVERY
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith(f"waiting for {api.url.removeprefix('http://')} for ")
    assert "HTTP 502" in said or "no answer yet" in said


@pytest.mark.parametrize("status", [401, 403, 404, 429])
def test_what_smaller_pages_do_not_mend_is_not_asked_for_in_halves(status: int) -> None:
    with paged_api(lambda _: Answer(b"", status)) as api, pytest.raises(CatalogError, match=f"HTTP {status}"):
        found_by(api)
    assert set(api.limits()) == {100}


# ---- no end in sight -------------------------------------------------------------------------------------------------


def same_page(asked: Asked, url: str) -> Answer:
    return page_of(items(0, 10), {"method": "POST", "href": f"{url}/search", "body": dict(asked.query)})


def same_items(asked: Asked, url: str) -> Answer:
    return page_of(items(0, 10), {"href": f"{url}/search?token={int(asked.query.get('token', 0)) + 1}"})


def cycle(asked: Asked, url: str) -> Answer:
    token = int(asked.query.get("token", 0))
    return page_of(items(token * 5, token * 5 + 5), {"href": f"{url}/search?token={(token + 1) % 2}"})


def late_cycle(asked: Asked, url: str) -> Answer:
    token = int(asked.query.get("token", 0))
    return page_of(items(2 * token, 2 * token + 2), {"href": f"{url}/search?token={min(token + 1, 4)}"})


def empty_for_ever(asked: Asked, url: str) -> Answer:
    token = int(asked.query.get("token", 0))
    return page_of(items(0, 10) if token == 0 else [], {"href": f"{url}/search?token={token + 1}"})


def empty_and_the_same(asked: Asked, url: str) -> Answer:
    return page_of([] if asked.query.get("token") else items(0, 10), {"href": f"{url}/search?token=a"})


@pytest.mark.parametrize("server", [same_page, same_items, cycle, late_cycle, empty_for_ever, empty_and_the_same])
@pytest.mark.parametrize("matched", [None, 10, 5000])
def test_a_server_that_never_ends_is_left_with_one_word(
    server: Callable[[Asked, str], Answer], matched: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(asked: Asked) -> Answer:
        page = server(asked, api.url)
        return page if matched is None else Answer({**page.content, "numberMatched": matched})

    with paged_api(answer) as api, caplog.at_level(logging.WARNING, "difffusr.catalog"):
        assert found_by(api) == EVERY[:10]
    assert len(api.limits()) <= 7
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (0 if matched == 10 else 1)
    assert all("127.0.0.1" in one and "the search ends with 10" in one for one in said)


@pytest.mark.parametrize("holes", [[1], [1, 2], [1, 2, 3], [1, 3, 5]])
def test_an_empty_page_in_between_is_passed_over(holes: list[int]) -> None:
    def answer(asked: Asked) -> Answer:
        token = int(asked.query.get("token", 0))
        onward = {"href": f"/search?token={token + 1}"} if token < 6 else None
        return page_of([] if token in holes else items(token * 2, token * 2 + 2), onward)

    with paged_api(answer) as api:
        assert found_by(api) == [f"i{2 * k + j}" for k in range(7) if k not in holes for j in (0, 1)]


@pytest.mark.parametrize(
    ("link", "says"),
    [
        ({"href": "file:///etc/passwd"}, "/etc/passwd"),
        ({"href": "ftp://h/x"}, "ftp://h/x"),
        ({"href": ""}, "is empty"),
        ({}, "is empty"),
        ({"href": "http:x"}, "lacks //"),
    ],
)
def test_a_next_link_that_leads_nowhere_is_one_line(link: dict[str, Any], says: str) -> None:
    with paged_api(lambda _: page_of(items(0, 5), link)) as api, pytest.raises(CatalogError) as caught:
        found_by(api)
    assert says in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_elsewhere_does_not_lead_into_this_machine() -> None:
    page = {"links": [{"rel": "next", "href": "http://localhost:8080/search?token=1"}]}
    with pytest.raises(ValueError, match="localhost"):
        PageRequest("GET", "https://host.example/search").after(page)


@pytest.mark.parametrize("features", [[None], ["a", 1], [None, [], {"type": "Feature", "id": "i0"}]])
def test_what_is_no_item_on_a_page_is_left_out(features: list[Any]) -> None:
    good = [one for one in features if isinstance(one, dict)]
    with paged_api(lambda _: page_of(list(features))) as api:
        search = search_of(api)
        assert [one for one, _ in items_of(search)] == good
    assert sum(search.dropped.values()) == len(features) - len(good)


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", "utf-16", "utf-32"], ids=str)
def test_a_byte_order_mark_is_no_obstacle(mark: bytes | str) -> None:
    def coded(content: Any) -> bytes:
        text = json.dumps(content)
        return mark + text.encode() if isinstance(mark, bytes) else text.encode(mark)

    with paged_api(lambda _: Answer(coded(page_of(items(0, 5)).content))) as api:
        api.root = lambda _: Answer(coded(api.root_document()))
        assert found_by(api) == EVERY[:5]


# ---- redirects -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_search_that_is_sent_on_stays_the_same_search(status: int, method: str) -> None:
    with paged_api(lambda asked: page_of(items(0, 5)), method) as other:

        def elsewhere(asked: Asked) -> Answer:
            query = "" if asked.method == "POST" else "?" + "&".join(f"{k}={v}" for k, v in asked.query.items())
            return Answer(b"", status, {"Location": f"{other.url}/search{query}"})

        with paged_api(elsewhere, method) as api:
            assert found_by(api) == EVERY[:5]
    assert [(one.method, one.query["datetime"]) for one in other.asked] == [(method, api.asked[-1].query["datetime"])]


@pytest.mark.parametrize(
    "target",
    ["ftp://127.0.0.1/x", "file:///etc/passwd", "FILE:///etc/passwd", "gopher://h/x", "s3://bucket/x", "C:\\x"],
)
def test_a_redirect_leads_to_http_only(target: str) -> None:
    with paged_api(lambda _: Answer(b"", 302, {"Location": target})) as api, pytest.raises(CatalogError) as caught:
        found_by(api)
    assert f"{api.url.removeprefix('http://')} redirects to" in str(caught.value)
    assert len(api.limits()) == 1


def test_redirects_have_an_end() -> None:
    with (
        paged_api(lambda _: Answer(b"", 302, {"Location": "/search"})) as api,
        pytest.raises(CatalogError, match="redirects more than 10 times"),
    ):
        found_by(api)
    assert len(api.limits()) == 11


def test_a_redirect_from_elsewhere_does_not_lead_into_this_machine() -> None:
    for target in ("http://127.0.0.1:9200/", "//localhost/x", "http://[::1]/"):
        with pytest.raises(requests.RequestFailedError, match="this machine"):
            requests._redirected("https://host.example/a", target)
