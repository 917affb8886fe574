from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from test_meshing import Ball
from torch import Tensor

from sdfrecon.console import pieces
from sdfrecon.finishing import finish
from sdfrecon.frame import Frame
from sdfrecon.geometry import Floats, InputError, Mesh, PointCloud
from sdfrecon.jet import Jet
from sdfrecon.meshing import extract_mesh
from sdfrecon.noise import apart

WHOLE, CELL = extract_mesh(Ball(), 48), 2 / 48


class Below:
    """All below z = 0 is inside, as under terrain."""

    device = torch.device("cpu")

    def value(self, unit: Tensor) -> Tensor:
        return unit[:, 2:]

    def jet(self, unit: Tensor) -> Jet:
        up = torch.tensor([0.0, 0, 1]).expand(len(unit), 1, 3)
        return Jet(self.value(unit), lambda: up)


def seen(share: float, count: int = 4000) -> PointCloud:
    """Points of the ball below the height at which this share of its area lies."""
    points = np.random.default_rng(0).normal(size=(4 * count, 3))
    points *= 0.6 / np.linalg.norm(points, axis=1, keepdims=True)
    points = points[points[:, 2] < 0.6 * (2 * share - 1)][:count]
    return PointCloud(points, points / 0.6)


def with_piece(center: tuple[float, float, float], radius: float) -> Mesh:
    piece = extract_mesh(Ball(radius, center), 48)
    return Mesh(
        np.concatenate([WHOLE.vertices, piece.vertices]),
        np.concatenate([WHOLE.faces, piece.faces + len(WHOLE.vertices)]),
    )


def test_pieces_are_counted_in_words() -> None:
    assert (pieces(WHOLE), pieces(with_piece((0.8, 0, 0), 0.1))) == ("1 piece", "2 pieces")


def test_two_sheets_stay_two_however_far_the_cut() -> None:
    place = np.stack(np.meshgrid(*[np.linspace(-0.9, 0.9, 40)] * 2), axis=-1).reshape(-1, 2)
    corner = np.arange(39 * 40)[np.arange(39 * 40) % 40 < 39]
    flat = np.concatenate([np.stack([corner, corner + a, corner + b], axis=1) for a, b in ((1, 41), (41, 40))])
    points = np.concatenate([np.pad(place, ((0, 0), (0, 1)), constant_values=z) for z in (-0.3, 0.3)])
    normals = np.repeat([[0, 0, -1.0], [0, 0, 1.0]], len(place), axis=0)
    sheets = Mesh(points, np.concatenate([flat, flat + len(place)]))
    for trim in (0.2, 2.0, 20.0):
        mesh, _ = finish(sheets, PointCloud(points, normals), trim)
        np.testing.assert_allclose(mesh.areas.sum(), sheets.areas.sum())
    there = np.linalg.norm(points - [0, 0, 0.3], axis=1) > 0.4  # a hole in one, across from which the other lies
    mesh, _ = finish(sheets, PointCloud(points, normals).select(there), 0.2)
    lower, upper = (mesh.keep_faces(side * mesh.vertices[mesh.faces[:, 0], 2] > 0) for side in (-1, 1))
    np.testing.assert_allclose(lower.areas.sum(), sheets.areas.sum() / 2)
    assert 0.05 < 1 - 2 * upper.areas.sum() / sheets.areas.sum() < np.pi * 0.4**2 / 1.8**2


def test_a_covered_surface_stays_as_it_is() -> None:
    mesh, notes = finish(WHOLE, seen(1.0))
    assert notes == []
    np.testing.assert_array_equal(mesh.faces, WHOLE.faces)


def test_a_closed_object_with_a_hole_stays_closed() -> None:
    mesh, notes = finish(WHOLE, seen(0.9))
    assert mesh.is_watertight
    [note] = notes
    assert note.startswith("holes: ")
    share, distance = (float(word.rstrip("%")) for word in (note.split()[1], note.split()[-3]))
    near = WHOLE.clipped(cKDTree(seen(0.9).points).query(WHOLE.vertices)[0] - distance)
    assert 100 * (1 - near.areas.sum() / mesh.areas.sum()) == pytest.approx(share, abs=0.1)
    assert not finish(WHOLE, seen(0.9), trim=distance)[0].is_watertight


def test_a_surface_goes_on_between_scan_lines_and_ends_behind_the_last() -> None:
    points = seen(1.0, 40_000).points
    height = (np.floor(points[:, 2] / 0.06) + 0.5) * 0.06
    points[:, :2] *= np.sqrt((0.36 - height**2) / np.square(points[:, :2]).sum(axis=1))[:, None]
    points[:, 2] = height
    cloud = PointCloud(points, points / 0.6)
    mesh, notes = finish(WHOLE, cloud)
    assert notes == []
    assert mesh.is_watertight
    lower, [note] = finish(WHOLE, cloud.select(height < 0))
    assert note.startswith("open scan: cut ")
    assert 0 < lower.vertices[:, 2].max() < 0.25
    assert lower.vertices[:, 2].min() < -0.59


