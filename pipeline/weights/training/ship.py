"""Adds weights that a training exported to those that ship with the package.

    python -m difffusr.pipeline.weights.training.ship stage1 RUN/stage1.safetensors
    python -m difffusr.pipeline.weights.training.ship fusion RUN/fusion.safetensors

Notes the file's name and sha256 in kernels/weights/index.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from difffusr.kernels.networks import Stage1
from difffusr.kernels.networks.fusion import fusion_from_weights
from difffusr.kernels.weights import load_weights


def ship(stage: str, weights: Path, folder: Path) -> Path:
    """Copy exported weights to `small-<stage>.safetensors` in a folder of shipped weights, and note their sha256.

    Raises difffusr.kernels.weights.errors.WeightsError where the file holds no such network.
    """
    read = load_weights(weights)
    Stage1.from_weights(read) if stage == "stage1" else fusion_from_weights(read)
    path = folder / f"small-{stage}.safetensors"
    shutil.copyfile(weights, path)
    index_path = folder / "index.json"
    index = json.loads(index_path.read_text()) if index_path.exists() else {}
    entry = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    index.setdefault("small", {}).setdefault(stage, {}).update(entry)
    index_path.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m difffusr.pipeline.weights.training.ship", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("stage", choices=("stage1", "fusion"))
    parser.add_argument("weights", type=Path, help="an exported .safetensors file")
    args = parser.parse_args(argv)
    print(ship(args.stage, args.weights, Path(str(resources.files("difffusr.kernels.weights")))))


if __name__ == "__main__":
    main()
