"""Training: degradation stays physical, a few steps teach something, and what ships beats bicubic enlargement."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from beside import SHARED

from difffusr.kernels.learning import inference_weights, published_losses, start_at_nothing
from difffusr.kernels.networks.stage1 import Stage1, Stage1Config
from difffusr.kernels.weights.checkpoints import load_weights
from difffusr.pipeline.ground.errors import ConfigError, ReadError
from difffusr.pipeline.weights.training.degrading import degrade, published_degrade
from difffusr.pipeline.weights.training.fusion import FusionTask
from difffusr.pipeline.weights.training.imagery import HRImage, PatchSource, find_all, random_radiometry, read_image
from difffusr.pipeline.weights.training.loop import Context, DivergedError, train
from difffusr.pipeline.weights.training.scenes import NativeScene, load_scenes
from difffusr.pipeline.weights.training.settings import (
    FusionSettings,
    ImageSource,
    SceneSource,
    SuperResolutionSettings,
    load_settings,
)
from difffusr.pipeline.weights.training.ship import ship
from difffusr.pipeline.weights.training.super_resolution import SuperResolutionTask

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

HR = SHARED / "data" / "hr"


@pytest.fixture(scope="module")
def fields():
    """An aerial picture of fields: rectangles of some brightness with sharp edges."""
    rng = np.random.default_rng(0)
    pixels = np.full((3, 256, 256), 0.4, dtype=np.float32)
    for _ in range(150):
        row, col, height, width = rng.integers(4, 60, 4)
        row, col = rng.integers(0, 256, 2)
        pixels[:, row : row + height, col : col + width] = rng.uniform(0.2, 0.8, (3, 1, 1))
    return HRImage("fields", 2.5, pixels, np.ones((256, 256), dtype=bool), display=True)


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    gsd = {"B01": 60, "B09": 60} | dict.fromkeys(("B02", "B03", "B04", "B08"), 10)
    gsd |= dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 20)
    coarse = torch.from_numpy(rng.uniform(0.05, 0.4, (1, 1, 24, 24)).astype(np.float32))
    ground = F.interpolate(coarse, size=(144, 144), mode="nearest")
    return NativeScene("made up", {band: F.avg_pool2d(ground, g // 10)[0, 0] for band, g in gsd.items()})


def test_degradation_keeps_reflectance_and_brightness(fields):
    rng = np.random.default_rng(1)
    source = PatchSource.build([fields], 144)
    hr = torch.stack([source.draw(rng) for _ in range(16)])
    lr = degrade(hr, rng, margin=2)
    assert lr.shape == (16, 2, 3, 32, 32)
    assert torch.isfinite(lr).all()
    assert lr.min() > -0.6
    assert lr.max() < 1.6  # noise of 0.1 at most
    inner = hr[..., 8:-8, 8:-8].mean((1, 2, 3, 4))
    assert torch.allclose(lr.mean((1, 2, 3, 4)), inner, atol=0.02)


def test_the_same_seed_draws_the_same_patches(fields):
    source = PatchSource.build([fields], 144)
    assert torch.equal(source.draw(np.random.default_rng(5)), source.draw(np.random.default_rng(5)))


def test_radiometry_covers_dark_water_and_bright_desert():
    rng = np.random.default_rng(2)
    means = [float(random_radiometry(torch.full((3, 8, 8), 0.45), True, rng).mean()) for _ in range(300)]
    assert min(means) < 0.04
    assert max(means) > 0.35
    assert np.median(means) < 0.2


def test_patches_avoid_pixels_without_data(fields):
    valid = fields.valid.copy()
    valid[:100, :100] = False
    marked = fields.pixels.copy()
    marked[:, ~valid] = np.nan
    source = PatchSource.build([HRImage("holed", 2.5, marked, valid, display=True)], 128)
    rng = np.random.default_rng(3)
    assert all(torch.isfinite(source.draw(rng)).all() for _ in range(10))


def test_a_velocity_network_starts_by_predicting_nothing():
    torch.manual_seed(0)
    config = Stage1Config.from_dict(TINY | {"diffusion": {"prediction": "v", "residual": 1.0, "clip": 6.0}})
    learning = Stage1(config, training=True)
    start_at_nothing(learning)
    stage1 = Stage1(config)
    stage1.load_state_dict(inference_weights(learning))
    x, lr = torch.randn(1, 3, 32, 32), torch.rand(1, 3, 8, 8)
    ctx, k = stage1.encode(lr)
    level = torch.tensor([[0.3]])
    assert torch.allclose(stage1.clean(x, level, stage1.ema(x, level, ctx, k)), 0.3 * x)


TINY = {
    "rrdb": {"channels": 8, "blocks": 1, "growth": 4},
    "encoder": {"widths": [4, 4, 8, 8, 8, 8]},
    "unet": {
        "inner_channels": 16,
        "channel_mults": [1, 2],
        "res_blocks": 1,
        "attn_strides": [],
        "fold": 4,
        "norm_groups": 4,
        "kernel_dim": 8,
        "mid_attention": False,
    },
}


def write_image(path: Path, bands: int = 3, size: int = 160, dtype: str = "uint8", high: int = 255) -> None:
    """A picture of coarse squares."""
    rng = np.random.default_rng(len(path.name))
    coarse = rng.integers(high // 8, high, (bands, size // 8, size // 8)).astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = "PNG" if path.suffix == ".png" else "GTiff"
    with rasterio.open(path, "w", driver=driver, width=size, height=size, count=bands, dtype=dtype) as file:
        file.write(coarse.repeat(8, 1).repeat(8, 2))


@pytest.fixture
def settings(tmp_path) -> SuperResolutionSettings:
    for name in ("north", "south", "west"):
        write_image(tmp_path / "hr" / f"{name}.tif")
    return SuperResolutionSettings.model_validate(
        {
            "out": str(tmp_path / "out"),
            "root": str(tmp_path),
            "data": [{"path": "hr", "gsd_m": 2.5, "held_out": ["west*"]}],
            "network": TINY,
            "steps": 6,
            "batch": 2,
            "lr_px": 16,
            "warm_up": 2,
            "checkpoint_every": 4,
            "validation_px": 96,
        }
    )


def losses_of(out: Path) -> list[str]:
    """The lines of a table of losses, but for the seconds."""
    return [line.rsplit(",", 1)[0] for line in (out / "losses.csv").read_text().splitlines()]


def run(settings, out: Path, **changes) -> list[str]:
    changed = settings.model_copy(update={"out": str(out), **changes})
    kind = SuperResolutionTask if isinstance(settings, SuperResolutionSettings) else FusionTask
    train(kind(changed, torch.device("cpu")), changed, changes.pop("context", Context()))
    return losses_of(out)


def test_a_training_leaves_tables_pictures_and_weights(settings, tmp_path):
    lines = run(settings, tmp_path / "a")
    assert lines[0] == "step,total,sample,tail,contrast,norm,rate"
    assert [line.split(",")[0] for line in lines[1:]] == list("123456")
    for name in ("losses.png", "validation.csv", "samples/step-000006.png", "checkpoint/state.pt"):
        assert (tmp_path / "a" / name).stat().st_size > 0, name
    assert list((tmp_path / "a" / "tensorboard").iterdir())
    weights = load_weights(tmp_path / "a" / "stage1.safetensors")
    assert weights.metadata["steps"] == "6"
    assert Stage1.from_weights(weights).config == settings.network


def test_shipped_weights_are_noted_with_their_sha256(settings, tmp_path):
    run(settings, tmp_path / "a", steps=1)
    (tmp_path / "index.json").write_text('{"small": {"fusion": {"file": "small-fusion.safetensors", "sha256": "0"}}}')
    path = ship("stage1", tmp_path / "a" / "stage1.safetensors", tmp_path)
    noted = json.loads((tmp_path / "index.json").read_text())["small"]
    assert noted["stage1"] == {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert noted["fusion"]["sha256"] == "0"


class Told:
    """Says stop when it is asked for the n-th time."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self) -> bool:
        self.after -= 1
        return self.after == 0


