"""Which pixels show the ground: a table of makers of masks. To add a maker, add an entry to `MAKERS`, and its name to
`scenes.masks` in the configuration.

A maker gives classes: of a whole scene at a step of metres while planning, and of a window at 20 m while reading.
Cloud and shadow then grow by `dilate_cloud_m` and `dilate_shadow_m`, whoever made them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.geo import LATTICE_M, PixelWindow
from difffusr.pipeline.ground.pixels import CLEAR_CLASSES, CLOUD_CLASSES, UNMEASURED, Pixels
from difffusr.pipeline.scenes.csmask import check_package
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.mask_classes import Mask, MaskClass
from difffusr.pipeline.scenes.network_mask import STEP_M, mask_of
from difffusr.pipeline.scenes.rules import ChipRules
from difffusr.pipeline.scenes.windows import read_overview, read_window

#: What stands in the place of a band where a scene's mask cannot be made.
MASK: Final = "mask"

#: Metres of a pixel of a window's classes.
_WINDOW_M = 20

#: The scene classification's class of cloud shadow.
_SHADOW_CLASS = 3

#: The largest cloud probability; more is no probability.
_MOST_PERCENT = 100


@dataclass(frozen=True)
class Maker:
    """One way to tell ground from cloud.

    Attributes:
        overview: (scene, step in metres, rules) → the whole scene's classes.
        window: (scene, window, the window's scene classification or None, rules) → (n, n) classes at 20 m; None where
            nothing is known of clouds.
        judges: whether it knows clouds of a scene.
        identity: what of it a chip's pixels depend on besides the scene's version; "" for the scene classification.
        files: what it reads of a scene besides bands and scene classification, as `Scene.file` calls it.
        check: raises ConfigError where it needs a package that is not installed.
        prepare: makes what planning leaves for reading.
    """

    overview: Callable[[Scene, int, ChipRules], Mask]
    window: Callable[[Scene, PixelWindow, NDArray[np.uint16] | None, ChipRules], NDArray[np.uint8] | None]
    judges: Callable[[Scene], bool] = lambda scene: scene.scl is not None
    identity: Callable[[Scene, ChipRules], str] = lambda scene, rules: ""
    files: Callable[[Scene], tuple[str, ...]] = lambda scene: ()
    check: Callable[[], None] = lambda: None
    prepare: Callable[[Scene, ChipRules], object] = lambda scene, rules: None


# ---- what planning and reading ask ----------------------------------------------------------------------------------


def mask_overview(scene: Scene, step_m: int, rules: ChipRules) -> Mask:
    """A whole scene's classes at a step that divides or is a multiple of 60 m, cloud and shadow grown.

    Raises:
        ReadError: a file cannot be read.
    """
    mask = MAKERS[rules.masks].overview(scene, step_m, rules)
    return mask._replace(classes=grown(mask.classes, step_m, rules.dilate_cloud_m, rules.dilate_shadow_m))


class WindowMask(NamedTuple):
    """What is known of a window at 20 m: its scene classification as in the file (`UNMEASURED` outside it), and where
    the ground is clear, (n, n) each; None where the scene has no classification, or nothing is known of clouds."""

    scl: NDArray[np.uint16] | None
    clear: NDArray[np.bool_] | None


def mask_window(scene: Scene, window: PixelWindow, rules: ChipRules) -> WindowMask:
    """What is known of clouds in a window. Cloud and shadow beyond its edge count: windows agree where they overlap.

    Raises:
        ReadError: a file cannot be read.
    """
    cells = _reach_cells(rules)
    wide = _widened(window, cells)
    scl = None if scene.scl is None else read_window(scene, "SCL", wide)
    classes = MAKERS[rules.masks].window(scene, wide, scl, rules)
    rim = cells * LATTICE_M // _WINDOW_M
    inner = slice(rim, -rim or None)
    clear = None
    if classes is not None:
        clear = grown(classes, _WINDOW_M, rules.dilate_cloud_m, rules.dilate_shadow_m)[inner, inner] == MaskClass.CLEAR
    return WindowMask(None if scl is None else scl[inner, inner], clear)


def maker_of(rules: ChipRules) -> Maker:
    """The maker that the rules name."""
    return MAKERS[rules.masks]


# ---- growing --------------------------------------------------------------------------------------------------------


def grown(classes: NDArray[np.uint8], step_m: float, cloud_m: float, shadow_m: float) -> NDArray[np.uint8]:
    """Classes with cloud and shadow grown over clear pixels, cloud over shadow too.

    A pixel is reached if its centre lies within the distance of the border of a pixel of the class: straight borders
    move by the distance, rounded to whole pixels. No data and defective pixels stay what they are.
    """
    cloud = _near(classes == MaskClass.CLOUD, cloud_m / step_m)
    shadow = _near(classes == MaskClass.SHADOW, shadow_m / step_m)
    if cloud is None and shadow is None:
        return classes
    out = classes.copy()
    if shadow is not None:
        out[shadow & (classes == MaskClass.CLEAR)] = MaskClass.SHADOW
    if cloud is not None:
        out[cloud & ((out == MaskClass.CLEAR) | (out == MaskClass.SHADOW))] = MaskClass.CLOUD
    return out


def _near(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_] | None:
    """Where a pixel of a mask is at most `radius` and half a pixel away, centre from centre; None where nothing grows.

    One sum along the rows of a disc: several times as fast as a distance transform, and as exact.
    """
    reach = _reach_px(radius)
    if not reach or not mask.any():
        return None
    height, width = mask.shape
    sums = np.zeros((height + 2 * reach, width + 2 * reach + 1), np.int32)
    np.cumsum(np.pad(mask, reach), axis=1, out=sums[:, 1:])
    near = np.zeros(mask.shape, bool)
    for row in range(-reach, reach + 1):
        half = int(np.sqrt((radius + 0.5) ** 2 - row**2))
        line = sums[reach + row : reach + row + height]
        first = reach - half
        near |= line[:, first + 2 * half + 1 :][:, :width] > line[:, first : first + width]
    return near


def _reach_px(radius: float) -> int:
    return int(radius + 0.5)


def _reach_cells(rules: ChipRules) -> int:
    """Cells of 60 m around a window that may change it."""
    farthest = _reach_px(max(rules.dilate_cloud_m, rules.dilate_shadow_m) / _WINDOW_M)
    return -(-farthest * _WINDOW_M // LATTICE_M)


def _widened(window: PixelWindow, cells: int) -> PixelWindow:
    rim = round(cells * LATTICE_M / TARGET_GSD_M)
    return PixelWindow(window.row - rim, window.col - rim, window.height + 2 * rim, window.width + 2 * rim)


# ---- by the scene classification ------------------------------------------------------------------------------------


def classes_of_scl(scl: Pixels) -> NDArray[np.uint8]:
    """Classes by a scene classification; what is outside the file is no data."""
    table = np.full(257, MaskClass.DEFECTIVE, np.uint8)
    table[[0, 256]] = MaskClass.NO_DATA
    table[list(CLEAR_CLASSES)] = MaskClass.CLEAR
    table[list(CLOUD_CLASSES)] = MaskClass.CLOUD
    table[_SHADOW_CLASS] = MaskClass.SHADOW
    if scl.dtype != np.uint8:
        scl = np.where(scl == UNMEASURED, 256, np.minimum(scl, 255))
    return table.take(scl)


def _overview_of_scl(scene: Scene, step_m: int, rules: ChipRules) -> Mask:
    """Without a classification, every pixel with data in the coarsest band is clear."""
    if scene.scl is not None:
        classes, row, col = read_overview(scene, "SCL", step_m)
        return Mask(classes_of_scl(classes), row, col, step_m)
    coarsest = max(scene.assets, key=lambda band: (scene.assets[band].gsd_m, band))
    values, row, col = read_overview(scene, coarsest, step_m)
    data = (values > 1) & (values < UNMEASURED)
    return Mask(np.where(data, np.uint8(MaskClass.CLEAR), np.uint8(MaskClass.NO_DATA)), row, col, step_m)


def _window_of_scl(
    scene: Scene, window: PixelWindow, scl: NDArray[np.uint16] | None, rules: ChipRules
) -> NDArray[np.uint8] | None:
    return None if scl is None else classes_of_scl(scl)


# ---- by the item's own cloud probability ----------------------------------------------------------------------------


def _overview_of_asset(scene: Scene, step_m: int, rules: ChipRules) -> Mask:
    mask = _overview_of_scl(scene, step_m, rules)
    if scene.cloud is None:
        return mask
    values, row, col = read_overview(scene, "CLD", step_m)
    percent = Mask(values.astype(np.uint16), row, col, step_m).placed(mask, outside=UNMEASURED)
    return mask._replace(classes=with_probability(mask.classes, percent, rules))


def _window_of_asset(
    scene: Scene, window: PixelWindow, scl: NDArray[np.uint16] | None, rules: ChipRules
) -> NDArray[np.uint8] | None:
    classes = _window_of_scl(scene, window, scl, rules)
    if scene.cloud is None:
        return classes
    percent = read_window(scene, "CLD", window)
    if classes is None:
        classes = np.full(percent.shape, MaskClass.CLEAR, np.uint8)
    return with_probability(classes, percent, rules)


def with_probability(classes: NDArray[np.uint8], percent: Pixels, rules: ChipRules) -> NDArray[np.uint8]:
    """Classes in which the probability decides what is cloud, where there is one, whatever they said before."""
    open_to = (classes == MaskClass.CLEAR) | (classes == MaskClass.CLOUD) | (classes == MaskClass.SHADOW)
    known = open_to & (percent <= _MOST_PERCENT)
    cloud = known & (percent > rules.max_cloud_probability)
    out = np.where(known & (classes == MaskClass.CLOUD), np.uint8(MaskClass.CLEAR), classes)
    out[cloud] = MaskClass.CLOUD
    return out


# ---- by a network ---------------------------------------------------------------------------------------------------


def _overview_of_network(scene: Scene, step_m: int, rules: ChipRules) -> Mask:
    return mask_of(scene, rules).at(step_m)


def _window_of_network(
    scene: Scene, window: PixelWindow, scl: NDArray[np.uint16] | None, rules: ChipRules
) -> NDArray[np.uint8]:
    return mask_of(scene, rules).window(window, _WINDOW_M)


#: By the name that `scenes.masks` gives it.
MAKERS: Mapping[str, Maker] = {
    "scl": Maker(_overview_of_scl, _window_of_scl),
    "asset": Maker(
        _overview_of_asset,
        _window_of_asset,
        judges=lambda scene: scene.cloud is not None or scene.scl is not None,
        identity=lambda scene, rules: f"asset {rules.max_cloud_probability:g}" if scene.cloud is not None else "",
        files=lambda scene: ("CLD",) if scene.cloud is not None else (),
    ),
    "csmask": Maker(
        _overview_of_network,
        _window_of_network,
        judges=lambda scene: True,
        identity=lambda scene, rules: f"csmask {rules.mask_version} {STEP_M}",
        check=check_package,
        prepare=mask_of,
    ),
}
