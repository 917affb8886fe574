"""Makes data/ring_and_ball.ply: `python data/make_scan.py`. Needs trimesh to write it and nothing else."""

from pathlib import Path

import numpy as np
import trimesh

from sdfrecon.shapes import RING_AND_BALL, Scanner, caster

HALF = np.array([0.95, 0.95, 0.35])

cloud = Scanner(cameras=10, pixels=80).scan(caster(RING_AND_BALL, far=10.0), -HALF, HALF, np.random.default_rng(20))
mesh = trimesh.Trimesh(cloud.points, np.empty((0, 3), int), vertex_normals=cloud.normals, process=False)
mesh.export(Path(__file__).with_name("ring_and_ball.ply"), vertex_normal=True)
print(f"{len(cloud):,} points")
