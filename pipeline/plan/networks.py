"""The networks that a configuration asks for: where their weights are, the weights' sha256, and how they are sampled.

Torch is imported only where weights are read.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fsspec.implementations.local import LocalFileSystem

from difffusr.kernels.sampling import Sampling
from difffusr.kernels.weights import WeightsError as KernelWeightsError
from difffusr.kernels.weights import files_sha256, shipped_sampling, weight_files
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.ground.errors import WeightsError
from difffusr.pipeline.ground.urls import bare_href, one_line
from difffusr.pipeline.storage import place_of

if TYPE_CHECKING:
    from difffusr.kernels.weights import Weights


def weights_of(config: RunConfig) -> dict[str, str]:
    """sha256 of the weights of both stages, `stage1` and `fusion`, after a check that they can be used.

    Raises:
        WeightsError: the weights cannot be used.
    """
    model = config.model
    if model.stage1 is None and model.fusion is None:
        with weights_errors():
            return files_sha256(model.preset, None, None)  # a shipped file that has its sha256 can be used
    from difffusr.kernels.model import check_weights  # imports torch

    stage1, fusion = read_both(config)
    with weights_errors():
        check_weights(stage1, fusion)
    return {"stage1": stage1.sha256, "fusion": fusion.sha256}


def sampling_of(config: RunConfig) -> Sampling:
    """How a configuration runs the models: its own settings, and the preset's where it has none.

    `model.sampler` sets solver and steps: the small weights keep their last estimate and have their own temperature,
    and with the published weights "reference" is the published sampler.
    """
    model = config.model
    if model.preset == "small":
        own = shipped_sampling(sampler=model.sampler)
    else:
        own = Sampling() if model.sampler is None else Sampling().by(model.sampler)
    return replace(
        own,
        steps=own.steps if model.sampler_steps is None else model.sampler_steps,
        consistency=model.consistency,
        precision=config.compute.precision,
        temperature=own.temperature if model.temperature is None else model.temperature,
    )


def read_both(config: RunConfig) -> tuple[Weights, Weights]:
    """The weights of stage 1 and of the fusion, read.

    Raises:
        WeightsError: a file cannot be fetched or read.
    """
    model = config.model
    with weights_errors():
        stage1, fusion = weight_files(model.preset, model.stage1, model.fusion)
    return read_weights(stage1), read_weights(fusion)


def read_weights(source: str) -> Weights:
    """Weights from a path or an address, under the name of `source` without what may be secret in it.

    Raises:
        WeightsError: they cannot be fetched or read.
    """
    from difffusr.kernels.weights import load_weights  # imports torch

    with local_weights(source) as path, weights_errors():
        return load_weights(path, bare_href(source))


@contextmanager
def local_weights(source: str) -> Iterator[Path]:
    """A local path of weights at a path or an address: the path itself, or a copy that is deleted afterwards.

    Addresses are anything fsspec knows: https://…, s3://…, file://…. Tensors that were mapped from a copy stay usable.

    Raises:
        WeightsError: the address cannot be read.
    """
    try:
        files, remote = place_of(source)
    except (ImportError, ValueError) as error:
        raise _unreadable(source, error) from error
    if isinstance(files, LocalFileSystem):
        yield Path(remote)
        return
    with tempfile.TemporaryDirectory(prefix="weights-") as folder:
        copied = Path(folder) / "weights"
        try:
            with files.open(remote, "rb") as incoming, copied.open("wb") as outgoing:
                shutil.copyfileobj(incoming, outgoing, 1 << 22)
        except _remote_failures() as error:
            raise _unreadable(source, error) from error
        yield copied


@contextmanager
def weights_errors() -> Iterator[None]:
    """Turn the kernels' WeightsError into the pipeline's."""
    try:
        yield
    except KernelWeightsError as error:
        raise WeightsError(str(error)) from error


def _unreadable(source: str, error: BaseException) -> WeightsError:
    without_user = re.sub(r"(?<=://)[^\s/@]*@", "", str(error))
    return WeightsError(f"{bare_href(source)}: cannot be read ({one_line(without_user) or type(error).__name__})")


def _remote_failures() -> tuple[type[Exception], ...]:
    """What a file system may raise: OSError, and the errors of its client where that is loaded by now."""
    clients = (("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError"))
    return OSError, *(getattr(sys.modules[module], name) for module, name in clients if module in sys.modules)
