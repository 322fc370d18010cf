"""The training of stage 1: patches of fine imagery, degraded on the fly, and what is learned from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from torch import Tensor

from difffusr.kernels.bands import SCALE
from difffusr.kernels.learning import (
    LOSS_WEIGHTS,
    bicubic,
    inference_weights,
    published_losses,
    stage1_losses,
    start_at_nothing,
)
from difffusr.kernels.networks import Stage1
from difffusr.pipeline.ground.errors import WeightsError
from difffusr.pipeline.weights.training.degrading import degrade_patches
from difffusr.pipeline.weights.training.draws import Seeds, on_device
from difffusr.pipeline.weights.training.patches import Image, PatchSource, patch_source, with_radiometry
from difffusr.pipeline.weights.training.reading import on_disk
from difffusr.pipeline.weights.training.samples import Sample
from difffusr.pipeline.weights.training.validation import Pair, evaluate_stage1, project_rgb, validation_pairs

if TYPE_CHECKING:
    from difffusr.pipeline.weights.training.settings import SuperResolutionSettings

T = TypeVar("T")

#: What numbers are drawn for (`draws.Seeds`); `patches` draws for others.
_DEGRADATION: Final = 0

#: (HR (B, 3, H, W), LR (B, 2, 3, h, w), what draws the noise), reflectance, on the device.
Batch = tuple[Tensor, Tensor, torch.Generator]


@dataclass
class SuperResolutionTask:
    """`loop.Task` for stage 1.

    Attributes:
        data: the images to learn from, and those held out; by default what the settings name.
        learning: the networks that learn, in the full layout of a published checkpoint.
        average: the same for inference, with averaged weights.
    """

    settings: SuperResolutionSettings
    device: torch.device
    data: tuple[Sequence[Image], Sequence[Image]] | None = None
    name: str = "stage1"
    terms: tuple[str, ...] = ("sample", "tail", "contrast")
    betas: tuple[float, float] = (0.9, 0.99)
    learning: Stage1 = field(init=False)
    average: Stage1 = field(init=False)

    @property
    def decibels(self) -> tuple[str, ...]:
        """Terms in decibels: only our own loss has one."""
        return ("tail",) if self.settings.loss == "relative" else ()

    def build(self) -> None:
        """Make the networks, the same for the same seed, and find the data."""
        settings = self.settings
        self._images, self._held_out = self.data or on_disk(settings.data, Path(settings.root))
        torch.manual_seed(settings.seed)
        stage1 = Stage1(settings.network, training=True)
        if settings.network.diffusion.prediction == "v":
            start_at_nothing(stage1)
        if (given := starting_weights(settings)) is not None:
            _continue_from(stage1, given)
        stage1.model.even_out()
        average = Stage1(settings.network)
        average.load_state_dict(inference_weights(stage1))
        self.learning = on_device(stage1, self.device).train()
        self.average = on_device(average, self.device).eval()

    def groups(self) -> list[dict[str, Any]]:
        """The parameter groups of the optimiser: the diffusion network, and the encoders at their own rate."""
        stage1 = self.learning
        encoders = [*stage1.encoder.parameters(), *stage1.E.get_submodule("encoder_q").parameters()]
        return [
            {"params": list(stage1.model.parameters())},
            {"params": encoders, "share": self.settings.encoder_rate},
        ]

    @cached_property
    def _source(self) -> PatchSource:
        settings = self.settings
        size = SCALE * (settings.lr_px + 2 * settings.margin)
        return patch_source(self._images, size, self.device, settings.memory_gb)

    @property
    def waits(self) -> bool:
        """Whether images are read from files when they are drawn."""
        return self._source.waits

    def batch(self, step: int, rank: int) -> Batch:
        """What a worker learns from in a step; depends only on seed, step and rank."""
        settings = self.settings
        seeds = Seeds(settings.seed, step, rank)
        patches, display = self._source.draw(seeds, settings.batch)
        patches = with_radiometry(patches, display, settings.radiometry, seeds)  # (B, 2, 3, H, W)
        draws = seeds.draws(self.device, _DEGRADATION)
        lr = degrade_patches(patches, draws, settings.margin, settings.degradation)
        m = SCALE * settings.margin
        hr = patches[:, 0, :, m : patches.shape[-2] - m, m : patches.shape[-1] - m]
        return hr, lr, draws.generator

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss, and their weighted sum "total"."""
        hr, lr, generator = batch
        settings = self.settings
        whole = torch.autocast(self.device.type, torch.bfloat16) if settings.precision == "bfloat16" else nullcontext()
        with whole:
            if settings.loss == "relative":
                terms = stage1_losses(self.learning, hr, lr, generator, settings.precision)
            else:
                terms = published_losses(self.learning, hr, lr, generator, settings.precision)
        weights = loss_weights(settings)
        total = terms["sample"] * weights["sample"] + weights["tail"] * terms["tail"]
        return {"total": total + weights["contrast"] * terms["contrast"], **terms}

    def settle(self) -> None:
        """Leave no pixel of a fold apart from the others."""
        self.learning.model.even_out()

    def weights(self) -> Mapping[str, Tensor]:
        """The learning weights under the names of `average`."""
        return inference_weights(self.learning)

    @cached_property
    def _pairs(self) -> dict[str, list[Pair]]:
        settings = self.settings
        files = _spread(self._held_out, settings.validation_images)
        return validation_pairs([file.read() for file in files], size_px=settings.validation_px)

    def validate(self, thorough: bool, /) -> dict[str, dict[str, float]]:
        """Scores by set of pairs and measure; of every third pair only, unless `thorough`."""
        pairs = {name: of[:: 1 if thorough else 3] for name, of in self._pairs.items()}
        return {name: evaluate_stage1(self.average, of) for name, of in pairs.items() if of}

    @torch.no_grad()
    def samples(self) -> list[Sample]:
        """Up to six held-out patches: as measured, enlarged, predicted, true."""
        shown = []
        for pair in _spread(self._pairs["sensor"], 6):
            lr = pair.lr[None].to(self.device)
            noise = torch.randn((1, *pair.hr.shape), generator=torch.Generator().manual_seed(0)).to(self.device)
            predicted = project_rgb(self.average.sample(lr, noise, skip_last=True), lr)
            images = {"measured": pair.lr, "bicubic": bicubic(lr)[0], "predicted": predicted[0], "truth": pair.hr}
            shown.append(Sample(pair.name, {label: x.cpu() for label, x in images.items()}))
        return shown

    def facts(self) -> dict[str, str]:
        """What the exported weights state about themselves."""
        settings = self.settings
        images = str(len(self._images))
        sizes = json.dumps(settings.network.to_dict())
        return {"config": sizes, "batch": str(settings.batch), "seed": str(settings.seed), "images": images}


