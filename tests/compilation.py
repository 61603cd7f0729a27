"""Flags of XLA for tests: compiling is most of their time, and what they check does not depend on how well it is done."""

from __future__ import annotations

from pathlib import Path

import jaxlib

QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1"
"""Flags; ``XLA_FLAGS= pytest`` compiles as users do, and so do the slow tests, which compute more than they compile."""
if any(Path("/dev").glob("nvidia[0-9]*")):
    # On a GPU, XLA (jax 0.11.2) computes wrong numbers with the first two of these (a sum over neighbours of the Lennard-Jones
    # potential, among others), and right ones without. Trying out kernels takes a minute for each program.
    QUICK = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
elif jaxlib.version.__version_info__ < (0, 11):
    # The emitters that came before compile twice as fast. Later versions lack them, and end at flags they do not know.
    QUICK += " --xla_cpu_use_fusion_emitters=false"