def test_a_closed_scan_a_hundred_times_as_dense_on_one_side_stays_closed_and_an_open_one_whole() -> None:
    points, rng = seen(1.0, 60_000).points, np.random.default_rng(1)
    kept = (points[:, 0] > 0) | (rng.random(len(points)) < 0.01)
    cloud = PointCloud(points[kept])
    mesh, [note] = finish(WHOLE, cloud)
    assert float(note.removeprefix("holes: ").split("%")[0]) < 3, "at the seam of the two parts alone"
    assert mesh.is_watertight
    lower, [note] = finish(WHOLE, cloud.select(cloud.points[:, 2] < 0))
    assert note.startswith("open scan: cut ")
    thin = WHOLE.vertices[(WHOLE.vertices[:, 2] < -0.1) & (WHOLE.vertices[:, 0] < -0.1)]
    assert (cKDTree(lower.vertices).query(thin)[0] == 0).mean() > 0.995
    asked, _ = finish(WHOLE, cloud.select(cloud.points[:, 2] < 0), trim=0.02)
    assert (cKDTree(asked.vertices).query(thin)[0] == 0).mean() > 0.95


def test_what_is_cut_has_no_walls_where_the_surface_leaves_the_cube() -> None:
    sheet = np.stack(np.meshgrid(*[np.arange(-0.9, 0.91, 0.1)] * 2, [0.0]), axis=-1).reshape(-1, 3)
    block = extract_mesh(Below(), 128)
    for trim in (None, 0.5):
        mesh, _ = finish(block, PointCloud(sheet), trim, Frame((0, 0, 0), 1.0))
        assert np.abs(mesh.vertices[:, 2]).max() < 1e-3, "walls at the border of the cube"
        assert 0.9 < np.abs(mesh.vertices[:, :2]).max() < 0.951


def test_an_open_scan_is_cut_where_its_data_end() -> None:
    mesh, notes = finish(WHOLE, seen(0.5))
    assert len(notes) == 1
    assert notes[0].startswith("open scan: cut 4")
    assert not mesh.is_watertight
    assert -0.62 < mesh.vertices[:, 2].min() < -0.59
    assert 0 < mesh.vertices[:, 2].max() < 0.12
    limit = float(notes[0].split(" than ")[1].split()[0])
    np.testing.assert_allclose(rim_distance(mesh, seen(0.5)), limit, atol=0.25 * CELL)


def rim_distance(mesh: Mesh, cloud: PointCloud) -> Floats:
    """How far the vertices of the mesh's boundary are from the points."""
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    edges, count = np.unique(edges, axis=0, return_counts=True)
    return cKDTree(cloud.points).query(mesh.vertices[np.unique(edges[count == 1])])[0]


def test_a_hole_is_opened_back_to_half_the_distance_and_a_gap_stays() -> None:
    cap, side = seen(0.9), [0.6, 0, 0]
    cloud = cap.select(np.linalg.norm(cap.points - side, axis=1) > 0.15)
    mesh, _ = finish(WHOLE, cloud, trim=0.2)
    assert mesh.vertices[:, 2].max() < 0.6
    np.testing.assert_allclose(rim_distance(mesh, cloud), 0.1, atol=0.75 * CELL)
    in_gap = WHOLE.vertices[np.linalg.norm(WHOLE.vertices - side, axis=1) < 0.2]
    assert cKDTree(mesh.vertices).query(in_gap)[0].max() == 0


@pytest.mark.parametrize(("center", "radius"), [((0.85, 0, 0.0), 0.1), ((0, 0, 0.0), 0.2), ((0, 0.55, 0.0), 0.02)])
def test_pieces_without_data_go(center: tuple[float, float, float], radius: float) -> None:
    mesh, notes = finish(with_piece(center, radius), seen(1.0))
    assert notes == ["removed 1 floating piece, on which none of the points lie"]
    np.testing.assert_array_equal(mesh.vertices, WHOLE.vertices)


def test_a_bubble_that_catches_a_few_noisy_points_goes() -> None:
    noise = np.array([[0.85, 0, 0.1], [0.85, 0.1, 0], [0.75, 0, 0]])
    cloud = PointCloud(np.concatenate([seen(1.0).points, noise]))
    mesh, _ = finish(with_piece((0.85, 0, 0.0), 0.1), cloud)
    np.testing.assert_array_equal(mesh.vertices, WHOLE.vertices)


def test_a_speck_around_one_outlier_goes() -> None:
    cloud = PointCloud(np.concatenate([seen(1.0).points, [[0.8, 0, 0.0]]]))
    mesh, _ = finish(with_piece((0.8, 0, 0.0), 0.01), cloud)
    np.testing.assert_array_equal(mesh.vertices, WHOLE.vertices)


