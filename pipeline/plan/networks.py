"""Which networks a configuration asks for: how they are sampled, and the sha256 of their weights."""

from __future__ import annotations

from dataclasses import replace

from difffusr.kernels.model import weights_sha256
from difffusr.kernels.sampling.settings import Sampling
from difffusr.kernels.weights.checkpoints import WeightsError as KernelWeightsError
from difffusr.kernels.weights.shipped import shipped_sampling
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import WeightsError


def weights_of(config: RunConfig) -> dict[str, str]:
    """sha256 of the weights of both stages.

    Raises:
        WeightsError: the weights cannot be used.
    """
    model = config.model
    try:
        return weights_sha256(model.preset, model.stage1, model.fusion)
    except KernelWeightsError as error:
        raise WeightsError(str(error)) from None


def sampling_of(config: RunConfig) -> Sampling:
    """How a configuration runs the models: as it says, and else as its preset is meant to be.

    `model.sampler` decides on solver and steps alone: the small weights keep their own temperature and last estimate
    under "reference", too, and with the published weights "reference" is the published sampler.
    """
    model = config.model
    own = shipped_sampling() if model.preset == "small" else Sampling()
    if model.sampler is not None:
        own = own.by(model.sampler)
    return replace(
        own,
        steps=own.steps if model.sampler_steps is None else model.sampler_steps,
        consistency=model.consistency,
        precision=config.compute.precision,
        temperature=own.temperature if model.temperature is None else model.temperature,
    )