def _spread(items: Sequence[T], most: int) -> Sequence[T]:
    """At most `most` of the items, evenly spread."""
    return [items[i * len(items) // most] for i in range(most)] if len(items) > most else items


def loss_weights(settings: SuperResolutionSettings) -> dict[str, float]:
    """The weight of each term of the loss."""
    given = {"tail": settings.tail_weight, "contrast": settings.contrast_weight}
    return LOSS_WEIGHTS[settings.loss] | {name: value for name, value in given.items() if value is not None}


def starting_weights(settings: SuperResolutionSettings) -> Stage1 | None:
    """The networks in the file to start from, an export or a published checkpoint; None for `start: random`.

    Raises WeightsError if it cannot be used.
    """
    if settings.start == "random":
        return None
    from difffusr.pipeline.plan import read_weights, weights_errors  # an address needs more than torch

    try:
        with weights_errors():
            return Stage1.from_weights(read_weights(settings.start), settings.network)
    except WeightsError as error:
        raise WeightsError(f"start: {error}") from None


def _continue_from(stage1: Stage1, given: Stage1) -> None:
    """Copy the weights of other networks into the learning ones."""
    stage1.encoder.load_state_dict(given.encoder.state_dict())
    stage1.model.load_state_dict(given.ema.state_dict())
    for part in ("encoder_q", "encoder_k"):
        stage1.E.get_submodule(part).load_state_dict(given.E.get_submodule("encoder_q").state_dict())