def test_a_piece_that_was_seen_from_farther_away_stays() -> None:
    cloud = PointCloud(np.concatenate([seen(1.0, 180_000).points, seen(1.0, 1050).points / 4 + [0.8, 0, 0]]))
    assert finish(with_piece((0.8, 0, 0.0), 0.15), cloud)[0].components().max() == 1


def test_pieces_with_data_stay() -> None:
    both = seen(1.0)
    ball = PointCloud(both.points[:200] / 6 + [0.8, 0, 0], both.normals[:200])
    cloud = PointCloud(np.concatenate([both.points, ball.points]))
    assert finish(with_piece((0.8, 0, 0.0), 0.1), cloud)[0].components().max() == 1


@pytest.mark.parametrize(("share", "trim"), [(1.0, 0.5), (0.9, 0.3)])
def test_a_small_piece_that_no_cut_touched_stays(share: float, trim: float) -> None:
    seen_of_both = seen(share)
    ball = seen(1.0).points[:200] / 6 + [0.8, 0, 0]
    cloud = PointCloud(np.concatenate([seen_of_both.points, ball]))
    mesh, _ = finish(with_piece((0.8, 0, 0.0), 0.1), cloud, trim=trim)
    assert mesh.is_watertight == (share == 1)
    assert mesh.components().max() == 1


def test_a_crumb_that_a_cut_leaves_around_a_few_points_goes() -> None:
    top = seen(1.0).points[:20] * [0.03, 0.03, 0] + [0, 0, 0.6]
    cloud = PointCloud(np.concatenate([seen(0.5).points, top]))
    assert finish(WHOLE, cloud, trim=0.0)[0].vertices[:, 2].max() > 0.59
    mesh, _ = finish(WHOLE, cloud, trim=0.1)
    assert mesh.components().max() == 0
    assert mesh.vertices[:, 2].max() < 0.11


def test_trim_is_a_distance_and_zero_never_cuts() -> None:
    half = seen(0.5)
    far, _ = finish(WHOLE, half, trim=0.6)
    near, _ = finish(WHOLE, half, trim=0.2)
    assert near.vertices[:, 2].max() < 0.11 < far.vertices[:, 2].max() < 0.31
    assert finish(WHOLE, half, trim=0.0)[0].is_watertight
    with pytest.raises(InputError, match=r"no part of the surface lies within 0\.5 of a point"):
        finish(replace(WHOLE, vertices=WHOLE.vertices + 10), half, trim=0.5)


def test_no_trim_cuts_between_the_points_and_what_it_cuts_is_told() -> None:
    cloud = seen(1.0)
    for spacings in (1.1, 2.0, 3.0):
        mesh, notes = finish(WHOLE, cloud, trim=spacings * apart(cloud))
        assert mesh.is_watertight
        assert notes == []
    _, [note] = finish(WHOLE, seen(0.9), trim=0.1)
    assert 4 < float(note.removeprefix("cut ").split("%")[0]) < 10, note
    assert note.endswith("of the surface: farther than 0.1 from any point, or where the box ends")


def test_a_bulge_that_the_cube_holds_is_no_cap() -> None:
    cloud = seen(0.93)
    assert finish(WHOLE, cloud, 0.35, Frame.around(cloud))[0].is_watertight, "all is within that of a point"


def test_each_side_of_a_thin_wall_has_its_own_colours() -> None:
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(0, 21.0), np.arange(0, 21.0)))
    top, odd = np.stack([x, y, 0 * x + 0.5], axis=1)[(x + y) % 2 == 0], (x + y) % 2 == 1
    points = np.concatenate([top, np.stack([x, y, 0 * x], axis=1)[odd]])
    up = np.concatenate([np.ones(len(top)), -np.ones(odd.sum())])
    normals, colors = up[:, None] * [0, 0, 1.0], np.where(up[:, None] > 0, [[255] * 3], [[0] * 3])
    corners = [[5.0, 6, 0.5], [15, 6, 0.5], [6, 15, 0.5]]
    mesh = Mesh(corners, [[0, 1, 2]], np.tile([0, 0, 1.0], (3, 1)))
    finished, _ = finish(mesh, PointCloud(points, normals, colors), 0.0)
    np.testing.assert_array_equal(finished.colors, np.full((3, 3), 255))


def test_colours_are_those_of_the_nearest_points() -> None:
    cloud = seen(1.0)
    red = np.where(cloud.points[:, :1] > 0, [[255, 0, 0]], [[0, 0, 255]])
    mesh, _ = finish(WHOLE, PointCloud(cloud.points, cloud.normals, red))
    clear = np.abs(WHOLE.vertices[:, 0]) > 0.1
    expected = np.where(WHOLE.vertices[clear][:, :1] > 0, [[255, 0, 0]], [[0, 0, 255]])
    np.testing.assert_array_equal(mesh.colors[clear], expected)
    colors = np.random.default_rng(0).integers(0, 256, WHOLE.vertices.shape)
    mesh, _ = finish(WHOLE, PointCloud(WHOLE.vertices, WHOLE.normals, colors))
    np.testing.assert_array_equal(mesh.colors, colors)
