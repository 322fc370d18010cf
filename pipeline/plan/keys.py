"""Content keys: everything a chip's pixels depend on, hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.plan.tables import KEY_BYTES
from difffusr.pipeline.scenes import ChipRules, Scene, maker_of

#: Changed whenever the same inputs give a chip with other pixels.
ALGORITHM_VERSION = 2


@dataclass(frozen=True)
class ContentKeys:
    """Computes content keys of chips; what all chips have in common is hashed once."""

    common: bytes
    versions: tuple[bytes, ...]

    @classmethod
    def of(cls, config: RunConfig, scenes: Sequence[Scene], model: str) -> ContentKeys:
        content = {
            "algorithm": ALGORITHM_VERSION,
            "model": model,
            "seed": config.model.seed,
            "grid": [config.grid.chip_px, config.grid.overlap_px],
            "cloudy": config.scenes.allow_cloudy,
            "uncertainty": config.model.uncertainty_samples,
        }
        # What all chips depend on; masks and balance are part of each scene's own version.
        rules = ChipRules.of(config.canonical()["scenes"])
        if later := rules.shared():
            content["rules"] = later
        if "skip" in config.canonical():
            content["skip"] = config.canonical()["skip"]
        return cls(bytes.fromhex(digest(content)), tuple(_version(scene, rules) for scene in scenes))

    def table(self, places: NDArray[np.int32], scenes: NDArray[np.int32]) -> NDArray[np.uint8]:
        """(n, 32) uint8 keys of chips at (n, 3) zone, row, column with (n, m) scenes, −1 after the last."""
        keys = bytearray()
        for place, chosen in zip(np.ascontiguousarray(places, "<i4"), scenes.tolist(), strict=True):
            content = b"".join(self.versions[number] for number in chosen if number >= 0)
            keys += hashlib.sha256(self.common + place.tobytes() + content).digest()
        return np.frombuffer(bytes(keys), np.uint8).reshape(-1, KEY_BYTES)


def _version(scene: Scene, rules: ChipRules) -> bytes:
    """What a chip depends on of a scene: its version, and who says what in it is cloud. A scene that has no mask of its
    own, because its SCL decides, keeps its version whatever the configuration asks for."""
    version, mask = scene.pixels_key(), maker_of(rules).identity(scene, rules)
    return bytes.fromhex(digest([version, mask]) if mask else version)


def digest(content: Any) -> str:
    """sha256 of JSON-able content in canonical form."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
