"""What a worker that reads chips brings into memory."""

from __future__ import annotations

import pytest
from fresh_python import packages_with

#: What takes seconds to import or hundreds of megabytes, and what only a search or a table needs.
NOT_FOR_READING = {
    "torch", "ray", "dask", "geopandas", "pandas", "pyarrow", "pystac", "pystac_client", "stac_geoparquet",
}  # fmt: skip


@pytest.mark.parametrize("name", ["chip", "item", "windows", "providers"])
def test_a_worker_that_reads_chips_imports_neither_networks_nor_cluster_nor_catalogue(name: str) -> None:
    assert not packages_with(f"difffusr.pipeline.scenes.{name}") & NOT_FOR_READING
