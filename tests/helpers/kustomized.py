"""Manifests as `kubectl apply -k` sends them."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from beside import ROOT

KUBERAY = ROOT / "infra" / "kuberay"

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH")


@lru_cache
def rendered(folder: Path) -> list[dict[str, Any]]:
    """The objects that a folder with a kustomization.yaml stands for."""
    ran = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return [document for document in yaml.safe_load_all(ran.stdout) if document]


@lru_cache
def rendered_with(base: str, components: tuple[str, ...]) -> list[dict[str, Any]]:
    """The objects of an overlay of somebody's own: one of the project's, or its base, with components."""
    with TemporaryDirectory() as folder:
        place = Path(os.path.relpath(KUBERAY, folder))
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [str(place / base)],
            "components": [str(place / "components" / name) for name in components],
        }
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return rendered(Path(folder))