def test_a_stopped_training_goes_on_as_if_it_had_not_been(settings, tmp_path):
    whole = run(settings, tmp_path / "whole")
    out = tmp_path / "stopped"
    stopped = settings.model_copy(update={"out": str(out)})
    task = SuperResolutionTask(stopped, torch.device("cpu"))
    assert train(task, stopped, Context(told_to_stop=Told(3))) == 3
    assert not (out / "stage1.safetensors").exists()
    assert run(settings, out) == whole
    one, other = (load_weights(folder / "stage1.safetensors").state_dict for folder in (out, tmp_path / "whole"))
    assert all(torch.equal(one[key], other[key]) for key in other)


def test_lines_after_the_checkpoint_are_written_anew(settings, tmp_path):
    whole = run(settings, tmp_path / "whole")
    out = tmp_path / "out"
    run(settings, out)
    with (out / "losses.csv").open("a") as file:
        file.write("7,nonsense\n8")  # as a killed process may leave it
    assert run(settings, out) == whole


def test_a_loss_that_is_no_number_ends_the_training(settings, tmp_path):
    with pytest.raises(DivergedError, match=r"step \d: the loss is not a number any more"):
        run(settings, tmp_path / "a", rate=1e30, clip=1e30, warm_up=1)


def test_another_network_is_refused(settings, tmp_path):
    run(settings, tmp_path / "a", steps=1)
    other = settings.network.__class__.from_dict({**TINY, "rrdb": {"channels": 12, "blocks": 1, "growth": 4}})
    with pytest.raises(ConfigError, match="another network"):
        run(settings, tmp_path / "a", network=other)


