"""Which networks a configuration asks for: how they are sampled, and the sha256 of their weights."""

from __future__ import annotations

from dataclasses import replace

from difffusr.kernels.sampling.settings import Sampling
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import WeightsError


def sampling_of(config: RunConfig) -> Sampling:
    """How a configuration samples: by its own settings, and by its preset's where it has none.

    `model.sampler` sets solver and steps only: under "reference" the small weights keep their own temperature and last
    estimate; with the published weights "reference" is the published sampler.
    """
    model = config.model
    own = _preset_sampling(model.preset)
    if model.sampler is not None:
        own = own.by(model.sampler)
    return replace(
        own,
        steps=own.steps if model.sampler_steps is None else model.sampler_steps,
        consistency=model.consistency,
        precision=config.compute.precision,
        temperature=own.temperature if model.temperature is None else model.temperature,
    )


def _preset_sampling(preset: str) -> Sampling:
    if preset != "small":
        return Sampling()
    from difffusr.kernels.weights.shipped import shipped_sampling

    return shipped_sampling()


def weights_of(config: RunConfig) -> dict[str, str]:
    """sha256 of the weights of both stages. Loads torch: the networks are built to check that the weights fit.

    Raises:
        WeightsError: the weights cannot be used.
    """
    from difffusr.kernels.model import weights_sha256
    from difffusr.kernels.weights.checkpoints import WeightsError as KernelWeightsError

    model = config.model
    try:
        return weights_sha256(model.preset, model.stage1, model.fusion)
    except KernelWeightsError as error:
        raise WeightsError(str(error)) from None
