"""Fusion networks of any generation, from a configuration or from weights."""

from __future__ import annotations

import torch

from difffusr.kernels.bands import GROUPS
from difffusr.kernels.networks.fusion.corrected import FusionCorrected
from difffusr.kernels.networks.fusion.folded import FusionFolded
from difffusr.kernels.networks.fusion.frame import FusionConfig, FusionNetwork, Groups
from difffusr.kernels.networks.fusion.mtf import FusionMTF
from difffusr.kernels.networks.fusion.rrdb import FusionRRDB
from difffusr.kernels.weights import Weights, WeightsError, load_into


def build_fusion(config: FusionConfig, groups: Groups = GROUPS) -> FusionNetwork:
    """A freshly initialised fusion network of a configuration."""
    if config.generation == "folded":
        return FusionFolded(config.channels, config.blocks, groups)
    if config.generation == "corrected":
        return FusionCorrected(config.channels, config.blocks, config.growth, groups)
    kind = FusionRRDB if config.generation == "v1" else FusionMTF
    return kind(config.channels, config.blocks, config.growth, groups)


def fusion_from_weights(weights: Weights, groups: Groups = GROUPS) -> FusionNetwork:
    """The network for inference, with loaded weights of any generation and width.

    In evaluation mode, without gradients. Raises WeightsError if the file holds no fusion network.
    """
    try:
        config = FusionConfig.from_state_dict(weights.state_dict)
    except ValueError as error:
        raise WeightsError(f"{weights.source}: {error}") from error
    with torch.device("meta"):  # no memory, no random numbers: the weights take the place of these tensors
        network = build_fusion(config, groups)
    load_into(network, weights)
    return network.eval().requires_grad_(False)
