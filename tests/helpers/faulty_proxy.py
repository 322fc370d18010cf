"""A proxy on this machine before an S3 server, that answers badly as often as it is told to."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

#: What it does wrong. An answer that is lost, or cut, is to a request that the server has carried out.
FAULTS = ("500", "503", "reset", "slow", "cut", "lost")

#: Seconds by which a slow answer comes later, at least and at most.
_SLOW_S = (0.3, 1.5)

_ERRORS = {"500": ("InternalError", "We encountered an internal error."), "503": ("SlowDown", "Reduce your rate.")}

#: Headers that belong to one connection.
_OF_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect", "date", "server"}


@dataclass
class FaultyProxy:
    """A running proxy.

    Attributes:
        behind: URL of the server.
        url: its own.
        kinds: the faults to choose from.
        rate: share of requests that are answered badly.
        seed: with which it is decided, for each request by its method, its path and how often that was asked for.
        asked: how many requests came.
        done: how many faults there were of each kind.
    """

    behind: str
    url: str = ""
    kinds: tuple[str, ...] = ()
    rate: float = 0.0
    seed: int = 0
    asked: int = 0
    done: Counter[str] = field(default_factory=Counter)
    _times: Counter[str] = field(default_factory=Counter)

    def misbehave(self, kinds: tuple[str, ...], rate: float, seed: int) -> None:
        """Begin anew with other faults."""
        self.kinds, self.rate, self.seed, self.asked = kinds, rate, seed, 0
        self.done, self._times = Counter(), Counter()

    def behave(self) -> None:
        """No more faults."""
        self.rate = 0.0

    async def answer(self, session: aiohttp.ClientSession, request: web.Request) -> web.StreamResponse:
        """Answer one request, well or badly."""
        body = await request.read()
        self.asked += 1
        fault = self._fault(f"{request.method} {request.path_qs}")
        if fault in _ERRORS:
            code, words = _ERRORS[fault]
            text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{words}</Message></Error>'
            return web.Response(status=int(fault), text=text, content_type="application/xml")
        if fault == "reset":
            return self._hung_up(request)
        if fault == "slow":
            await asyncio.sleep(random.uniform(*_SLOW_S))
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OF_CONNECTION}
        url = aiohttp.client.URL(self.behind + request.raw_path, encoded=True)
        async with session.request(
            request.method, url, data=body, headers=headers, allow_redirects=False, skip_auto_headers={"Content-Type"}
        ) as got:
            data = await got.read()
            if fault == "lost" or (fault == "cut" and not data):
                return self._hung_up(request)
            back = [(name, value) for name, value in got.headers.items() if name.lower() not in _OF_CONNECTION]
            length = got.headers.get("Content-Length", str(len(data)))
            answer = web.StreamResponse(status=got.status, headers=[*back, ("Content-Length", length)])
            await answer.prepare(request)
            await answer.write(data[: len(data) // 2] if fault == "cut" else data)
            if fault == "cut":
                return self._hung_up(request, answer)
            await answer.write_eof()
            return answer

    def _fault(self, what: str) -> str:
        """What to do wrong with a request; empty for nothing."""
        self._times[what] += 1
        draw = random.Random(f"{self.seed} {what} {self._times[what]}")
        if not self.rate or draw.random() >= self.rate:
            return ""
        fault = draw.choice(self.kinds)
        self.done[fault] += 1
        return fault

    def _hung_up(self, request: web.Request, answer: web.StreamResponse | None = None) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return answer or web.Response()


@contextmanager
def faulty_proxy(behind: str) -> Iterator[FaultyProxy]:
    """Stand before a server until the block is left; without faults at first."""
    proxy, ready, loop = FaultyProxy(behind), threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            server = web.Application(client_max_size=1 << 30)
            server.router.add_route("*", "/{path:.*}", lambda request: proxy.answer(session, request))
            runner = web.AppRunner(server, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            ready.set()
            await over.wait()
            await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="proxy", daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)
