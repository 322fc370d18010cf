"""A folder, read as S3 buckets: each of its folders is one. Requests and bytes are counted, and each takes time.

moto, the S3 server of the other tests, copies a whole object for every range that is asked of it, so that it says
nothing of speed. This one answers what readers ask: GET with and without a range, HEAD, and that a key is not there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

_MISSING = '<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>'


@dataclass(frozen=True)
class Counted:
    """Requests, each as method and path, and the bytes that answered them."""

    requests: list[str]
    sent: int


@dataclass(frozen=True)
class FileBucket:
    """A running server."""

    url: str

    @property
    def s3fs_options(self) -> dict[str, Any]:
        """What leads s3fs to it."""
        return {"key": "me", "secret": "any", "client_kwargs": {"endpoint_url": self.url, "region_name": "us-east-1"}}

    @property
    def obstore_options(self) -> dict[str, Any]:
        """What leads obstore's S3Store to it."""
        return {
            "endpoint": self.url,
            "access_key_id": "me",
            "secret_access_key": "any",
            "region": "us-east-1",
            "client_options": {"allow_http": True},
        }

    def counted(self) -> Counted:
        """What was asked for since the last call."""
        with urllib.request.urlopen(f"{self.url}/-/counted") as answer:
            return Counted(**json.load(answer))


@contextmanager
def serve(folder: Path, latency_ms: float = 0, mb_per_s: float = float("inf")) -> Iterator[FileBucket]:
    """Serve a folder from a process of its own.

    Args:
        latency_ms: before anything is sent.
        mb_per_s: of one request; requests do not slow each other down.
    """
    words = [sys.executable, __file__, str(folder), "--latency-ms", str(latency_ms), "--mb-per-s", str(mb_per_s)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield FileBucket(process.stdout.readline().strip())
    finally:
        process.terminate()
        process.wait()


def application(folder: Path, latency_s: float, bytes_per_s: float) -> web.Application:
    """The server: what it holds, and how slow it is."""
    requests: list[str] = []
    answers: list[int] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        path = folder / request.match_info["key"]
        requests.append(f"{request.method} {request.path}")
        if not path.is_file():
            await asyncio.sleep(latency_s)
            return web.Response(status=404, text=_MISSING, content_type="application/xml")
        sent = 0
        if request.method == "GET":
            size = path.stat().st_size
            # A range that asks for the last bytes has a negative start and no stop.
            sent = len(range(size)[request.http_range])
        answers.append(sent)
        await asyncio.sleep(latency_s + sent / bytes_per_s)
        return web.FileResponse(path)

    async def tell(request: web.Request) -> web.Response:
        told = web.json_response({"requests": requests, "sent": sum(answers)})
        requests.clear()
        answers.clear()
        return told

    app = web.Application()
    app.router.add_get("/-/counted", tell)
    app.router.add_get("/{key:.+}", answer)
    return app


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency-ms", type=float)
    parser.add_argument("--mb-per-s", type=float)
    asked = parser.parse_args()
    runner = web.AppRunner(application(asked.folder, asked.latency_ms / 1e3, asked.mb_per_s * 1e6), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
