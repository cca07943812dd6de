"""What importing the package loads, and what it leaves unchanged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import clay_model

FOREIGN = [
    "dagster",
    "rasterio",
    "osgeo",
    "s3fs",
    "obstore",
    "fsspec",
    "boto3",
    "botocore",
    "pyarrow",
    "pyproj",
    "clay_assets",
]

IMPORTED = """
import json, sys
import numpy, torch
before = set(sys.modules)
import clay_model
import clay_model.embed, clay_model.checkpoint, clay_model.accelerate
print(json.dumps(sorted({name.split(".")[0] for name in set(sys.modules) - before})))
"""

STATE = """
import datetime, hashlib, json, logging, os, sys, warnings
import numpy, torch

def state():
    return {
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "default": (str(torch.get_default_dtype()), str(torch.get_default_device())),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "precision": (
            torch.get_float32_matmul_precision(),
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
            torch.backends.cudnn.allow_tf32,
        ),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic),
        "benchmark": torch.backends.cudnn.benchmark,
        "backends": (torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled),
        "attention": (
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
        ),
        "flushes denormals": (torch.tensor([1e-40]) * 1).item() == 0,
        "random numbers": hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        "NumPy's random numbers": hashlib.sha256(numpy.random.get_state()[1].tobytes()).hexdigest(),
        "NumPy's errors": numpy.geterr(),
        "compiler imported": "torch._dynamo" in sys.modules,  # takes seconds
        "warnings": len(warnings.filters),
        "logging": (len(logging.root.handlers), logging.root.level),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
    }

states = {"before": state()}
from clay_model import load_encoder
states["imported"] = state()
for precision in ("fp32", "bf16"):
    encoder = load_encoder(sys.argv[1], "cpu", precision)
    states["loaded as " + precision] = state()
    shape = (1, len(encoder.spec.bands), encoder.spec.window_size, encoder.spec.window_size)
    encoder.embed(numpy.zeros(shape), lonlat=[(0, 0)], dates=[datetime.date(2020, 1, 1)])
    states["embedded as " + precision] = state()
print(json.dumps(states))
"""


def run(program: str, *arguments: str | Path) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_of_dagster_gdal_or_s3() -> None:
    brought = json.loads(run(IMPORTED))
    assert "clay_model" in brought
    assert not set(brought) & set(FOREIGN)


def test_importing_the_package_or_its_specs_loads_no_torch() -> None:
    program = "import sys, clay_model, clay_model.spec; clay_model.BANDS; print('torch' in sys.modules)"
    assert run(program).strip() == "False"


@pytest.mark.parametrize("checkpoint", ["tiny_checkpoint", "v15_checkpoint"])
def test_importing_loading_and_embedding_change_no_global_state(
    checkpoint: str, request: pytest.FixtureRequest
) -> None:
    states = json.loads(run(STATE, request.getfixturevalue(checkpoint)))
    before = states.pop("before")
    assert len(states) == 5
    changed = {
        (when, name): (before[name], state[name])
        for when, state in states.items()
        for name in before
        if state[name] != before[name]
    }
    assert not changed


@pytest.mark.parametrize("name", clay_model.__all__)
def test_public_name_exists(name: str) -> None:
    assert getattr(clay_model, name) is not None


def test_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'clay_model' has no attribute 'Decoder'"):
        clay_model.Decoder  # noqa: B018 - the access is the test
