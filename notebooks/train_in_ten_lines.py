"""A network that guesses infrared from colours, learned from patches. Needs `pip install difffusr torch`."""

import os

import torch
from torch.utils.data import DataLoader

from difffusr.pipeline.readers import CubePatches

patches = CubePatches(os.environ.get("CUBE", "demo-output/cube.zarr"), size=32, least=0.5, count=256, seed=1)
colours, infrared = (
    [patches.reader.bands.index(band) for band in ("B02", "B03", "B04")],
    patches.reader.bands.index("B08"),
)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 1, 3, padding=1))
optimizer, losses = torch.optim.Adam(net.parameters(), 3e-3), []
for batch in DataLoader(patches, batch_size=8):
    image = batch["reflectance"]
    loss = (net(image[:, colours]) - image[:, [infrared]]).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"mean error {losses[0]:.3f} at first, {losses[-1]:.3f} after {len(losses)} batches of {len(image)}")
