"""Browsers train a PyTorch module, and PyTorch has the same model afterwards."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "pytorch_digits.py"


@pytest.mark.browser
def test_a_module_that_browsers_trained_predicts_the_same_in_pytorch(tmp_path: Path) -> None:
    file = tmp_path / "digits.safetensors"
    command = [sys.executable, "-m", "services.cli", "up", str(EXAMPLE), "--browsers", "2", "--port", "0", "--json"]
    done = subprocess.run([*command, "--out", str(file)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["metrics"]["accuracy"] >= 0.95

    example = SimpleNamespace(**runpy.run_path(str(EXAMPLE)))
    example.load_weights(example.module, file)
    images, labels = example.images[example.held_out], example.labels[example.held_out]
    with torch.no_grad():
        logits = example.module.eval()(torch.from_numpy(images)).numpy()
    assert np.mean(logits.argmax(1) == labels) == pytest.approx(outcome["metrics"]["accuracy"], abs=1e-6)
    np.testing.assert_allclose(example.apply(load_file(file), images), logits, rtol=1e-4, atol=1e-4)
    example.module.load_state_dict({name: torch.from_numpy(each) for name, each in load_file(file).items()})
