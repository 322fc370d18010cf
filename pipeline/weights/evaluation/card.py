"""Measures all figures of the model card and writes them into it: `make model-card DATA=…`.

The card is kernels/weights/README.md. The lines between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` are replaced
by the table of that name; everything else stays.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Final, get_args

import torch

from difffusr.kernels.bands import BANDS
from difffusr.kernels.measures import PERIODS
from difffusr.kernels.model import load_model
from difffusr.kernels.networks import Stage1
from difffusr.kernels.networks.fusion import fusion_from_weights
from difffusr.kernels.sampling import Sampling
from difffusr.kernels.weights import load_weights, shipped, shipped_sampling
from difffusr.pipeline.weights.evaluation.data import Degradation, Pair, image_pairs
from difffusr.pipeline.weights.evaluation.flatness import evaluate_flatness, read_stack
from difffusr.pipeline.weights.evaluation.fusion import CONSISTENT, evaluate_fusion
from difffusr.pipeline.weights.evaluation.grids import middle_of, product_grid
from difffusr.pipeline.weights.evaluation.report import Evaluation, to_markdown, write
from difffusr.pipeline.weights.evaluation.super_resolution import CONTEXT, SAMPLE, evaluate_super_resolution
from difffusr.pipeline.weights.training import (
    FusionSettings,
    NativeScene,
    SuperResolutionSettings,
    evaluate_product,
    find_all,
    load_scenes,
    load_settings,
)

CARD: Final = Path(str(resources.files("difffusr.kernels.weights"))) / "README.md"

#: Open sea, 12 bands at 10 m.
_SEA: Final = "l2a_patches/hydro_water/patch_10.tif"

#: Side of a chip in pixels of 10 m.
_CHIP_PX: Final = 192

#: Sampler settings that the ablation compares: (steps, temperature, last estimate, consistency).
_ABLATION: Final = (
    (20, 1.0, False, False), (20, 1.0, False, True), (20, 1.0, True, True), (10, 1.0, True, True),
    (10, 0.75, True, True), (10, 0.5, True, True), (10, 0.25, True, True), (10, 0.0, True, True), (5, 0.5, True, True),
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """The command line: where the data are, and where the pages of the evaluations go."""
    parser = argparse.ArgumentParser(
        prog="python -m difffusr.pipeline.weights.evaluation.card", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="the folder that hr/, l2a_patches/ and archive/ are in"
    )
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="folder for the pages")
    args = parser.parse_args(argv)
    tables = measure(args.data, args.out)
    CARD.write_text(filled(CARD.read_text(), tables))
    print(f"written into {CARD}; pages below {args.out}")


def filled(card: str, tables: Mapping[str, str]) -> str:
    """The card with its tables replaced. Raises KeyError where the card asks for one that was not measured."""

    def table(found: re.Match[str]) -> str:
        return f"{found[1]}\n{tables[found[2]]}\n{found[3]}"

    return re.sub(r"(<!-- begin ([\w-]+) -->)\n.*?(<!-- end \2 -->)", table, card, flags=re.DOTALL)


def measure(data: Path, out: Path) -> dict[str, str]:
    """All tables of the card by name, as Markdown."""
    stage1 = Stage1.from_weights(load_weights(shipped("small", "stage1"))).eval()
    sampling = shipped_sampling()
    pairs = {kind: held_out_pairs(data, kind) for kind in get_args(Degradation)}
    tables = {"facts": _facts(), "training": _training()}
    for kind, of in pairs.items():
        found = evaluate_super_resolution(stage1, of, sampling, {"windows": len(of), "degradation": kind}, timed=False)
        write(found, out / f"sr-{kind}")
        tables[f"sr-{kind}"] = to_markdown(found.tables[0])
        if kind == "sensor":
            tables["calibration"] = _calibration(found)
    tables["ablation"] = _ablation(stage1, pairs["sensor"])
    tables |= _fusion(data, out)
    model = load_model("small", sampling=sampling)
    tables["water"] = _water(model, data)
    tables["gridness"] = _gridness(model, data)
    tables["product"] = _product(model, data)
    return tables


def held_out_pairs(data: Path, degradation: Degradation) -> list[Pair]:
    """Windows of the imagery below `data` that the shipped stage 1 was not trained on."""
    settings = _example(SuperResolutionSettings, "train-sr-small.yaml", data)
    _, held_out = find_all(settings.data, Path(settings.root))
    return image_pairs(held_out, size_px=256, per_image=4, degradation=degradation)


def unseen_scenes(data: Path) -> list[NativeScene]:
    """12-band scenes below `data` that the shipped fusion network was not trained on."""
    settings = _example(FusionSettings, "train-fusion-small.yaml", data)
    return load_scenes(settings.data, data)[1]


def _example(kind: Any, name: str, root: Path) -> Any:
    with resources.as_file(resources.files("difffusr.pipeline.config.examples").joinpath(name)) as path:
        return load_settings(kind, path, {"root": root.resolve()})


def _facts() -> str:
    folder = resources.files("difffusr.kernels.weights")
    lines = ["| file | parameters | size | sha256 |", "|---|---:|---:|---|"]
    for entry in json.loads(folder.joinpath("index.json").read_text())["small"].values():
        if "file" not in entry:
            continue
        weights = load_weights(str(folder.joinpath(entry["file"])))
        count = sum(x.numel() for x in weights.state_dict.values() if x.is_floating_point())
        size = Path(str(folder.joinpath(entry["file"]))).stat().st_size
        lines.append(
            f"| `{entry['file']}` | {count / 1e6:.2f} million | {size / 1e6:.2f} MB | `{entry['sha256'][:16]}…` |"
        )
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    return "\n".join(lines) + f"\n\nMeasured on {machine}."


def _training() -> str:
    """What the files state about their training."""
    lines = ["| | stage 1 | fusion |", "|---|---|---|"]
    said = [load_weights(shipped("small", stage)).metadata for stage in ("stage1", "fusion")]
    keys = sorted(set().union(*said) - {"config", "kind"})
    return "\n".join([*lines, *(f"| {key} | {said[0].get(key, '–')} | {said[1].get(key, '–')} |" for key in keys)])


def _calibration(found: Evaluation) -> str:
    figures = found.extra["calibration"]
    head = "| spread of 8 samples | " + " | ".join(f"{x:.4f}" for x in figures["std"]) + " |"
    line = "| RMSE of their mean | " + " | ".join(f"{x:.4f}" for x in figures["rmse"]) + " |"
    rule = "|---" + "|---:" * len(figures["std"]) + "|"
    return f"{head}\n{rule}\n{line}\n\nRank correlation over pixels: {figures['rank_correlation']:.2f}."


def _ablation(stage1: Stage1, pairs: Sequence[Pair]) -> str:
    lines = [
        "| sampler | PSNR | SWD | SWD-E | spectrum | residual | s per 192 px chip |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    some = pairs[::3]
    for steps, temperature, denoised, consistency in _ABLATION:
        sampling = replace(Sampling(), steps=steps, temperature=temperature, denoised=denoised)
        name = f"{SAMPLE} + bp" if consistency else SAMPLE
        found = evaluate_super_resolution(stage1, some, sampling, {}, samples=0, crops=0, only=[name])
        title = f"{steps} steps, temperature {temperature:g}" + ("" if denoised else ", last noise kept")
        title += ", consistency" if consistency else ""
        lines.append(_ablation_line(title, found, name))
    plain = (CONTEXT, f"{CONTEXT} + bp", "bicubic + bp", "bicubic")
    found = evaluate_super_resolution(stage1, some, Sampling(steps=5), {}, samples=0, crops=0, only=plain)
    return "\n".join([*lines, *(_ablation_line(name, found, name) for name in plain)])


def _ablation_line(title: str, found: Evaluation, name: str) -> str:
    row = found.tables[0].mean[name]
    figures = [f"{row['psnr']:.2f}", f"{row['swd']:.1f}", f"{row['swd_scaled']:.1f}", f"{row['spectrum']:.2f}"]
    figures += [f"{row['residual']:.5f}", f"{found.extra['seconds_192px'][name]:.2f}"]
    return f"| {title} | " + " | ".join(figures) + " |"


def _fusion(data: Path, out: Path) -> dict[str, str]:
    unseen = unseen_scenes(data)
    network = fusion_from_weights(load_weights(shipped("small", "fusion")))
    found = evaluate_fusion(network, unseen, {"scenes": len(unseen)})
    write(found, out / "fusion")
    tables = {f"fusion-{table.title.split()[0]}": to_markdown(table) for table in found.tables}
    margins = [
        f"| {title} | {rivals} | {m['best_ergas']} | {m['ergas_relative']:+.1%} | {m['best_sam']} "
        f"| {m['sam_difference']:+.3f} |"
        for title, by_rivals in found.extra["against_the_best"].items()
        for rivals, m in by_rivals.items()
    ]
    head = f"| {CONSISTENT} | against methods | best ERGAS | ERGAS | best SAM | SAM |\n|---|---|---|---:|---|---:|"
    return tables | {"fusion-margins": "\n".join([head, *margins])}


def _water(model: Any, data: Path) -> str:
    energies = evaluate_flatness(model, data / _SEA)
    head = "| | " + " | ".join(BANDS) + " |\n|---" + "|---:" * len(BANDS) + "|"
    rows = [
        f"| {name} | " + " | ".join(f"{1e4 * energies[band][name]:.2f}" for band in BANDS) + " |"
        for name in ("input", "product")
    ]
    return "\n".join([head, *rows])


def _gridness(model: Any, data: Path) -> str:
    """Patterns of 4 pixels of the product by band, on scenes of which at least a chip was not seen, and on open sea."""
    scenes = {scene.name: scene.bands for scene in unseen_scenes(data) if min(scene.bands["B02"].shape) >= _CHIP_PX}
    chips = {name: middle_of(bands, _CHIP_PX) for name, bands in scenes.items()}
    chips["open sea"] = read_stack(data / _SEA, _CHIP_PX)
    rows = ["| | " + " | ".join(BANDS) + " |", "|---" + "|---:" * len(BANDS) + "|"]
    for name, chip in chips.items():
        power = product_grid(model, [chip])
        share, amplitude = power.share(PERIODS[0]).tolist(), power.amplitude(PERIODS[0]).tolist()
        rows.append(f"| {name[:40]}, % | " + " | ".join(f"{100 * x:.2f}" for x in share) + " |")
        rows.append("| … amplitude × 10⁴ | " + " | ".join(f"{1e4 * x:.1f}" for x in amplitude) + " |")
    return "\n".join(rows)


def _product(model: Any, data: Path) -> str:
    lines = ["| scene | RGB bicubic | RGB product | B08 bicubic | B08 product |", "|---|---:|---:|---:|---:|"]
    for scene in unseen_scenes(data):
        try:
            scores = evaluate_product(model, scene)
        except ValueError:  # smaller than a chip after it is made four times coarser
            continue
        row = [scores[key] for key in ("rgb bicubic", "rgb product", "nir bicubic", "nir product")]
        lines.append(f"| {scene.name[:40]} | " + " | ".join(f"{value:.2f}" for value in row) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