def test_images_too_many_for_memory_are_read_when_drawn(settings, tmp_path):
    whole = run(settings, tmp_path / "a", steps=2)
    assert run(settings, tmp_path / "b", steps=2, memory_gb=1e-9) == whole


def test_training_goes_on_from_weights(settings, tmp_path):
    run(settings, tmp_path / "a", steps=1)
    task = SuperResolutionTask(
        settings.model_copy(update={"start": str(tmp_path / "a" / "stage1.safetensors")}), torch.device("cpu")
    )
    task.build()
    exported = load_weights(tmp_path / "a" / "stage1.safetensors").state_dict
    assert torch.equal(task.learning.model.state_dict()["first_conv_x.weight"], exported["ema.first_conv_x.weight"])


@pytest.mark.parametrize("precision", ["mixed", "float32", "bfloat16"])
def test_published_losses_are_positive_and_reach_every_network(precision):
    torch.manual_seed(0)
    stage1 = Stage1(Stage1Config.from_dict(TINY), training=True).train()
    rng = np.random.default_rng(0)
    hr = torch.rand(2, 2, 3, 64, 64)
    lr = published_degrade(hr, rng)
    assert lr.shape == (2, 2, 3, 16, 16)
    assert torch.allclose(lr * 255, (lr * 255).round(), atol=1e-3)
    losses = published_losses(stage1, hr[:, 0], lr, torch.Generator().manual_seed(0), precision)
    assert all(float(loss.detach()) > 0 for loss in losses.values())
    sum(losses.values()).backward()
    for part in (stage1.encoder.conv_first, stage1.model.first_conv_x, stage1.E.encoder_q.E[0]):
        assert part.weight.grad is not None, "no gradient arrives"


@pytest.fixture
def scenes(scene, tmp_path) -> Path:
    """The made-up scene three times, as files."""
    for name in ("one", "two", "three"):
        folder = tmp_path / "s2" / name
        folder.mkdir(parents=True)
        for band, values in scene.bands.items():
            shape = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": "uint16"}
            with rasterio.open(folder / f"{band}.tif", "w", driver="GTiff", **shape) as file:
                file.write((values * 10_000).numpy().astype("uint16"), 1)
    return tmp_path / "s2"


def test_fusion_trains_on_scenes(scenes, tmp_path):
    settings = FusionSettings.model_validate(
        {
            "out": str(tmp_path / "out"),
            "data": [{"path": str(scenes), "held_out": ["three"]}],
            "steps": 20,
            "batch": 1,
            "truth_px": 48,
            "warm_up": 2,
            "samples_every": 100,
        }
    )
    lines = run(settings, tmp_path / "out")
    totals = [float(line.split(",")[1]) for line in lines[1:]]
    assert sum(totals[-5:]) < sum(totals[:5])
    assert load_weights(tmp_path / "out" / "fusion.safetensors").kind == "fusion_folded"
    assert (tmp_path / "out" / "samples" / "step-000020.png").exists()


def test_a_scene_with_gaps_is_left_out(scenes, tmp_path):
    with rasterio.open(scenes / "one" / "B05.tif", "r+") as file:
        values = file.read(1)
        values[3, 3] = 0
        file.write(values, 1)
    training, held_out = load_scenes([SceneSource(path="s2", held_out_every=2)], tmp_path)
    assert {scene.name for scene in (*training, *held_out)} == {"three", "two"}


def test_sen2naip_is_split_by_roi(tmp_path):
    for roi in ("ROI_0000", "ROI_0001"):
        write_image(tmp_path / "cross-sensor" / roi / "hr.tif", bands=4)
        write_image(tmp_path / "cross-sensor" / roi / "lr.tif", bands=4, size=40, dtype="uint16", high=4000)
    for part, roi in (("synthetic_1", "ROI_0007"), ("synthetic_2", "ROI_0009")):
        for when in ("early", "late"):
            write_image(tmp_path / part / roi / when / f"{when}_tile.tif", bands=4)
    source = ImageSource(path=".", layout="sen2naip", held_out_every=2)
    training, held_out = find_all([source], tmp_path)
    assert {file.place for file in training} == {"ROI_0000", "ROI_0007"}
    assert [file.path.name for file in held_out] == ["hr.tif", "early_tile.tif", "late_tile.tif"]
    image = read_image(training[0])
    assert (image.gsd_m, image.display, image.pixels.shape) == (2.5, True, (3, 160, 160))


