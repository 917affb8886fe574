"""One image is put into another, seamlessly: `python pipelines/blend_images.py SOURCE TARGET MASK RIGHT DOWN PNG`.

The same as `sdfrecon image blend` of pictures without transparency: what to read, and to change, first.
"""

import sys

from sdfrecon.images import rgb
from sdfrecon.imaging import BLENDED, Composition, solve
from sdfrecon.pictures import read_image, write_image

source_path, target_path, mask_path, right, down, picture_path = sys.argv[1:]
source, target, mask = (rgb(read_image(path)) for path in (source_path, target_path, mask_path))

# Inside the mask the source's gradients are known, outside it the target's colours; those near it count once more.
task = Composition.of(source, target, mask.mean(axis=2) > 0.5, (int(right), int(down)), "import")

# One network that fulfils both; what it makes of the inside goes into the target.
field = solve(task.target.shape, BLENDED, progress=True, **task.known)
write_image(picture_path, task.pasted(task.composite(field.render(*task.inside.shape)), target))
