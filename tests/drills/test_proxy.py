"""Whole runs into a store that answers badly: errors, hung-up connections, answers that are late, cut or lost.

A run ends with the cube that it makes without faults, or with one line; repeated without faults, it has that cube.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
from drill_report import table, write_section
from faulty_proxy import FAULTS, FaultyProxy, faulty_proxy
from whole_runs import Ended, Job

from difffusr.pipeline.scenes.synthetic.world import DemoWorld

SEED = 20240601

#: Kinds of stores, and shares of requests that are answered badly.
STORES, RATES = ("plain on S3", "Icechunk on S3"), (0.05, 0.15)

#: Ends that are as they should be.
GOOD = ("same", "line, then same")

#: What is wrong in a run; the last has a bit of everything.
KINDS = {**{fault: (fault,) for fault in FAULTS}, "all": FAULTS}


@dataclass(frozen=True)
class Case:
    """A run over a faulty store."""

    store: str
    kind: str
    rate: float
    seed: int


@dataclass(frozen=True)
class Told:
    """How it ended.

    Attributes:
        asked, faults: requests of the run, and how many were answered badly.
        first: exit code of the run over the faulty store.
        line: what it said where it failed.
        ended: "same", "line, then same", or what was wrong.
    """

    case: Case
    asked: int
    faults: int
    first: int
    line: str
    ended: str


#: All faults twice.
CASES = [
    *(Case(store, kind, rate, SEED) for kind in KINDS for rate in RATES for store in STORES),
    *(Case(store, "all", 0.15, SEED + 1) for store in STORES),
]


@dataclass
class Runs:
    """Runs over one proxy.

    Attributes:
        options: what leads to the server itself.
        wanted: what readers see without faults, and every object, by store.
    """

    world: DemoWorld
    folder: Path
    proxy: FaultyProxy
    bucket: str
    options: dict[str, Any]
    wanted: dict[str, Any]

    def job(self, store: str, name: str, endpoint: str) -> Job:
        mark = "icechunk+" if store.startswith("Icechunk") else ""
        options = {**self.options, "client_kwargs": {**self.options["client_kwargs"], "endpoint_url": endpoint}}
        url = f"{mark}s3://{self.bucket}/{name}/cube"
        where = {"url": url, "storage_options": options}
        return Job.write(self.world, self.folder / name, store=where, grid={"shard_px": 512, "chunk_px": 256})

    def undisturbed(self, store: str) -> None:
        """A run without faults."""
        job = self.job(store, f"undisturbed-{uuid4().hex[:8]}", self.proxy.behind)
        ended = job.call()
        assert ended.code == 0, ended.said
        self.wanted[store] = job.content(), job.pixels()

    def run(self, case: Case) -> Told:
        """One run over the faulty store, repeated without faults if it did not end well."""
        name = f"{case.store.split()[0]}-{case.kind}-{case.rate}-{case.seed}"
        self.proxy.misbehave(KINDS[case.kind], case.rate, case.seed)
        job = self.job(case.store, name, self.proxy.url)
        ended = job.call()
        asked, faults = self.proxy.asked, self.proxy.done.total()
        self.proxy.behave()
        here = self.job(case.store, name, self.proxy.behind)
        how = self._ended(case, here, ended)
        return Told(case, asked, faults, ended.code, line_of(ended), how)

    def _ended(self, case: Case, here: Job, ended: Ended) -> str:
        objects, pixels = self.wanted[case.store]
        if "Traceback" in ended.said or self.options["secret"] in ended.said:
            return f"a traceback, or the secret: {ended.said}"
        if ended.code == 0:
            return "same" if here.content() == objects else "another cube"
        if ended.code == 1 and not (ended.is_one_line and any(word in line_of(ended) for word in _ADVICE)):
            return f"not one line that says what to do: {ended.said}"
        again = here.call()
        if again.code != 0:
            return f"repeated without faults: {again.said}"
        # Published with chips that had failed, these come in a revision.
        same = here.content() == objects or (ended.code == 3 and here.pixels() == pixels)
        return "line, then same" if same else "line, then another cube"


def line_of(ended: Ended) -> str:
    """What a run that failed said."""
    if ended.code == 0:
        return ""
    lines = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    return lines[0].removeprefix("error: ") if lines else "some chips failed"


@pytest.fixture
def runs(smallest_world, tmp_path, bucket, s3_options) -> Iterator[Runs]:
    with faulty_proxy(s3_options["client_kwargs"]["endpoint_url"]) as proxy:
        yield Runs(smallest_world, tmp_path, proxy, bucket, s3_options, {})


#: One of these is in every line that says what to do.
_ADVICE = ("run again", "check ", "wait")

#: Of whoever the server knows.
_CREDENTIAL = "Credential=me/20240601/us-east-1/s3/aws4_request"
_SIGNED = {"Authorization": f"AWS4-HMAC-SHA256 {_CREDENTIAL}, SignedHeaders=host, Signature=a"}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_proxy_does_what_it_is_told_to(fault, runs):
    proxy, path = runs.proxy, f"/{runs.bucket}/some/object"
    proxy.misbehave((fault,), 1.0, SEED)
    said, data = "", b""
    try:
        answer = requests.put(proxy.url + path, b"a" * 1000, headers=_SIGNED, timeout=30)
        said = str(answer.status_code)
    except requests.RequestException as error:
        said = type(error).__name__
    assert said == {"500": "500", "503": "503", "slow": "200"}.get(fault, "ConnectionError")
    proxy.behave()
    there = requests.get(proxy.url + path, headers=_SIGNED, timeout=30)
    assert (there.status_code == 200) == (fault in ("slow", "cut", "lost"))
    if fault == "cut":
        proxy.misbehave((fault,), 1.0, SEED)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            data = requests.get(proxy.url + path, headers=_SIGNED, timeout=30).content
        assert not data
    assert proxy.done[fault] == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_over_a_faulty_store_makes_the_same_cube(runs):
    runs.undisturbed("plain on S3")
    told = runs.run(Case("plain on S3", "all", 0.05, SEED))
    assert told.faults > 5
    assert told.ended in GOOD


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_runs_over_a_faulty_store_make_the_same_cube_or_say_what_to_do(
    smallest_world, tmp_path, bucket, s3_options, capsys
):
    endpoint = s3_options["client_kwargs"]["endpoint_url"]
    told, lock = [], threading.Lock()

    def work(store: str, cases: list[Case]) -> None:
        """Some of a store's cases, over a proxy of their own."""
        with faulty_proxy(endpoint) as proxy:
            runs = Runs(smallest_world, tmp_path, proxy, bucket, s3_options, {})
            runs.undisturbed(store)
            for case in cases:
                one = runs.run(case)
                with lock, capsys.disabled():
                    told.append(one)
                    print(f"{case.store}, {case.kind} at {case.rate:.0%}: {one}", flush=True)

    plain, icechunk = ([case for case in CASES if case.store == store] for store in STORES)
    with ThreadPoolExecutor(3) as pool:  # a plain store makes more requests; much of the time they wait
        list(pool.map(work, (STORES[0], STORES[0], STORES[1]), (plain[::2], plain[1::2], icechunk)))
    told.sort(key=lambda one: CASES.index(one.case))
    write_section("Runs over a faulty store", section(told))
    assert len(told) >= 30
    assert not [one for one in told if one.ended not in GOOD]


