"""An image becomes a function: `python pipelines/fit_image.py IMAGE PNG`, at twice the image's size.

The same as `sdfrecon image fit` and `render` of a picture without transparency: what to read, and to change, first.
"""

import sys

import torch

from sdfrecon.fit import fit
from sdfrecon.imagefield import ImageField, image_frame
from sdfrecon.imaging import fitted
from sdfrecon.pictures import read_image, write_image
from sdfrecon.problems import image
from sdfrecon.siren import Siren

image_path, picture_path = sys.argv[1:]
generator = torch.Generator("cuda" if torch.cuda.is_available() else "cpu").manual_seed(0)

# Colours (h, w, c) from 0 to 1, of the pixels and interpolated between them.
pixels = read_image(image_path)
height, width, channels = pixels.shape
config = fitted(height, width)
problem = image(image_frame(height, width), config.batch, generator, picture=pixels)

# A network of sines from the place to the colour, fitted to that.
siren = Siren(2, channels, config.siren, generator)
siren = fit(problem, siren, config.fit, generator, progress=True)

# It now is the image, between the pixels too.
field = ImageField(siren, height, width)
write_image(picture_path, field.render(2 * height, 2 * width))
print(f"{picture_path}: at the middle the colour is {field.value([[width / 2, height / 2]])[0].round(3)}")
