"""A scan becomes a mesh, stage by stage: `python pipelines/reconstruct.py SCAN MESH`.

The same as `sdfrecon reconstruct` of a scan, without its checkpoints and messages: what to read, and to change, first.
"""

import sys

import torch

from sdfrecon.cleaning import clean
from sdfrecon.field import Field
from sdfrecon.files import read_cloud, write_mesh
from sdfrecon.finishing import finish
from sdfrecon.fit import fit
from sdfrecon.frame import Frame
from sdfrecon.presets import PRESETS, suited
from sdfrecon.problems import surface
from sdfrecon.siren import Siren

scan_path, mesh_path = sys.argv[1:]
generator = torch.Generator("cuda" if torch.cuda.is_available() else "cpu").manual_seed(0)

# Points and outward normals in the scan's own units; what is not finite, has no normal or comes twice is dropped.
cloud, _ = clean(read_cloud(scan_path))

# The similarity into the cube [-1, 1]^3, and what the signed distance must fulfil there: be zero on the points, with
# their normals as its gradient; grow by one for each unit everywhere; have the right sign beside the surface. How fine
# and how true to the points it may be is read off the points: their number, spacing and noise.
frame = Frame.around(cloud)
unit = frame.to_unit(cloud)
config = suited(unit, PRESETS["draft"])
assert config.surface is not None
problem = surface(unit, config.surface, generator)

# A network of sines, the first ones as fine as the points are dense, fitted to that.
siren = Siren(3, 1, config.siren, generator)
siren = fit(problem, siren, config.fit, generator, progress=True)

# It now is the shape, at any point and any resolution. Its zero level, without what no data support, is the mesh.
field = Field(siren, frame)
mesh, _ = finish(field.mesh(resolution=256), cloud, cube=frame)
write_mesh(mesh_path, mesh)
print(
    f"{mesh_path}: {len(mesh.faces):,} triangles; at the first point the distance is {field.distance(cloud.points[:1])}"
)
