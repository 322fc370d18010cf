"""The published system's own benchmark, opensr-test, and LPIPS: an optional extra, imported only when asked for.

`pip install 'difffusr[opensr]'` brings the packages. Distance "nd" needs nothing else; "lpips" and "clip" need trained
networks that their libraries fetch on first use, about 240 MB and 800 MB.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from difffusr.pipeline.ground.errors import DifffusrError, WeightsError

#: What decides whether a detail is right: pixels, patches as AlexNet sees them, patches as SigLIP sees them.
Distance = Literal["nd", "lpips", "clip"]

#: The columns of the published tables, in their order.
KEYS: Final = ("reflectance", "spectral", "spatial", "synthesis", "hallucination", "omission", "improvement")

#: Pixels of the finer image left out at each edge in the published evaluation; less in images that are smaller
#: than 7 × 64, see `border_px`.
BORDER_PX: Final = 64

#: Side of the patches that a network compares, and by how much reflectance is brightened for it, in all three images.
PATCH_PX: Final = 16

BRIGHTNESS: Final = 3.0

SCALE: Final = 4

#: The smallest image, in pixels of the finer grid: what is left within the border is more than two patches wide.
SMALLEST_PX: Final = 48

#: AlexNet's strides need about this many pixels; smaller images are enlarged to it, as opensr-test does.
ALEXNET_PX: Final = 64

PACKAGES: Final = ("opensr_test", "lpips")

ALEXNET: Final = "AlexNet (https://download.pytorch.org/models/alexnet-owt-7be5be79.pth)"

SIGLIP: Final = "SigLIP (https://huggingface.co/timm/ViT-B-16-SigLIP-256)"


def available() -> bool:
    """Whether the extra is installed. Imports none of it."""
    return all(find_spec(name) is not None for name in PACKAGES)


def require() -> None:
    """Raise DifffusrError now, before anything is computed, where the extra is missing or cannot be imported."""
    for name in PACKAGES:
        _import(name)


def opensr_scores(
    lr: Tensor, sr: Tensor, hr: Tensor, *, distance: Distance = "nd", device: str = "cpu"
) -> dict[str, float]:
    """The seven scores of one image, as opensr-test 1.3 computes them and the published evaluation sets it up.

    Three measure consistency with the input, one how much was added to it, and three sort the details of the image
    into right, missing and invented; these three add up to 1. Source: Aybar et al. 2024, "A comprehensive benchmark
    for optical remote sensing image super-resolution"; the published settings are in the reference, section 6.

    For "lpips" and "clip" reflectance is × 3 and clipped to [0, 1] first, and every score but `spatial` is of 16-pixel
    patches; so their `reflectance` and `synthesis` are on that brighter scale, as in the published tables.

    Args:
        lr: input (3, h, w), reflectance, red, green, blue, float.
        sr: its super-resolution (3, 4h, 4w), likewise.
        hr: truth (3, 4h, 4w), likewise, the shorter side at least 48; for "lpips" and "clip" square.
        distance: "nd" compares pixels by |x − y| / |x + y|; "lpips" and "clip" compare patches by trained networks.
        device: where torch computes.

    Returns:
        By key of `KEYS`; lower is better, except for `improvement` (higher) and `synthesis` (neither):
        reflectance: mean |lr − sr brought down| (reflectance).
        spectral: mean angle between lr and sr brought down (degrees).
        spatial: shift between lr and sr brought down (pixels of lr); NaN where none below 5 is found.
        synthesis: mean |lr brought up − sr| (reflectance), how much was added, be it right or wrong; sr has here, and
            below, the histograms and the position of hr.
        hallucination, omission, improvement: shares within [0, 1]; NaN where sr and hr equal lr brought up.

    Raises:
        DifffusrError: the extra is not installed or cannot be imported.
        WeightsError: the network of `distance` is not here and cannot be fetched.
        ValueError: shapes do not fit.
    """
    _check_shapes(lr, sr, hr, square=distance != "nd")
    library = _import("opensr_test")
    settings: dict[str, Any] = {"device": device, "border_mask": border_px(hr), "correctness_distance": distance}
    if distance == "nd":
        settings |= {"agg_method": "pixel", "patch_size": 1}
        images = [image.detach().float() for image in (lr, sr, hr)]
    else:
        _fetch_network(distance)
        settings |= {"agg_method": "patch", "patch_size": PATCH_PX}
        images = [_brightened(image.detach().float(), BRIGHTNESS) for image in (lr, sr, hr)]
    with _generators_kept():  # the library seeds them all
        found = library.Metrics(**settings).compute(lr=images[0], sr=images[1], hr=images[2])
    found |= {key: found.pop(f"{key[:2]}_metric") for key in ("hallucination", "omission", "improvement")}
    return {key: float(found[key]) for key in KEYS}


def lpips_distance(x: Tensor, y: Tensor, *, brightness: float = BRIGHTNESS) -> float:
    """Learned perceptual distance of two images (Zhang et al. 2018), AlexNet, version 0.1; 0 for equal images.

    torchvision fetches AlexNet's ImageNet weights on first use from download.pytorch.org into
    $TORCH_HOME/hub/checkpoints (by default ~/.cache/torch/hub/checkpoints); where there is no network, put the file
    alexnet-owt-7be5be79.pth there. The calibration on top of it is part of the package lpips.

    Args:
        x: judged, (3, H, W), reflectance, red, green, blue, float. Sides below 64 are enlarged to 64.
        y: truth, likewise.
        brightness: both are multiplied by this and clipped to [0, 1]; for images within [0, 1] as they are: 1.

    Raises:
        DifffusrError: the extra is not installed or cannot be imported.
        WeightsError: AlexNet is not here and cannot be fetched.
        ValueError: shapes do not fit.
    """
    if x.shape != y.shape or x.ndim != 3 or x.shape[0] != 3:
        raise ValueError(f"two images (3, H, W) of one shape, got {list(x.shape)} and {list(y.shape)}")
    pair = _brightened(torch.stack([x, y]).detach().float(), brightness)  # (2, 3, H, W)
    size = [max(side, ALEXNET_PX) for side in pair.shape[-2:]]
    if size != list(pair.shape[-2:]):
        pair = nn.functional.interpolate(pair, size=size, mode="bilinear", antialias=True)
    network = _lpips_network().to(pair.device)
    with torch.no_grad():
        return float(network(pair[:1], pair[1:], normalize=True))


def border_px(hr: Tensor) -> int:
    """Pixels of the finer image (3, H, W) that the scores leave out at each edge, a multiple of 4.

    64 as published; at most a seventh of the shorter side, so that half of a small image's area is still judged.
    """
    return min(BORDER_PX, min(hr.shape[-2:]) // 7 // SCALE * SCALE)


def _check_shapes(lr: Tensor, sr: Tensor, hr: Tensor, square: bool) -> None:
    finer = (3, SCALE * lr.shape[-2], SCALE * lr.shape[-1])
    if lr.ndim != 3 or lr.shape[0] != 3 or tuple(sr.shape) != finer or tuple(hr.shape) != finer:
        shapes = ", ".join(str(list(image.shape)) for image in (lr, sr, hr))
        raise ValueError(f"lr (3, h, w) and sr, hr (3, 4h, 4w), got {shapes}")
    if min(finer[1:]) < SMALLEST_PX:
        raise ValueError(f"an image of at least {SMALLEST_PX} px, got {list(hr.shape)}")
    if square and finer[1] != finer[2]:
        raise ValueError(f"distances by patch are defined for square images only, got {list(hr.shape)}")


def _brightened(image: Tensor, factor: float) -> Tensor:
    return (factor * image).clamp(0, 1)


def _import(name: str) -> ModuleType:
    """A package of the extra."""
    if not available():
        raise DifffusrError("the extra of opensr-test and lpips is not installed: pip install 'difffusr[opensr]'")
    try:
        _import_torchvision()
        return import_module(name)
    except (ImportError, OSError) as error:
        message = f"{name} is installed but cannot be imported ({_line(error)}): pip install 'difffusr[opensr]' again"
        raise DifffusrError(message) from error


@lru_cache(maxsize=1)
def _import_torchvision() -> torch.library.Library | None:
    """Import torchvision even where its compiled operators were built for another build of torch.

    PyPI's torchvision is compiled against CUDA: with a torch for the CPU its operators do not load, and it fails to
    register what they return. Nothing here calls them, so the two that it requires are declared, without code.
    """
    try:
        import_module("torchvision")
        return None
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise DifffusrError(
                f"torchvision cannot be imported ({_line(error)}): install the one of this torch"
            ) from error
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import_module("torchvision")
    return operators  # dropped with the last reference to it


@lru_cache(maxsize=1)
def _lpips_network() -> nn.Module:
    lpips = _import("lpips")
    try:
        network: nn.Module = lpips.LPIPS(net="alex", verbose=False)
    except (OSError, RuntimeError) as error:  # not fetched; fetched with another checksum
        raise WeightsError(_no_weights(ALEXNET, f"{torch.hub.get_dir()}/checkpoints", error)) from error
    return network.requires_grad_(False)


def _fetch_network(distance: Distance) -> None:
    """Fail before the library does, in one line, if the weights of a distance cannot be fetched."""
    if distance == "lpips":
        _lpips_network()
        return
    pretrained = _import("open_clip.pretrained")
    try:
        pretrained.download_pretrained(pretrained.get_pretrained_cfg("ViT-B-16-SigLIP-256", "webli"))
    except (OSError, RuntimeError) as error:
        raise WeightsError(_no_weights(SIGLIP, "the cache of huggingface_hub", error)) from error


def _no_weights(network: str, place: str, error: Exception) -> str:
    what = f"no weights of {network}, and fetching them failed ({_line(error)})"
    return f"{what}: put them into {place}, or use distance 'nd', which needs none"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Give the global random generators and cuDNN's settings back as they were."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