def test_worldstrat_is_split_by_site(tmp_path):
    for aoi in ("Amnesty POI-1-1-1", "Amnesty POI-1-1-2", "Landcover-773616"):
        write_image(tmp_path / "hr_dataset" / "12bit" / aoi / f"{aoi}_ps.tiff", 4, dtype="uint16", high=5000)
        write_image(tmp_path / "hr_dataset" / "12bit" / aoi / f"{aoi}_rgb.png", 3)
    write_image(tmp_path / "hr_dataset" / "UNHCR-GHAs003590" / "UNHCR-GHAs003590_rgb.png", 3)
    source = ImageSource(path="hr_dataset", layout="worldstrat", held_out=("Amnesty*",), resample="target")
    training, held_out = find_all([source], tmp_path)
    assert [file.path.name for file in training] == ["Landcover-773616_ps.tiff", "UNHCR-GHAs003590_rgb.png"]
    assert {file.place for file in held_out} == {"Amnesty POI-1"}
    sharp, picture = (read_image(file) for file in training)
    assert not sharp.display
    assert 0.3 < sharp.pixels.max() < 0.51  # DN / 10⁴
    assert picture.display
    level = PatchSource.build([sharp], 64).levels[0]()
    assert level.pixels.shape == (3, 96, 96), "160 px at 1.5 m are 96 px at 2.5 m"


def test_gsd_comes_from_the_index_where_it_states_a_number(tmp_path):
    for name in ("a.tif", "b.tif"):
        write_image(tmp_path / "hr" / name)
    (tmp_path / "hr" / "index.csv").write_text('file,gsd_m\na.tif,1.0\nb.tif,"2.0-2.5 (estimated)"\n')
    source = ImageSource(path="hr", gsd_m=2.25, index="hr/index.csv")
    assert [file.gsd_m for file in find_all([source], tmp_path)[0]] == [1.0, 2.25]


@pytest.mark.parametrize(
    ("make", "source", "kind", "said"),
    [
        ("nothing", {}, ConfigError, "no such folder"),
        ("text", {}, ConfigError, "no images there"),
        ("damaged", {}, ReadError, "a.tif: cannot be read"),
        ("grey", {}, ConfigError, r"data\[0\]\.rgb: .*1 band"),
        ("image", {"held_out": ("*",)}, ConfigError, "every image is held out"),
        ("image", {"index": "hr/index.csv"}, ConfigError, "index"),
        ("image", {"layout": "sen2naip"}, ConfigError, "ROI_"),
        ("image", {"layout": "worldstrat"}, ConfigError, "_ps.tiff"),
    ],
)
def test_unusable_data_are_named(tmp_path, make, source, kind, said):
    if make == "text":
        (tmp_path / "hr").mkdir()
        (tmp_path / "hr" / "read.me").write_text("no image")
    elif make == "damaged":
        (tmp_path / "hr").mkdir()
        (tmp_path / "hr" / "a.tif").write_bytes(b"II*\0 no tiff at all")
    elif make != "nothing":
        write_image(tmp_path / "hr" / "a.tif", bands=1 if make == "grey" else 3)
    with pytest.raises(kind, match=said):
        find_all([ImageSource(path="hr", gsd_m=2.5, **source)], tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: 5", "out: missing"),
        ("out: o\ndata: [{path: hr}]", r"data\[0\].gsd_m: found null"),
        ("out: o\ndata: [{path: hr, gsdm: 1}]", r"data\[0\].gsdm: unknown key, did you mean 'gsd_m'"),
        ("out: o\ndata: [{path: hr, gsd_m: 2}]\nworkers: {cpu: 2}", "workers.cpu: unknown key, did you mean 'cpus'"),
        ("out: o\ndata: [{path: hr, gsd_m: 2}]\nbatch: 3", "batch: found 3, expected a power of 2"),
        ("out: o\ndata: [{path: hr, gsd_m: 2}]\nnetwork: large", "network: found 'large', expected 'small'"),
        ("out: o\ndata: [{path: hr, gsd_m: 2}]\nnetwork: {unet: {depth: 2}}", "unet.depth"),
        ("out: o\ndata: []", "data: found"),
        ("- a list", "found a list"),
        ("out: [", "not valid YAML"),
    ],
)
def test_wrong_settings_are_named(tmp_path, text, said):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_settings(SuperResolutionSettings, tmp_path / "t.yaml")


def test_paths_are_relative_to_the_file_and_options_replace_them(tmp_path):
    (tmp_path / "t.yaml").write_text("out: o\nroot: data\ndata: [{path: hr, gsd_m: 2}]")
    assert load_settings(SuperResolutionSettings, tmp_path / "t.yaml").root == str(tmp_path / "data")
    changed = load_settings(SuperResolutionSettings, tmp_path / "t.yaml", {"root": Path("/there"), "steps": 9})
    assert (changed.root, changed.steps, changed.out) == ("/there", 9, str(tmp_path / "o"))
