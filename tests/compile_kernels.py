"""Compiles every kernel for a GPU that need not be there; prints their names. usage: compile_kernels.py CAPABILITY"""

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from zeta_bench.ops import library, library_topk, morton_triton, search_triton
from zeta_bench.ops.options import MEANS, Options


class Absent:
    """Stands in for a driver: kernels are compiled for its target, and nothing is launched."""

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=None):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", int(sys.argv[1]), 32)


def attend(N=256, H=2, Hv=2, D=3, W=64, dtype=torch.bfloat16, pad=False, content=0, **settings):
    q, k = torch.rand(1, H, N, D), torch.rand(1, H, N, D)
    v, gamma = torch.randn(1, Hv, N, W, dtype=dtype, requires_grad=True), torch.full((H,), 0.5)
    valid = torch.ones(1, N, dtype=torch.bool) if pad else None
    o = {"topk": 32, "causal": True, "chunk": 1, "bits": 31 // D, "mean": 0, "local_window": 0, "offset": 0}
    options = Options(**{**o, "deterministic": False, **settings})
    wide = tuple(torch.randn(1, H, N, content, dtype=dtype, requires_grad=True) for _ in range(2)) if content else None
    library.zeta_attention(q, k, v, gamma, valid, options, wide).sum().backward()
    index = torch.zeros(1, H, N, 4, dtype=torch.int32)
    library_topk.topk_attention(q, k, v, index, gamma, MEANS[options.mean], valid, 0).sum().backward()


def main():
    triton.runtime.driver.set_active(Absent())
    compiled, run = set(), JITFunction.run

    def compile_only(self, *args, grid, warmup, **options):
        run(self, *args, grid=grid, warmup=True, **options)
        compiled.add(self.__name__)

    JITFunction.run = compile_only
    attend()
    attend(mean=1, local_window=8, pad=True, deterministic=True, W=128)
    attend(mean=2, causal=False, dtype=torch.float32, D=8, W=80)
    attend(dtype=torch.float16, W=256, bits=21, N=2000)
    attend(content=64)
    attend(content=80, W=128, dtype=torch.float32, deterministic=True)
    attend(content=16, W=256, dtype=torch.float16, local_window=8, pad=True)
    attend(content=64, local_window=32, causal=False)
    codes = torch.zeros(1, 2, 300, dtype=torch.int64)
    search_triton.zorder_search(codes, codes, 8, True, 1, None, 0)
    morton_triton.encode(torch.rand(10, 3), 10, -1.0, 1.0)
    print(*sorted(compiled))


if __name__ == "__main__":
    main()
