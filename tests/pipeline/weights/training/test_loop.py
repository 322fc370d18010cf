"""A training leaves weights, continues where it was, and ends when it diverges."""

from __future__ import annotations

import pytest
import torch
from tiny_training import run

from difffusr.kernels.networks.stage1 import Stage1
from difffusr.kernels.weights.checkpoints import load_weights
from difffusr.pipeline.weights.training.loop import Context, DivergedError, train
from difffusr.pipeline.weights.training.super_resolution import SuperResolutionTask

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


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


def test_a_loss_that_is_no_number_ends_the_training(settings, tmp_path):
    with pytest.raises(DivergedError, match=r"step \d: the loss is not a number any more"):
        run(settings, tmp_path / "a", rate=1e30, clip=1e30, warm_up=1)
