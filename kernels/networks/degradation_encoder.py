"""The degradation of an image as one vector: the encoder, and its contrastive training (reference section 1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STRIDES = (1, 1, 2, 1, 2, 1)


class DegradationEncoder(nn.Module):
    """Six convolutions and a global mean: (B, 3, h, w) normalised RGB → a vector per image.

    `widths` are the channels of the six convolutions; the last is the length of the vector. The projection (`mlp`)
    is for the contrastive loss only; without it the projection is the vector itself.
    """

    def __init__(self, widths: Sequence[int] = (64, 64, 128, 128, 256, 256), mlp: bool = True) -> None:
        super().__init__()
        if len(widths) != len(_STRIDES):
            raise ValueError(f"the degradation encoder has {len(_STRIDES)} convolutions, got {len(widths)} widths")
        layers: list[nn.Module] = []
        for (before, after), stride in zip(pairwise((3, *widths)), _STRIDES, strict=True):
            layers += [
                nn.Conv2d(before, after, 3, stride, padding=1),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.1, inplace=True),
            ]
        self.E = nn.Sequential(*layers)
        dim = widths[-1]
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.LeakyReLU(0.1), nn.Linear(dim, dim)) if mlp else nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) → the degradation vector (B, widths[-1]), which conditions the diffusion network."""
        return self.E(x).mean((2, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, h, w) → the degradation vector and its projection, (B, widths[-1]) both."""
        fea = self.features(x)
        return fea, self.mlp(fea)


class MomentumContrast(nn.Module):
    """Trains patches with the same degradation towards the same vector: momentum contrast with a queue of negatives.

    The key encoder starts as a copy of the query encoder and follows it slowly; it never receives a gradient.
    `dim` is the length of the projections, `queue_size` the number of negatives. Source: He et al. 2020
    (arXiv 1911.05722) as the reference uses it.
    """

    queue: Tensor
    queue_ptr: Tensor

    def __init__(
        self,
        encoder_q: nn.Module,
        encoder_k: nn.Module,
        dim: int,
        queue_size: int = 8192,
        momentum: float = 0.999,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.momentum, self.temperature = momentum, temperature
        self.encoder_q = encoder_q
        self.encoder_k = encoder_k
        self.encoder_k.load_state_dict(encoder_q.state_dict())
        self.encoder_k.requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(dim, queue_size), dim=0))  # (dim, K), unit columns
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.int64))

    def forward(self, im_q: Tensor, im_k: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """In training the result of `contrast`; in evaluation only the degradation vector of `im_q`."""
        if not self.training:
            return cast(Tensor, self.encoder_q(im_q)[0])
        if im_k is None:
            raise ValueError("training needs two batches, im_q and im_k: two patches of each image, degraded alike")
        return self.contrast(im_q, im_k)

    def contrast(self, im_q: Tensor, im_k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One training step's forward pass; moves the key encoder and writes the new keys into the queue.

        `im_q`, `im_k` (B, 3, h, w): row i of both has the same degradation. Returns the degradation vectors of `im_q`
        (B, C), logits (B, 1 + K) whose column 0 is the positive pair, and labels (B,), all 0. The loss is their
        cross-entropy. Raises ValueError if the queue's size is not a multiple of B.
        """
        fea, projection = self.encoder_q(im_q)
        q = F.normalize(projection, dim=1)  # (B, dim)
        with torch.no_grad():
            momentum_update(self.encoder_k, self.encoder_q, self.momentum)
            k = F.normalize(self.encoder_k(im_k)[1], dim=1)  # (B, dim)
        positive = (q * k).sum(1, keepdim=True)  # (B, 1)
        negative = q @ self.queue.clone()  # (B, K); a copy, because the queue changes before the backward pass
        logits = torch.cat([positive, negative], 1) / self.temperature
        self._enqueue(k)
        return fea, logits, logits.new_zeros(len(logits), dtype=torch.int64)

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        size, batch = self.queue.shape[1], len(keys)
        if size % batch:
            raise ValueError(f"the batch must divide the queue: {batch} does not divide {size}")
        start = int(self.queue_ptr)
        self.queue[:, start : start + batch] = keys.T
        self.queue_ptr.fill_((start + batch) % size)


@torch.no_grad()
def momentum_update(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """θ_target ← momentum·θ_target + (1 − momentum)·θ_source, for parameters only; buffers stay as they are."""
    for slow, fast in zip(target.parameters(), source.parameters(), strict=True):
        slow.mul_(momentum).add_(fast, alpha=1 - momentum)
