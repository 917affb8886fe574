"""An image is rebuilt from its gradient alone: `python pipelines/poisson_image.py IMAGE PNG`.

The same as `sdfrecon image poisson` of a picture without transparency: what to read, and to change, first.
"""

import sys

from sdfrecon.images import align, psnr
from sdfrecon.imaging import DERIVED, from_gradient, solve
from sdfrecon.pictures import read_image, write_image

image_path, picture_path = sys.argv[1:]

# The gradients between every four pixels, from their differences, are all that the network is told.
pixels = read_image(image_path)
known = from_gradient(pixels)

# The network's gradient is fitted to them; its value, which nobody asked for, then is the image but for a constant.
field = solve(pixels.shape, DERIVED, progress=True, **known)

result = align(field.render(*pixels.shape[:2]), pixels)
write_image(picture_path, result)
print(f"{picture_path}: PSNR {psnr(result, pixels):.1f} dB, aligned by mean and variance")
