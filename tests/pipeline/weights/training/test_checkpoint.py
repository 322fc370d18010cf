"""A checkpoint continues the network that wrote it, and no other."""

from __future__ import annotations

import pytest
from tiny_training import TINY, run

from difffusr.pipeline.ground.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_another_network_is_refused(settings, tmp_path):
    run(settings, tmp_path / "a", steps=1)
    other = settings.network.__class__.from_dict({**TINY, "rrdb": {"channels": 12, "blocks": 1, "growth": 4}})
    with pytest.raises(ConfigError, match="another network"):
        run(settings, tmp_path / "a", network=other)
