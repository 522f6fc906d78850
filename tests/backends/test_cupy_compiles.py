"""The CUDA source compiles, for every pair of element types, wherever there is a compiler for it."""

from __future__ import annotations

import shutil
import subprocess
from importlib.resources import files
from itertools import product
from pathlib import Path

import pytest

compiled = pytest.importorskip("iwp_cupy.compiled", reason="the backend's package is not installed")

PAIRS = [(a, b) for a, b in product(compiled.ELEMENTS.values(), repeat=2) if (a == "double") == (b == "double")]

ADDED_BY_CUPY = ("-ftz=true", "--device-as-default-execution-space")
"""What CuPy 14 gives NVRTC beside a module's own options."""

pairs = pytest.mark.parametrize(("first", "second"), PAIRS)


def options(first: str, second: str) -> tuple[str, ...]:
    """Return the backend's options for a pair of element types."""
    return (*compiled.OPTIONS, f"-DFIRST={first}", f"-DSECOND={second}")


def source() -> Path:
    """Return the path of the CUDA source."""
    return Path(str(files("iwp_cupy").joinpath("kernels.cu")))


@pairs
def test_nvcc_accepts_the_kernels_without_a_warning(first: str, second: str, tmp_path: Path) -> None:
    """For the oldest architecture that it knows."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on the PATH")
    known = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True)
    oldest = known.stdout.split()[0]
    target = tmp_path / "kernels.ptx"
    command = [nvcc, "-ptx", f"-arch={oldest}", "-Werror=all-warnings", *options(first, second), "-o", str(target)]

    result = subprocess.run([*command, str(source())], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    assert all(f".entry {name}(" in target.read_text() for name in compiled.KERNELS)


@pairs
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_nvrtc_accepts_the_kernels_as_cupy_hands_them_over(first: str, second: str, architecture: str) -> None:
    """Needs CuPy's binding and the compiler's library, but no device."""
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="CuPy, whose NVRTC this uses, is not installed")
    try:
        nvrtc.getVersion()
    except Exception as error:  # each platform's loader raises its own
        pytest.skip(f"CuPy finds no NVRTC: {error}")
    program = nvrtc.createProgram(source().read_text(encoding="utf-8"), "kernels.cu", (), ())

    try:
        nvrtc.compileProgram(program, (*options(first, second), *ADDED_BY_CUPY, f"-arch={architecture}"))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))

    assert len(nvrtc.getCUBIN(program)) > 0
