"""What tests of more than one kind stand on: a log that no command has set up, a real S3 server on loopback."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from difffusr.pipeline.scenes.synthetic.two_orbits import TwoOrbits

#: The secret of whoever may use the server. No message and no file may ever hold it.
S3_SECRET = "secret-that-nobody-may-see"


def pytest_collection_finish() -> None:
    """What is there before the first test is there until the last: the garbage collector is not to look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _plain_log() -> None:
    """A command sets up the project's log for its process: the next test is to find it as it is without."""
    logger = logging.getLogger("difffusr")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session", autouse=True)
def _power() -> Iterator[None]:
    """The tests' machine loses no power: to wait for its disk would take them half as long again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 server on loopback."""
    from s3_server import s3_server  # here, because most tests do without what it brings

    with s3_server() as address:
        yield address


@pytest.fixture(scope="session")
def two_orbits(tmp_path_factory: pytest.TempPathFactory) -> TwoOrbits:
    """Five dates of two orbits over 1.2 × 1.8 km, with BRDF, haze and a harvest; see `two_orbit_scenes`."""
    from two_orbit_scenes import SMALL_M  # here for the same reason

    from difffusr.pipeline.scenes.synthetic.two_orbits import write_two_orbits

    return write_two_orbits(tmp_path_factory.mktemp("two-orbits"), seed=11, size_m=SMALL_M)


@pytest.fixture
def s3_options(s3_endpoint: str) -> dict[str, Any]:
    """What leads to the server, as fsspec takes it."""
    return {"key": "me", "secret": S3_SECRET, "client_kwargs": {"endpoint_url": s3_endpoint}}


@pytest.fixture
def bucket(s3_endpoint: str, request: pytest.FixtureRequest) -> str:
    """Name of a bucket of the test's own."""
    import boto3

    name = f"b{abs(hash(request.node.nodeid))}"
    client = boto3.client(
        "s3", endpoint_url=s3_endpoint, aws_access_key_id="me", aws_secret_access_key=S3_SECRET, region_name="us-east-1"
    )
    client.create_bucket(Bucket=name)
    return name
