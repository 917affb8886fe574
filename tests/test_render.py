from dataclasses import replace

import numpy as np
import pytest
from test_meshing import Ball

from sdfrecon.demo import motorcycle
from sdfrecon.meshing import extract_mesh
from sdfrecon.render import render, three_sides

BALL = extract_mesh(Ball(), 48)


def test_a_sphere_is_a_lit_disc_that_fills_the_picture() -> None:
    image = render(BALL, (0, 1, 0), (0, 0, 1), size=200)
    assert image.shape == (200, 200, 3)
    drawn = (image < 250).all(axis=-1)
    assert drawn.mean() == pytest.approx(np.pi / 4 / 1.04**2, rel=0.02)
    rows, columns = np.nonzero(drawn)
    assert (rows.mean(), columns.mean()) == pytest.approx((99.5, 99.5), abs=1)
    assert image[60, 85].mean() > image[170, 150].mean() + 50, "lit from above left"


def test_colours_are_shown_and_backs_are_dark_red() -> None:
    blue = replace(BALL, colors=np.tile([0, 0, 255], (len(BALL.vertices), 1)))
    red, green, blueness = render(blue, (1, 0, 0), (0, 0, 1), 50)[25, 25]
    assert red == green == 0 < 100 < blueness
    turned = render(replace(BALL, faces=BALL.faces[:, ::-1]), (1, 0, 0), (0, 0, 1), 50)[25, 25].astype(int)
    assert turned[0] > 3 * turned[1]


def test_a_flat_thing_gets_a_flat_picture() -> None:
    flat = replace(BALL, vertices=BALL.vertices * [1, 1, 0.25], normals=None)
    assert render(flat, (0, 1, 0), (0, 0, 1), 200).shape == (50, 200, 3)
    sides = three_sides(flat, size=60)
    assert sides.shape[0] == 60
    assert sides.shape[1] > 120


def test_the_embedded_scan_is_oriented_coloured_and_in_millimetres() -> None:
    cloud = motorcycle()
    assert len(cloud) > 250_000
    assert cloud.normals is not None
    assert cloud.colors is not None
    assert (np.einsum("nd,nd->n", cloud.normals, -cloud.points) > 0).all(), "towards the camera at the origin"
    depth = -cloud.points[:, 2]
    assert 2000 < depth.min() < depth.max() < 7000
