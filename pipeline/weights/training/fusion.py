"""The training of the fusion network: Sentinel-2 made coarser, so that its own bands are the truth."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from difffusr.kernels.bands import GROUPS
from difffusr.kernels.learning import fuse, fusion_loss, start_as_injection
from difffusr.kernels.networks.fusion import FusionNetwork, build_fusion
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.weights.training.draws import Seeds, on_device
from difffusr.pipeline.weights.training.samples import Sample
from difffusr.pipeline.weights.training.scenes import NativeScene, load_scenes
from difffusr.pipeline.weights.training.validation import evaluate_fusion
from difffusr.pipeline.weights.training.variation import GroundSource, WaldBatch
from difffusr.pipeline.weights.training.wald import STAND_INS, squares, view_of

if TYPE_CHECKING:
    from difffusr.pipeline.weights.training.settings import FusionSettings

#: By native GSD in metres, what a step learns from, squares of one size together; on the device.
Batch = dict[int, list[WaldBatch]]


@dataclass
class FusionTask:
    """`loop.Task` for the fusion network; `learning` and `average` as there.

    `data`: the scenes to learn from, and those held out; by default what the settings name.
    """

    settings: FusionSettings
    device: torch.device
    data: tuple[Sequence[NativeScene], Sequence[NativeScene]] | None = None
    name: str = "fusion"
    terms: tuple[str, ...] = tuple(f"{gsd} m" for gsd in GROUPS)
    decibels: tuple[str, ...] = ()
    betas: tuple[float, float] = (0.9, 0.99)
    waits: bool = False
    learning: FusionNetwork = field(init=False)
    average: FusionNetwork = field(init=False)

    def build(self) -> None:
        """Make the network, the same for the same seed, and read the scenes.

        Raises ConfigError if no scene is large enough for a group.
        """
        settings = self.settings
        scenes, self._held_out = self.data or load_scenes(settings.data, Path(settings.root))
        self._sources: dict[int, GroundSource] = {}
        for gsd, kinds in STAND_INS.items():
            drawn = [(view_of(s, gsd, of, names), weight) for s in scenes for of, names, weight in kinds]
            usable = [(view, (weight * view.size[0] * view.size[1]) ** 0.5) for view, weight in drawn if view.enough]
            if not usable:
                raise ConfigError(f"data: no scene is large enough for the {gsd} m bands (3 coarse pixels a side)")
            size = settings.truth_px if gsd < 60 else settings.truth_px * 3 // 2  # coarse pixels are six times as large
            self._sources[gsd] = GroundSource.of(gsd, usable, size, self.device)
        torch.manual_seed(settings.seed)
        network = build_fusion(settings.network)
        if settings.network.generation == "v2":
            start_as_injection(network)
        network = on_device(network, self.device)
        self.average = copy.deepcopy(network).requires_grad_(False).eval()
        if settings.precision == "mixed" and self.device.type == "cuda":
            convolve_in_bfloat16(network, self.device)
        self.learning = network.train()

    def groups(self) -> list[dict[str, Any]]:
        """The parameter groups of the optimiser."""
        return [{"params": list(self.learning.parameters())}]

    def batch(self, step: int, rank: int) -> Batch:
        """What a worker learns from in a step; depends only on seed, step and rank."""
        seeds, wide = Seeds(self.settings.seed, step, rank), self.settings.variation == "wide"
        return {gsd: self._sources[gsd].draw(seeds, self.settings.batch, wide=wide) for gsd in GROUPS}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of each group, and their sum "total". Samples of one size go through the network together."""
        settings = self.settings
        whole = torch.autocast(self.device.type, torch.bfloat16) if settings.precision == "bfloat16" else nullcontext()
        terms: dict[str, Tensor] = {}
        with whole:
            for gsd, parts in batch.items():
                loss, published = torch.zeros((), device=self.device), settings.loss == "published"
                for part in parts:
                    given = part.guide, part.measured, part.truth, part.others
                    one = fusion_loss(self.learning, gsd, *given, published=published)
                    loss = loss + one * len(part.truth) / settings.batch
                terms[f"{gsd} m"] = loss
        return {"total": sum(terms.values(), torch.zeros((), device=self.device)), **terms}

    def settle(self) -> None:
        """Nothing is asked of the weights."""

    def weights(self) -> Mapping[str, Tensor]:
        """The learning weights under the names of `average`."""
        return self.learning.state_dict()

    def validate(self, _thorough: bool, /) -> dict[str, dict[str, float]]:
        """Decibels by group and way; always of all held-out scenes."""
        return {f"{gsd} m": scores for gsd, scores in evaluate_fusion(self.average, self._held_out).items()}

    @torch.no_grad()
    def samples(self) -> list[Sample]:
        """The groups of two held-out scenes, three bands of each: as measured, enlarged, predicted, true."""
        shown = []
        for scene in self._held_out[:2]:
            for gsd in GROUPS:
                for sample in squares(view_of(scene, gsd))[:1]:
                    guide, measured, truth = (
                        x[None].to(self.device) for x in (sample.guide, sample.measured, sample.truth)
                    )
                    others = {g: x[None].to(self.device) for g, x in sample.others.items()}
                    fused = fuse(self.average, gsd, guide, measured, others)
                    enlarged = F.interpolate(measured, size=truth.shape[-2:], mode="bicubic", align_corners=False)
                    images = {"measured": measured, "bicubic": enlarged, "predicted": fused, "truth": truth}
                    three = [0, 1, 2] if truth.shape[1] > 2 else [0, 1, 1]
                    rows = {label: x[0, three].cpu() for label, x in images.items()}
                    shown.append(Sample(f"{scene.name[:24]} · {gsd} m", rows))
        return shown

    def facts(self) -> dict[str, str]:
        """What the exported weights state about themselves."""
        settings = self.settings
        return {
            "config": json.dumps(asdict(settings.network)),
            "batch": str(settings.batch),
            "seed": str(settings.seed),
        }


def convolve_in_bfloat16(network: FusionNetwork, device: torch.device) -> None:
    """Run the branches in bfloat16 where torch deems that safe. All that is added to the bands stays float32.

    For networks whose branches have nothing but features inside; the published ones have the sensors' filters, too.
    """
    if network.passes_rgb:
        for gsd in GROUPS:
            branch = network.branch(gsd)
            branch.forward = torch.autocast(device.type, torch.bfloat16)(branch.forward)