def section(told: list[Told]) -> str:
    """Of the report."""
    ends = Counter(one.ended for one in told)
    same, after_all = ends["same"], ends["line, then same"]
    good = same + after_all
    lines = [
        f"{len(told)} whole runs over the smallest world, into a real S3 server behind a proxy that answers a share of",
        f"all requests badly (seed {SEED}; the last row {SEED + 1}). With the cube that is made without faults ended",
        f"{same} of them, with one line and, repeated without faults, with that cube {after_all},",
        f"{len(told) - good} otherwise: with a traceback, without a word of what to do, or with another cube.",
        "",
        table(
            ("fault", "rate", *STORES),
            (
                (kind, f"{rate:.0%}", *(cell(told, store, kind, rate, seed) for store in STORES))
                for kind, rate, seed in dict.fromkeys((case.kind, case.rate, case.seed) for case in CASES)
            ),
        ),
        "",
        "Each cell: requests, badly answered ones, how it ended. What the runs said that failed:",
        "",
        *(
            f"- {one.case.store}, {one.case.kind}, {one.case.rate:.0%}: {shortened(one.line)}"
            for one in told
            if one.line
        ),
        *(f"\n- NOT THE SAME: {one}" for one in told if one.ended not in GOOD),
    ]
    return "\n".join(lines)


def shortened(line: str) -> str:
    return line.replace("\n", " ")[:300]


def cell(told: list[Told], store: str, kind: str, rate: float, seed: int) -> str:
    found = [one for one in told if one.case == Case(store, kind, rate, seed)]
    return "; ".join(f"{one.asked}, {one.faults}, {one.ended.splitlines()[0]}" for one in found) or "not done"
