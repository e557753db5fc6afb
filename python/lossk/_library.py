"""Loads the compiled libraries: lossk._C always, _cuda.so where both it and torch's CUDA are there."""

from pathlib import Path

import torch  # before _C, which needs libtorch_cpu.so to be loaded already

from . import _C

_CUDA_LIBRARY = Path(_C.__file__).with_name("_cuda.so")
_HAS_CUDA = torch.version.cuda is not None and _CUDA_LIBRARY.exists()
if _HAS_CUDA:
    torch.ops.load_library(_CUDA_LIBRARY)


@torch.library.register_fake("lossk::gpu_arch")
def _(like):
    return like.new_empty(1, dtype=torch.int32)


def build_info() -> dict:
    """What was built: version, torch (built against), cpu (kernel set per dtype), cuda (None, or toolkit and archs)."""
    info = dict(_C.build_info())
    info["cuda"] = None
    if _HAS_CUDA:
        toolkit, archs = torch.ops.lossk.cuda_build_info()
        info["cuda"] = {"toolkit": toolkit, "archs": archs}
    elif _CUDA_LIBRARY.exists():
        info["cuda"] = {"toolkit": "built, not loaded: torch here is a CPU build", "archs": ""}
    return info


def explain_missing_cuda(*ops: str) -> None:
    """A CUDA tensor sent to an op without a CUDA kernel gets a reason, not torch's list of backends."""
    for op in ops:
        if torch._C._dispatch_has_kernel_for_dispatch_key(f"lossk::{op}", "CUDA"):
            continue

        def missing(*args, op=op, **kwargs):
            if _HAS_CUDA:
                raise RuntimeError(f"{op}: lossk has no CUDA kernel for it yet; move the tensors to the CPU")
            raise RuntimeError(
                f"{op}: lossk was built without GPU kernels (no nvcc at build time). "
                "Reinstall with nvcc on PATH: pip install -v --no-build-isolation ."
            )

        torch.library.impl(f"lossk::{op}", "CUDA", missing)
