"""The training of the fusion network: Sentinel-2 seen from farther away, so that its own bands are the truth."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.bands import GROUPS
from kernels.fusion import FusionNetwork, build_fusion
from kernels.learning import fuse_standardised, fusion_loss, start_as_injection
from kernels.normalisation import FUSION
from pipeline.training.samples import Sample
from pipeline.training.scenes import fusion_sample, load_scenes
from pipeline.training.settings import FusionSettings
from pipeline.training.validation import evaluate_fusion

#: By native GSD in metres, the samples of a step: (guide, measured, truth) each, reflectance, on the CPU.
Batch = dict[int, list[tuple[Tensor, Tensor, Tensor]]]


@dataclass
class FusionTask:
    """`loop.Task` for the fusion network; `learning` and `average` as there."""

    settings: FusionSettings
    device: torch.device
    name: str = "fusion"
    terms: tuple[str, ...] = tuple(f"{gsd} m" for gsd in GROUPS)
    decibels: tuple[str, ...] = ()
    betas: tuple[float, float] = (0.9, 0.999)
    learning: FusionNetwork = field(init=False)
    average: FusionNetwork = field(init=False)

    def build(self) -> None:
        """Make the network, the same for the same seed, and read the scenes."""
        settings = self.settings
        self._scenes, self._held_out = load_scenes(settings.data, Path(settings.root))
        size = np.array([float(scene.bands["B04"].numel()) ** 0.5 for scene in self._scenes])
        self._share = size / size.sum()
        torch.manual_seed(settings.seed)
        network = build_fusion(settings.network)
        if settings.network.generation == "v2":
            start_as_injection(network)
        self.learning = network.to(self.device).train()
        self.average = copy.deepcopy(network).requires_grad_(False).eval()

    def parameters(self) -> list[nn.Parameter]:
        """What the optimiser moves."""
        return list(self.learning.parameters())

    def batch(self, step: int, rank: int) -> Batch:
        """What a worker learns from in a step; depends on nothing but seed, step and rank."""
        settings = self.settings
        rng = np.random.default_rng((settings.seed, step, rank))

        def sample(gsd: int) -> tuple[Tensor, Tensor, Tensor]:
            scene = self._scenes[rng.choice(len(self._scenes), p=self._share)]
            return fusion_sample(scene, gsd, settings.truth_px, rng)

        return {gsd: [sample(gsd) for _ in range(settings.batch)] for gsd in GROUPS}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of each group, and their sum "total". Samples differ in size: each is a batch of its own."""
        settings = self.settings
        whole = torch.autocast(self.device.type, torch.bfloat16) if settings.precision == "bfloat16" else nullcontext()
        terms: dict[str, Tensor] = {}
        with whole:
            for gsd, samples in batch.items():
                loss = torch.zeros((), device=self.device)
                for sample in samples:
                    guide, measured, truth = (x[None].to(self.device) for x in sample)
                    scaled = settings.loss == "relative"
                    one = fusion_loss(self.learning, gsd, guide, measured, truth, scaled=scaled)
                    loss = loss + one / settings.batch
                terms[f"{gsd} m"] = loss
        return {"total": sum(terms.values(), torch.zeros((), device=self.device)), **terms}

    def weights(self) -> Mapping[str, Tensor]:
        """The learning weights under the names of `average`."""
        return self.learning.state_dict()

    def validate(self, thorough: bool) -> dict[str, dict[str, float]]:
        """Decibels by group and way; always of all held-out scenes."""
        return {f"{gsd} m": scores for gsd, scores in evaluate_fusion(self.average, self._held_out).items()}

    @torch.no_grad()
    def samples(self) -> list[Sample]:
        """The groups of two held-out scenes, three bands of each: as measured, enlarged, predicted, true."""
        shown = []
        for scene in self._held_out[:2]:
            for gsd in GROUPS:
                sample = fusion_sample(scene, gsd, 480, np.random.default_rng(0))
                guide, measured, truth = (x[None].to(self.device) for x in sample)
                fused = FUSION.select(GROUPS[gsd]).invert(fuse_standardised(self.average, gsd, guide, measured))
                enlarged = F.interpolate(measured, size=truth.shape[-2:], mode="bicubic", align_corners=False)
                images = {"measured": measured, "bicubic": enlarged, "predicted": fused, "truth": truth}
                three = [0, 1, 2] if truth.shape[1] > 2 else [0, 1, 1]
                shown.append(
                    Sample(f"{scene.name[:24]} · {gsd} m", {label: x[0, three].cpu() for label, x in images.items()})
                )
        return shown

    def facts(self) -> dict[str, str]:
        """What the exported weights state of themselves."""
        return {"config": json.dumps(asdict(self.settings.network))}
