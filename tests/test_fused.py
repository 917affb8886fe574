"""The kernels for a large batch on a GPU, here where there is none, in Triton's interpreter. On one: test_tape.py."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import torch
import triton.language as tl
from triton.runtime import interpreter
from sdfrecon import fused, kernels
from sdfrecon.siren import Siren, SirenConfig
from sdfrecon.tape import Tape

kernels.HALF, fused.HALF = tl.constexpr(tl.float16), torch.float16  # NumPy, which interprets, has no bfloat16
patch = interpreter._patch_lang_tensor  # of Triton 3.6
def patched(tensor, scope):  # NumPy 2.4 makes no number of an array of one by itself, as Triton 3.6 asks it to
    patch(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())
interpreter._patch_lang_tensor = patched
for tile in (fused.FIRST, fused.VALUES, fused.ROWS, fused.SLOPES, fused.ERRORS, fused.PRODUCTS):
    tile.update({"BM": 16, "BN": 16 if tile is fused.SLOPES else 32} | ({"BK": 32} if "BK" in tile else {}))
fused.LEAST, fused.PROGRAMS = 32, 5
d, width, hidden, count = map(int, sys.argv[1:])
drawn = torch.Generator().manual_seed(0)
net, found = Siren(d, 1, SirenConfig(width, hidden), drawn), []
points = torch.rand(count, d, generator=drawn) * 2 - 1
towards = torch.randn(count, d, generator=drawn)
for tape in (Tape(net), Tape(net, True)):
    net.zero_grad()
    if found:
        tape.dtype, tape._fused = torch.float16, lambda: fused.Fused(tape._room)
    jet = tape.jet(points)
    (jet.value.sin().sum() + (jet.gradient[:, 0] * towards).sum()).backward()
    tape.backward()
    found.append([jet.value.detach(), jet.gradient.detach(), *(p.grad for p in net.parameters())])
print(*(float((b - a).norm() / a.norm()) for a, b in zip(*found)))
"""


@pytest.mark.parametrize(("d", "width", "hidden", "count"), [(3, 48, 2, 100), (2, 40, 1, 50), (3, 64, 3, 64)])
def test_the_kernels_do_what_the_tape_does(d: int, width: int, hidden: int, count: int) -> None:
    pytest.importorskip("triton", reason="Triton, which interprets the kernels, is not there")
    command = [sys.executable, "-c", SCRIPT, *map(str, (d, width, hidden, count))]
    env = os.environ | {"TRITON_INTERPRET": "1"}
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    value, *derivatives = map(float, printed.split())
    assert value < 3e-6  # of two halves for each factor: one alone has 3e-4
    assert max(derivatives) < 2e-3
