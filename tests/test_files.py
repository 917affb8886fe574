import json
import os
import re
import struct
import subprocess
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch
import trimesh
from test_meshing import Ball

from sdfrecon import fieldfiles, files, libraries
from sdfrecon.columns import to_bytes
from sdfrecon.console import load_mesh_or_cloud
from sdfrecon.field import Field
from sdfrecon.frame import Frame
from sdfrecon.geometry import InputError, Mesh, PointCloud, unit_vectors
from sdfrecon.meshing import extract_mesh
from sdfrecon.ply import polygons
from sdfrecon.siren import Siren, SirenConfig

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(40, 3)).round(6)
NORMALS = RNG.normal(size=(40, 3))
NORMALS = (NORMALS / np.linalg.norm(NORMALS, axis=1, keepdims=True)).round(6)
COLORS = RNG.integers(0, 256, (40, 3)).astype(np.uint8)
CLOUD = PointCloud(POINTS, NORMALS, COLORS)
TRIPLES = (POINTS, NORMALS, COLORS)


def same(cloud: PointCloud, normals: bool = True, colors: bool = True, digits: float = 1e-6) -> None:
    np.testing.assert_allclose(cloud.points, POINTS, atol=digits)
    for given, expected, value in ((cloud.normals, NORMALS, normals), (cloud.colors, COLORS, colors)):
        if value:
            np.testing.assert_allclose(given, expected, atol=digits)
        else:
            assert given is None


def ply(path: Path, form: str, real: str, extra: bool = False, count: int = 40) -> Path:
    """A PLY written by hand: ASCII or either byte order, floats or doubles, properties that nobody asked for."""
    code, kind = {"float": ("f", "float"), "double": ("d", "double")}[real]
    names = [f"property {kind} {n}" for n in ("x", "y", "z", "nx", "ny", "nz")]
    names += [f"property uchar {n}" for n in ("red", "green", "blue")]
    names = (["property int label"] if extra else []) + names + (["property float quality"] if extra else [])
    header = "\n".join(["ply", f"format {form} 1.0", "comment made by hand", f"element vertex {count}", *names])
    rows = [
        ((7,) if extra else ()) + (*p, *n, *map(int, c)) + ((0.5,) if extra else ())
        for p, n, c in zip(POINTS, NORMALS, COLORS, strict=True)
    ]
    if form == "ascii":
        body = "".join(" ".join(map(str, row)) + "\n" for row in rows).encode()
    else:
        order = "<" if form == "binary_little_endian" else ">"
        layout = order + ("i" if extra else "") + code * 6 + "BBB" + ("f" if extra else "")
        body = b"".join(struct.pack(layout, *row) for row in rows)
    path.write_bytes(header.encode() + b"\nend_header\n" + body)
    return path


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("extra", [False, True])
def test_every_kind_of_ply_is_read(tmp_path: Path, form: str, real: str, extra: bool) -> None:
    same(files.read_cloud(ply(tmp_path / "scan.ply", form, real, extra)))


@pytest.mark.parametrize(("ending", "normals"), [(b"", True), (b"\n", False)])
def test_a_ply_with_triangles_and_quads_is_read(tmp_path: Path, ending: bytes, normals: bool) -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 0.5, 1]])
    names = ["x", "y", "z", *(["nx", "ny", "nz"] if normals else [])]
    header = ["ply", "format binary_little_endian 1.0", "element vertex 5", *(f"property double {n}" for n in names)]
    header += ["element face 5", "property list uchar int vertex_indices", "end_header\n"]
    faces = [(3, 2, 1, 0), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)]
    body = b"".join(struct.pack(f"<{len(names)}d", *([*c, 0, 0, 1] if normals else c)) for c in corners)
    body += b"".join(struct.pack(f"<B{len(face)}i", len(face), *face) for face in faces)
    path = tmp_path / "pyramid.ply"
    path.write_bytes("\n".join(header).encode() + body + ending)
    mesh, cloud = files.read_mesh(path), files.read_cloud(path)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(1 / 3)
    np.testing.assert_array_equal(cloud.points, corners)
    assert (cloud.normals[4] == [0, 0, 1]).all() or not normals
    if normals:  # Open3D reads such polygons in a process of its own: each reading of one takes seconds
        for damaged, read in ((body[:-9], files.read_mesh), (body[:60], files.read_cloud)):
            path.write_bytes("\n".join(header).encode() + damaged)
            with pytest.raises(InputError, match="cannot read .*pyramid.ply as a PLY"):
                read(path)
        path.write_bytes("\n".join(header).encode() + body[:-4] + struct.pack("<i", 1 << 30))
        with pytest.raises(InputError, match="the mesh is damaged|the file is damaged"):
            files.read_mesh(path)


def test_an_obj_may_hold_points_alone(tmp_path: Path) -> None:
    path = tmp_path / "points.obj"
    path.write_text("".join(f"v {x} {y} {z}\n" for x, y, z in POINTS))
    same(files.read_cloud(path), normals=False, colors=False)
    assert isinstance(load_mesh_or_cloud(path), PointCloud)


def test_an_objs_points_may_have_normals_and_colours_of_bytes(tmp_path: Path) -> None:
    rows = [
        f"vn {n[0]} {n[1]} {n[2]}\nv {p[0]} {p[1]} {p[2]} {c[0]} {c[1]} {c[2]}\n"
        for p, n, c in zip(*TRIPLES, strict=True)
    ]
    (tmp_path / "points.obj").write_text("".join(rows))
    same(files.read_cloud(tmp_path / "points.obj"))


def test_a_textured_obj_keeps_the_colours_of_its_vertices(tmp_path: Path) -> None:
    (tmp_path / "a.mtl").write_text("newmtl solid\nKd 0.1 0.2 0.3\n")
    corners = "".join(f"v {c} 0 {c * c} {c / 4} 0.5 1\nvt {c} 0\n" for c in range(3))
    (tmp_path / "a.obj").write_text(f"mtllib a.mtl\nusemtl solid\n{corners}f 1/1 2/2 3/3\n")
    colors = files.read_cloud(tmp_path / "a.obj").colors
    assert sorted(colors.tolist()) == [[0, 128, 255], [64, 128, 255], [128, 128, 255]]


def test_a_ply_without_places_says_so_to_who_looks_for_a_mesh_first(tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty uint packed_position\nelement face 1\n"
        "property list uchar int vertex_indices\nend_header\n7\n3 0 0 0\n"
    )
    with pytest.raises(InputError, match="needs columns x, y and z; got packed_position"):
        load_mesh_or_cloud(tmp_path / "a.ply")


def test_a_glb_may_hold_several_clouds_each_at_its_place(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    for x in (0, 10):
        place = trimesh.transformations.translation_matrix((x, 0, 0))
        scene.add_geometry(trimesh.PointCloud(POINTS), transform=place)
    scene.export(tmp_path / "clouds.glb")
    found = files.read_cloud(tmp_path / "clouds.glb").points
    near = np.abs(found).max(axis=1) < 5
    np.testing.assert_allclose(found[near], POINTS, atol=1e-5)
    np.testing.assert_allclose(found[~near], POINTS + [10, 0, 0], atol=1e-5)


def test_a_meshs_colours_are_as_stored_whatever_else_it_has(tmp_path: Path) -> None:
    corners, colors = np.eye(3), np.array([[200, 0, 30], [10, 20, 30], [1, 2, 255]])
    rows = "".join(f"v {x} {y} {z} {r} {g} {b}\n" for (x, y, z), (r, g, b) in zip(corners, colors, strict=True))
    (tmp_path / "bytes.obj").write_text(f"{rows}f 1 2 3\n")
    lines = (" ".join(map(str, row)) for row in np.hstack([corners, colors]).astype(int))
    header = "".join(
        f"property {kind}\n" for kind in ("float x", "float y", "float z", "uchar red", "uchar green", "uchar blue")
    )
    (tmp_path / "textured.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 4\n" + header + "element face 2\n"
        "property list uchar int vertex_indices\nproperty list uchar float texcoord\nend_header\n"
        + "\n".join(lines) + "\n0 0 0 9 9 9\n3 0 1 2 6 0 0 1 0 0 1\n3 0 1 3 6 0.5 0.5 1 0 0 1\n"
    )  # fmt: skip
    for name in ("bytes.obj", "textured.ply"):
        np.testing.assert_array_equal(files.read_mesh(tmp_path / name).colors[:3], colors, name)
        np.testing.assert_array_equal(files.read_cloud(tmp_path / name).colors[:3], colors, name)


@pytest.mark.parametrize("material", [True, False])
@pytest.mark.parametrize("mirrored", [True, False])
def test_the_meshes_of_a_glb_keep_their_colours_normals_and_sides(
    tmp_path: Path, material: bool, mirrored: bool
) -> None:
    files.write_mesh(tmp_path / "one.glb", PAINTED)
    data = (tmp_path / "one.glb").read_bytes()
    length = int.from_bytes(data[12:16], "little")
    tree = json.loads(data[20 : 20 + length])
    if not material:
        del tree["meshes"][0]["primitives"][0]["material"]
    (node,) = (node for node in tree["nodes"] if "mesh" in node)
    node.pop("matrix", None)
    node["scale"] = [-1, 1, 1] if mirrored else [1, 1, 1]
    tree["nodes"].append({"mesh": node["mesh"], "translation": [5, 0, 0]})
    tree["scenes"][0]["nodes"] = [tree["nodes"].index(node), len(tree["nodes"]) - 1]
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    chunks = len(text).to_bytes(4, "little") + b"JSON" + text + data[20 + length :]
    (tmp_path / "two.glb").write_bytes(data[:8] + (12 + len(chunks)).to_bytes(4, "little") + chunks)
    both = files.read_mesh(tmp_path / "two.glb")
    assert both.is_watertight
    assert both.volume == pytest.approx(2 * BALL.volume)
    assert both.components().max() == 1
    np.testing.assert_array_equal(both.colors, np.tile(PAINTED.colors, (2, 1)))
    middle = [[5.0, 0, 0]] * (both.vertices[:, :1] > 2.5)
    assert (unit_vectors(both.vertices - middle) * both.normals).sum(axis=1).min() > 0.99


def test_the_meshes_of_a_gltf_may_store_their_colours_in_several_types(tmp_path: Path) -> None:
    place = np.eye(3, dtype=np.float32)
    stored = [
        place,
        *(np.tile(np.array([top, top, 0, top], kind), (3, 1)) for kind, top in (("u1", 255), ("u2", 65535))),
    ]
    uris = [f"data:application/octet-stream;base64,{b64encode(array.tobytes()).decode()}" for array in stored]
    tree = {
        "asset": {"version": "2.0"},
        "buffers": [{"uri": uri, "byteLength": a.nbytes} for uri, a in zip(uris, stored, strict=True)],
        "bufferViews": [{"buffer": at, "byteLength": a.nbytes} for at, a in enumerate(stored)],
        "accessors": [
            {"bufferView": at, "componentType": kind, "count": 3, "type": form, "normalized": at > 0}
            for at, (kind, form) in enumerate([(5126, "VEC3"), (5121, "VEC4"), (5123, "VEC4")])
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": at}}]} for at in (1, 2)],
        "nodes": [{"mesh": 0}, {"mesh": 1, "translation": [5, 0, 0]}],
        "scenes": [{"nodes": [0, 1]}],
    }
    (tmp_path / "two.gltf").write_text(json.dumps(tree))
    np.testing.assert_array_equal(files.read_mesh(tmp_path / "two.gltf").colors, np.tile([255, 255, 0], (6, 1)))


def test_colours_of_16_bits_are_told_by_their_largest() -> None:
    assert to_bytes(np.array([[0, 256, 65535]])).tolist() == [[0, 1, 255]]
    assert to_bytes(np.array([[0, 256, 1028]], np.uint16)).tolist() == [[0, 1, 4]]
    assert to_bytes(np.array([[0, 100, 256.0]])).tolist() == [[0, 100, 255]], "a byte too bright"
    assert to_bytes(np.array([[0, 0.5, 1.02]])).tolist() == [[0, 128, 255]], "resampled"
    assert to_bytes(np.array([[0, 100, 255.5]])).tolist() == [[0, 100, 255]]


def test_a_plys_counts_may_be_padded(tmp_path: Path) -> None:
    files.write_mesh(tmp_path / "ball.ply", BALL)
    whole = (tmp_path / "ball.ply").read_bytes()
    padded = re.sub(rb"element (\w+) (\d+)", rb"element \1   000\2", whole)
    (tmp_path / "ball.ply").write_bytes(padded)
    assert files.has_faces(tmp_path / "ball.ply")
    np.testing.assert_array_equal(files.read_mesh(tmp_path / "ball.ply").faces, BALL.faces)
    (tmp_path / "ball.ply").write_bytes(padded[:-100])
    with pytest.raises(InputError):
        files.read_mesh(tmp_path / "ball.ply")


def test_a_damaged_mesh_is_not_taken_for_its_points(tmp_path: Path) -> None:
    lines = ["v 0 0 0", "v 1 0 0", "v 0 1 0", "f 1 2 2", "f 1 3 3"]
    (tmp_path / "flat.obj").write_text("\n".join(lines))
    with pytest.raises(InputError, match="triangles without an area alone"):
        files.read_mesh(tmp_path / "flat.obj")
    with pytest.raises(InputError, match="triangles without an area alone"):
        load_mesh_or_cloud(tmp_path / "flat.obj")


def test_a_vertex_that_a_file_repeats_is_one(tmp_path: Path) -> None:
    corners = BALL.vertices[BALL.faces].reshape(-1, 3)
    split = Mesh(corners, np.arange(len(corners)).reshape(-1, 3), np.repeat(BALL.face_normals, 3, axis=0))
    for suffix in (".obj", ".ply"):
        files.write_mesh(tmp_path / f"flat{suffix}", split)
        back = files.read_mesh(tmp_path / f"flat{suffix}")
        assert back.is_watertight
        assert len(back.vertices) == len(BALL.vertices)


def test_a_link_stays_and_a_device_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "run7.txt").write_text("old")
    (tmp_path / "latest.txt").symlink_to(tmp_path / "run7.txt")
    files.check_place(tmp_path / "latest.txt")
    files.write_text(tmp_path / "latest.txt", "new")
    assert (tmp_path / "latest.txt").is_symlink()
    assert (tmp_path / "run7.txt").read_text() == "new"
    files.check_place(Path("/dev/null"))
    files.write_text(Path("/dev/null"), "away")
    assert Path("/dev/null").is_char_device()


def test_doubles_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "scan.txt"
    far = POINTS + [4_500_000.125, 5_600_000.25, 300.5]
    np.savetxt(path, np.hstack([far, NORMALS]), fmt="%.9f")
    np.testing.assert_allclose(files.read_cloud(path).points, far, rtol=0, atol=2e-9)


TABLE = np.hstack([POINTS, NORMALS, COLORS])


@pytest.mark.parametrize(
    ("name", "columns", "settings", "normals", "colors"),
    [
        ("scan.xyz", [0, 1, 2], {}, False, False),
        ("scan.xyzn", [0, 1, 2, 3, 4, 5], {}, True, False),
        ("scan.txt", [0, 1, 2, 6, 7, 8], {}, False, True),
        ("scan.txt", range(9), {"header": "made by hand"}, True, True),
        ("scan.asc", [0, 1, 2, 6, 7, 8, 3, 4, 5], {}, True, True),
        ("scan.csv", range(9), {"delimiter": ","}, True, True),
        ("scan.csv", [0, 1, 2, 3, 4, 5], {"delimiter": "; "}, True, False),
        ("scan.csv", [6, 7, 8, 0, 1, 2, 3, 4, 5],
         {"delimiter": ",", "header": "red,green,blue,x,y,z,nx,ny,nz", "comments": ""}, True, True),
        ("scan.csv", [2, 1, 0], {"delimiter": ",", "header": '"Z","Y","X"', "comments": ""}, False, False),
        ("scan.csv", [2, 1, 0], {"delimiter": ",", "header": "z,y,x"}, False, False),
        ("scan.txt", [6, 0, 1, 2], {"header": "id x y z"}, False, False),
        ("scan.txt", [0, 1, 2, 6, 7, 8], {"header": "x y z intensity return class"}, False, False),
        ("scan.pts", [0, 1, 2], {"header": "40", "comments": ""}, False, False),
        ("scan.pwn", range(6), {}, True, False),
        ("scan.asc", [3, 4, 5, 0, 1, 2, 6, 7, 8], {"header": "Nx Ny Nz X Y Z R G B", "comments": "//"}, True, True),
        ("scan.csv", range(6), {"delimiter": ",", "comments": "",
         "header": "Easting [m],Northing [m],Elevation [m],scalar_Nx,scalar_Ny,scalar_Nz"}, True, False),
        ("scan.txt", range(6), {"comments": "", "header": "X [m]\tY [m]\tZ [m]\ti\tj\tk"}, True, False),
        ("scan.xyz", range(6), {"header": "one two three four five six"}, True, False),
        ("scan.csv", [3, 4, 5, 0, 1, 2], {"delimiter": ",", "comments": "",
         "header": '"Normals:0","Normals:1","Normals:2","Points:0","Points:1","Points:2"'}, True, False),
    ],
)  # fmt: skip
def test_text_columns_are_told_apart(
    tmp_path: Path, name: str, columns: list[int], settings: dict[str, str], normals: bool, colors: bool
) -> None:
    np.savetxt(tmp_path / name, TABLE[:, list(columns)], fmt="%.6f", **settings)
    same(files.read_cloud(tmp_path / name), normals, colors)


def test_names_of_two_words_stand_between_tabs(tmp_path: Path) -> None:
    table = np.column_stack([POINTS, POINTS[:, :1], NORMALS])
    header = "X\tY\tZ\tScan Angle\tNx\tNy\tNz"
    np.savetxt(tmp_path / "a.txt", table, header=header, comments="", fmt="%.9g", delimiter="\t")
    same(files.read_cloud(tmp_path / "a.txt"), colors=False)


def test_tables_of_other_programs_may_have_tabs_quotes_and_a_column_without_a_name(tmp_path: Path) -> None:
    rows = [list(map(str, row)) for row in np.column_stack([POINTS, NORMALS]).tolist()]
    names, path = ["x", "y", "z", "nx", "ny", "nz"], tmp_path / "a.txt"
    for mark in ("\t", ","):
        classed = [mark.join([*row, "high vegetation" if at % 3 else ""]) for at, row in enumerate(rows)]
        numbered = [mark.join([str(at), *row]) for at, row in enumerate(rows)]
        for header, lines in ((mark.join([*names, "class"]), classed), (mark.join(["", *names]), numbered)):
            path.write_text("\n".join([header, *lines]))
            same(files.read_cloud(path), colors=False)
    quoted = [
        ",".join(f'"{word}"' for word in row) for row in ([*names, "what"], *([*row, "wall, north"] for row in rows))
    ]
    path.write_text("\n".join(quoted))
    same(files.read_cloud(path), colors=False)
    path.write_text("\n".join(",".join(f'"{word}"' for word in row) for row in rows))
    same(files.read_cloud(path), colors=False)


@pytest.mark.parametrize(
    "text",
    [
        "X\tY\tZ\t\n1\t2\t3\n4\t5\t6\n",
        "x\ty\tz\n1.0\t\t2.0\t\t3.0\n\t4\t\t5\t\t6\n",
        "x y z\tintensity\n1\t2\t3\t9\n4\t5\t6\t9\n",
        "2\t\n1 2 3\n4 5 6\n",
        "\t# made by hand\n1 2 3\n4 5 6\n",
        "x,y,z\n1,2,3\n// part two\n4,5,6 // the last\n",
        "//X,Y,Z,Class\n1,2,3,tree\n4,5,6,\n",
        'x,y,z,note\n1,2,3,"a, b"\n// part two\n4,5,6,c\n',
    ],
)
def test_tables_are_written_in_many_ways(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    np.testing.assert_array_equal(files.read_cloud(tmp_path / "a.txt").points, [[1, 2, 3], [4, 5, 6]])


def test_the_ending_says_what_columns_are(tmp_path: Path) -> None:
    red = np.column_stack([POINTS, np.tile([1.0, 0, 0], (len(POINTS), 1))])
    for ending in ("xyzrgb", "xyzn", "xyz"):
        np.savetxt(tmp_path / f"a.{ending}", red)
    colours, facing, neither = (files.read_cloud(tmp_path / f"a.{ending}") for ending in ("xyzrgb", "xyzn", "xyz"))
    assert colours.normals is None
    np.testing.assert_array_equal(colours.colors, np.tile([255, 0, 0], (len(POINTS), 1)))
    assert facing.colors is None
    np.testing.assert_array_equal(facing.normals, red[:, 3:])
    assert neither.normals is None
    (tmp_path / "b.xyz").write_text(20 * "nan nan nan 0 0 1\n")
    nowhere = files.read_cloud(tmp_path / "b.xyz").normals
    assert nowhere is not None
    assert (nowhere == [0, 0, 1]).all()


def test_digits_of_a_ply_in_text_stay_whatever_their_type(tmp_path: Path) -> None:
    rows = "".join(f"{4500000 + x:.3f} {5600000 + y:.3f} {z:.3f}\n" for x, y, z in POINTS)
    header = (
        f"ply\nformat ascii 1.0\nelement vertex {len(POINTS)}\nproperty float x\nproperty float y\nproperty float z"
    )
    (tmp_path / "a.ply").write_text(f"{header}\nend_header\n{rows}")
    found = files.read_cloud(tmp_path / "a.ply").points - [4500000, 5600000, 0]
    np.testing.assert_allclose(found, POINTS, atol=6e-4)
    normals = "\n".join(f"property float normal_{axis}" for axis in "xyz")
    uneven = "element face 2\nproperty list uchar int vertex_indices\nproperty list uchar float texcoord"
    places = "".join(f"{row} 0 0 1\n" for row in rows.splitlines())
    tail = "4 0 1 2 3 8 0 0 1 0 1 1 0 1\n3 1 4 2 6 0 0 1 0 1 1\n"
    (tmp_path / "b.ply").write_text(f"{header}\n{normals}\n{uneven}\nend_header\n{places}{tail}")
    with pytest.raises(InputError, match="its normal_x normal_y normal_z must be called nx ny nz"):
        files.read_cloud(tmp_path / "b.ply")


def test_what_a_ply_holds_beside_its_points_may_be_anything(tmp_path: Path) -> None:
    places = "property double x\nproperty double y\nproperty double z\n"
    head, corners = "element vertex 5\n" + places, "0 0 0\n1 0 0\n1 1 0\n0 1 0\n2 0 0\n"
    listed = "element face 2\nproperty list uchar int vertex_indices\nproperty list uchar float texcoord\n"
    rows = "4 0 1 2 3 8 0 0 1 0 1 1 0 1\n3 1 4 2 6 0 0 1 0 1 1\n"
    none = "element face 0\nproperty list uchar int vertex_indices\nproperty uchar red\n"
    for name, more, after in (("texture", listed, rows), ("none", none, "")):
        (tmp_path / f"{name}.ply").write_text(f"ply\nformat ascii 1.0\n{head}{more}end_header\n{corners}{after}")
        assert files.read_cloud(tmp_path / f"{name}.ply").points.tolist() == [
            list(map(float, row.split())) for row in corners.splitlines()
        ]
    lines = "element edge 1\nproperty int vertex1\nproperty int vertex2\nproperty uchar red\n"
    start = f"ply\nformat binary_little_endian 1.0\n{head}{lines}end_header\n".encode()
    stored = np.array([row.split() for row in corners.splitlines()], float).tobytes() + struct.pack("<iiB", 0, 1, 9)
    (tmp_path / "edge.ply").write_bytes(start + stored)
    assert len(files.read_cloud(tmp_path / "edge.ply").points) == 5


def test_an_obj_may_begin_with_a_mark_of_its_code(tmp_path: Path) -> None:
    points = "".join(f"v {x} {y} {z}\n" for x, y, z in POINTS)
    (tmp_path / "a.obj").write_bytes(b"\xef\xbb\xbf" + points.encode())
    assert len(files.read_cloud(tmp_path / "a.obj")) == len(POINTS)


def test_triangle_fans_are_not_left_out_without_a_word(tmp_path: Path) -> None:
    trimesh.Scene(trimesh.creation.box()).export(tmp_path / "a.gltf")
    tree = json.loads((tmp_path / "a.gltf").read_text())
    tree["meshes"][0]["primitives"][0]["mode"] = 6
    (tmp_path / "a.gltf").write_text(json.dumps(tree))
    with pytest.raises(InputError, match="holds triangle fans: export triangles"):
        files.read_mesh(tmp_path / "a.gltf")


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    for mode in (0o600, 0o664):
        files.write_mesh(path, BALL)
        path.chmod(mode)
        files.write_mesh(path, BALL)
        assert path.stat().st_mode & 0o777 == mode


def test_columns_beside_those_with_names_may_be_text_or_empty(tmp_path: Path) -> None:
    rows = np.column_stack([POINTS, NORMALS]).tolist()
    lines = [f"{','.join(map(str, row))},{'ground' if at % 3 else ''}" for at, row in enumerate(rows)]
    (tmp_path / "a.csv").write_text("\n".join(["x,y,z,nx,ny,nz,class", *lines]))
    same(files.read_cloud(tmp_path / "a.csv"), colors=False)


@pytest.mark.parametrize("header", ["", "X,Y,Z,Nx,Ny,Nz,\n", "# X,Y,Z,Nx,Ny,Nz\n"])
def test_rows_may_end_with_their_mark(tmp_path: Path, header: str) -> None:
    rows = np.column_stack([POINTS, NORMALS]).tolist()
    (tmp_path / "a.csv").write_text(header + "".join(",".join(map(str, row)) + ",\n" for row in rows))
    same(files.read_cloud(tmp_path / "a.csv"), colors=False)


@pytest.mark.parametrize(
    ("extra", "normals", "colors"),
    [
        ([NORMALS, np.arange(40)[:, None]], True, False),
        ([np.linspace(0, 1, 40)[:, None], NORMALS], True, False),
        ([COLORS, np.full((40, 1), 0.5)], False, True),
        ([COLORS / 255], False, True),
        ([NORMALS, COLORS, np.full((40, 2), -7.5)], True, True),
        ([100 * np.arange(40)[:, None], COLORS], False, True),
        ([COLORS, 100 * np.arange(40)[:, None]], False, True),
        ([np.linspace(-5, 7, 120).reshape(40, 3), np.tile([1, 0, 0], (40, 1))], False, False),
        ([257 * COLORS.astype(int), np.full((40, 1), 2)], False, True),
        ([np.full((40, 1), 87), COLORS], False, True),
        ([COLORS, np.full((40, 1), 255)], False, True),
        ([np.zeros((40, 3)), COLORS], False, True),
        ([np.zeros((40, 3)), COLORS, np.full((40, 1), 255)], False, True),
        ([np.zeros((40, 3)), COLORS, np.full((40, 2), 7)], False, True),
        ([np.zeros((40, 1)), NORMALS], True, False),
        ([np.zeros((40, 3))], False, False),
        ([4e5 + np.linspace(0, 1, 40)[:, None], np.arange(80).reshape(40, 2) % 5], False, False),  # time, return, class
    ],
)
def test_other_columns_are_passed_over(tmp_path: Path, extra: list[np.ndarray], normals: bool, colors: bool) -> None:
    np.save(tmp_path / "scan.npy", np.hstack([POINTS, *extra]))
    same(files.read_cloud(tmp_path / "scan.npy"), normals, colors)


def test_a_scan_of_one_colour_with_an_intensity_keeps_its_colour(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", np.hstack([POINTS, np.full((40, 3), 255), 5 * np.arange(40)[:, None]]))
    assert (files.read_cloud(tmp_path / "scan.npy").colors == 255).all()


def test_colours_that_are_no_whole_numbers_are_no_normals(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", np.hstack([POINTS, COLORS + 0.25]))
    same(files.read_cloud(tmp_path / "scan.npy"), normals=False)


@pytest.mark.parametrize("normals", [3 * NORMALS, np.where(np.arange(40)[:, None] % 3, NORMALS, 0)])
def test_normals_behind_colours_need_not_be_of_unit_length(tmp_path: Path, normals: np.ndarray) -> None:
    np.save(tmp_path / "scan.npy", np.hstack([POINTS, COLORS, normals]))
    np.testing.assert_array_equal(files.read_cloud(tmp_path / "scan.npy").normals, normals)


@pytest.mark.parametrize("suffix", [".off", ".obj", ".ply"])
def test_the_triangles_of_a_tiny_mesh_tell_its_normals(tmp_path: Path, suffix: str) -> None:
    tiny = replace(BALL, vertices=1e-9 * BALL.vertices, normals=None)
    files.write_mesh(tmp_path / f"ball{suffix}", tiny)
    cloud = files.read_cloud(tmp_path / f"ball{suffix}")
    assert (cloud.normals * unit_vectors(cloud.points)).sum(axis=1).min() > 0.9


def test_a_flat_scan_has_one_normal(tmp_path: Path) -> None:
    up = np.tile([0.0, 0.0, 1.0], (40, 1))
    np.save(tmp_path / "scan.npy", np.hstack([POINTS * [1, 1, 0], COLORS, up]))
    np.testing.assert_array_equal(files.read_cloud(tmp_path / "scan.npy").normals, up)


def test_a_field_of_the_same_name_does_not_replace_a_column(tmp_path: Path) -> None:
    header = "//scalar_Nx scalar_Ny scalar_Nz X Y Z Nx Ny Nz\n40\n"
    rows = "\n".join(" ".join(f"{x:.6f}" for x in row) for row in np.hstack([-NORMALS, POINTS, NORMALS]))
    (tmp_path / "scan.asc").write_text(header + rows)
    same(files.read_cloud(tmp_path / "scan.asc"), colors=False)


def test_pts_with_an_intensity_behind_the_colours(tmp_path: Path) -> None:
    table = np.hstack([POINTS, COLORS, np.full((40, 1), 1200)])
    np.savetxt(tmp_path / "scan.pts", table, fmt="%.6f", header="40", comments="")
    same(files.read_cloud(tmp_path / "scan.pts"), normals=False)


@pytest.mark.parametrize("intensity", [-1200, 0, 200])
def test_pts_has_an_intensity_between_points_and_colours(tmp_path: Path, intensity: int) -> None:
    table = np.hstack([POINTS, np.full((40, 1), intensity), COLORS])
    np.savetxt(tmp_path / "scan.pts", table, fmt="%.6f", header="40", comments="")
    same(files.read_cloud(tmp_path / "scan.pts"), normals=False)


def test_a_pcd_without_counts_has_one_value_in_each_field(tmp_path: Path) -> None:
    rows = "\n".join(" ".join(f"{x:.6f}" for x in row) for row in POINTS)
    header = "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 40\nHEIGHT 1\nPOINTS 40\nDATA ascii\n"
    (tmp_path / "scan.pcd").write_text(header + rows + "\n")
    same(files.read_cloud(tmp_path / "scan.pcd"), normals=False, colors=False)


def test_pwn_is_a_count_then_points_then_normals(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "scan.pwn", np.vstack([POINTS, NORMALS]), fmt="%.6f", header="40", comments="")
    same(files.read_cloud(tmp_path / "scan.pwn"), colors=False)


def test_numpy_arrays_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", TABLE)
    same(files.read_cloud(tmp_path / "scan.npy"))
    np.savez(tmp_path / "scan.npz", points=POINTS, normals=NORMALS, colors=COLORS / 255)
    same(files.read_cloud(tmp_path / "scan.npz"))


@pytest.mark.parametrize("form", [{"write_ascii": True}, {}, {"compressed": True}])
def test_pcd_is_read(tmp_path: Path, form: dict[str, bool]) -> None:
    o3d = libraries.open3d()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(POINTS))
    cloud.normals, cloud.colors = o3d.utility.Vector3dVector(NORMALS), o3d.utility.Vector3dVector(COLORS / 255)
    assert o3d.io.write_point_cloud(str(tmp_path / "scan.pcd"), cloud, **form)
    same(files.read_cloud(tmp_path / "scan.pcd"))


BALL = replace(extract_mesh(Ball(), 16), colors=None)
PAINTED = replace(BALL, colors=RNG.integers(0, 256, BALL.vertices.shape).astype(np.uint8))


@pytest.mark.parametrize("suffix", files.MESH_WRITERS)
def test_meshes_come_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mesh{suffix}"
    files.write_mesh(path, PAINTED)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    back = files.read_mesh(path)
    if suffix == ".stl":  # repeats its vertices, without normals and colours
        np.testing.assert_allclose(back.vertices[back.faces], BALL.vertices[BALL.faces], atol=1e-6)
        assert back.is_watertight
        return
    np.testing.assert_allclose(back.vertices, BALL.vertices, atol=1e-6)
    np.testing.assert_array_equal(back.faces, BALL.faces)
    if suffix != ".off":
        np.testing.assert_array_equal(back.colors, PAINTED.colors)
    if suffix in (".ply", ".glb", ".obj"):
        np.testing.assert_allclose(back.normals, BALL.normals, atol=1e-6)
        np.testing.assert_allclose(files.read_cloud(path).normals, BALL.normals, atol=1e-6)


def test_a_gltf_is_read_with_the_buffers_beside_it(tmp_path: Path) -> None:
    scene = trimesh.Scene(trimesh.Trimesh(BALL.vertices, BALL.faces, process=False))
    for name, data in trimesh.exchange.gltf.export_gltf(scene).items():
        (tmp_path / name).write_bytes(data)
    tree, buffer, name = tmp_path / "model.gltf", next(tmp_path.glob("*.bin")), "my scän.bin"

    def whole() -> None:
        back = files.read_mesh(tree)
        np.testing.assert_allclose(back.vertices[back.faces], BALL.vertices[BALL.faces], atol=1e-6)

    whole()
    tree.write_text(tree.read_text().replace(buffer.name, quote(name)))  # in a glTF it is part of an address
    with pytest.raises(InputError, match=f"needs {name} beside it"):
        whole()
    buffer.rename(tmp_path / name)
    whole()


@pytest.mark.parametrize("scale", [1e-7, 1e6])
def test_stl_is_closed_at_any_size(tmp_path: Path, scale: float) -> None:
    files.write_mesh(tmp_path / "mesh.stl", replace(BALL, vertices=BALL.vertices * scale))
    back = files.read_mesh(tmp_path / "mesh.stl")
    assert back.is_watertight
    assert back.faces.shape == BALL.faces.shape


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb", ".off"])
@pytest.mark.parametrize(("scale", "place"), [(1e-7, 0.0), (1.0, 5e6), (1e6, 0.0)])
def test_meshes_keep_their_digits_at_any_size_and_place(
    tmp_path: Path, suffix: str, scale: float, place: float
) -> None:
    mesh = replace(BALL, vertices=BALL.vertices * scale + place)
    files.write_mesh(tmp_path / f"mesh{suffix}", mesh)
    back = files.read_mesh(tmp_path / f"mesh{suffix}")
    np.testing.assert_allclose(back.vertices, mesh.vertices, rtol=0, atol=max(1e-6 * scale, 2 * np.spacing(place)))


@pytest.mark.parametrize("name", ["world", "scene", "Ä 1"])
def test_a_glb_keeps_its_place_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    away = replace(BALL, vertices=BALL.vertices + [500, 0, 20])
    files.write_mesh(tmp_path / f"{name}.glb", away)
    np.testing.assert_allclose(files.read_mesh(tmp_path / f"{name}.glb").vertices, away.vertices, atol=1e-5)


def test_an_off_of_quads_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path, corners = tmp_path / "cube.off", "\n".join(" ".join(map(str, corner)) for corner in np.ndindex(2, 2, 2))
    quads = ["4 0 1 3 2", "4 4 6 7 5", "4 0 4 5 1", "4 2 3 7 6", "4 0 2 6 4", "4 1 5 7 3"]
    for kept in (quads, quads[:3], [*quads[:5], "4 1 5 7"]):
        path.write_text("\n".join(["OFF", "8 6 0", corners, *kept]) + "\n")
        if kept is quads:
            assert files.read_mesh(path).volume == pytest.approx(1)
        else:
            with pytest.raises(InputError, match="promises 6 faces and holds [35]: the file is truncated"):
                files.read_mesh(path)


def test_an_off_may_hold_edges(tmp_path: Path) -> None:
    (tmp_path / "a.off").write_text("OFF 3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n2 0 1\n")
    assert len(files.read_mesh(tmp_path / "a.off").faces) == 1


def test_points_beside_faces_are_not_left_out_without_a_word(tmp_path: Path) -> None:
    points = "".join(f"v {x} {y} {z}\n" for x, y, z in POINTS)
    (tmp_path / "a.obj").write_text(f"{points}f 1 2 3\n")
    with pytest.raises(InputError, match=f"{len(POINTS)} points, and its faces use 3 of them: save the points"):
        files.read_cloud(tmp_path / "a.obj")
    assert len(files.read_mesh(tmp_path / "a.obj").faces) == 1, "of a mesh they are nothing"
    (tmp_path / "b.obj").write_text(
        f"{points}f {' '.join(map(str, range(1, 21)))} \\\n{' '.join(map(str, range(21, 41)))}\n"
    )
    assert len(files.read_cloud(tmp_path / "b.obj")) == len(POINTS)
    scene = trimesh.Scene([trimesh.creation.box(), trimesh.PointCloud(POINTS)])
    scene.export(tmp_path / "a.glb")
    with pytest.raises(InputError, match=r"a\.glb: it holds points beside its meshes: save each alone"):
        files.read_cloud(tmp_path / "a.glb")


def test_what_else_a_process_prints_does_not_damage_a_ply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = [(0, "ERROR: ld.so: object ignored\n"), (1, "Traceback:\nMemoryError\n")]

    def noisily(line: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        np.savez(line[-1], points=POINTS)
        status, said = ended.pop(0)
        return subprocess.CompletedProcess(line, status, "", said)

    monkeypatch.setattr("subprocess.run", noisily)
    path = ply(tmp_path / "scan.ply", "binary_little_endian", "float")
    np.testing.assert_array_equal(polygons(path)["points"], POINTS)
    with pytest.raises(ValueError, match="^MemoryError$"):
        polygons(path)


def test_normals_of_points_in_a_glb_are_not_left_out_without_a_word(tmp_path: Path) -> None:
    data = {"asset": {"version": "2.0"}, "accessors": [{}, {}],
            "meshes": [{"primitives": [{"mode": 0, "attributes": {"POSITION": 0, "NORMAL": 1}}]}]}  # fmt: skip
    (tmp_path / "a.gltf").write_text(json.dumps(data))
    with pytest.raises(InputError, match="holds points whose normals are not read from glTF: save them as .ply"):
        files.read_cloud(tmp_path / "a.gltf")


def test_cells_of_a_grid_are_no_normals(tmp_path: Path) -> None:
    rows = np.column_stack([np.arange(len(POINTS))[:, None] // [1, 3, 9] % 3, POINTS])
    np.savetxt(tmp_path / "a.csv", rows, delimiter=",", header="i,j,k,x,y,z", comments="")
    assert files.read_cloud(tmp_path / "a.csv").normals is None
    np.savetxt(tmp_path / "a.csv", np.column_stack([NORMALS, POINTS]), "%.17g", ",", header="i,j,k,x,y,z", comments="")
    np.testing.assert_array_equal(files.read_cloud(tmp_path / "a.csv").normals, NORMALS)


def test_a_pts_of_several_scans_says_so(tmp_path: Path) -> None:
    block = "2\n0 0 0 5 1 2 3\n1 0 0 5 1 2 3\n"
    for text, said in (
        (block + block, "it holds several scans, each below its number of points: save each alone"),
        (block[:-13], "the file is damaged"),
    ):
        (tmp_path / "a.pts").write_text(text)
        with pytest.raises(InputError, match=said):
            files.read_cloud(tmp_path / "a.pts")


def test_stl_far_from_the_origin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="single precision is too coarse this far from the origin: write .ply"):
        files.write_mesh(tmp_path / "mesh.stl", replace(BALL, vertices=BALL.vertices + 5e6))
    assert not list(tmp_path.iterdir())


def test_a_glb_of_what_single_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    for scale in (1e-50, 1e50):
        with pytest.raises(InputError, match="GLB's single precision cannot hold .*: write .ply"):
            files.write_mesh(tmp_path / "mesh.glb", replace(BALL, vertices=BALL.vertices * scale))
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # trimesh leaves it open
@pytest.mark.parametrize("place", [0.0, 5e6])  # in single precision, and in double
def test_a_full_disk_leaves_the_mesh_that_was_there(
    tmp_path: Path, full_disk: Callable[[int], None], place: float
) -> None:
    path, corners = tmp_path / "mesh.ply", np.random.default_rng(0).random((9999, 3)) + place
    mesh = Mesh(corners, np.arange(9999).reshape(-1, 3))
    files.write_mesh(path, mesh)
    full_disk(1 << 16)
    with pytest.raises(InputError, match=f"cannot write {path}: "):
        files.write_mesh(path, mesh)
    full_disk(-1)
    assert len(files.read_mesh(path).faces) == 3333
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_mesh_given_as_a_scan_is_its_vertices(tmp_path: Path) -> None:
    files.write_mesh(tmp_path / "mesh.ply", PAINTED)
    cloud = files.read_cloud(tmp_path / "mesh.ply")
    np.testing.assert_allclose(cloud.normals, BALL.normals, atol=1e-6)
    np.testing.assert_array_equal(cloud.colors, PAINTED.colors)
    files.write_mesh(tmp_path / "bare.ply", Mesh(BALL.vertices, BALL.faces))
    normals = files.read_cloud(tmp_path / "bare.ply").normals
    assert (normals * BALL.normals).sum(axis=1).min() > 0.9


@pytest.mark.parametrize("stray", [np.nan, np.inf, 1e17])
@pytest.mark.parametrize("used", [False, True])
def test_a_vertex_astray_leaves_the_others_their_normals(tmp_path: Path, stray: float, used: bool) -> None:
    vertices, faces = np.append(BALL.vertices, [[stray, 0, 0]], axis=0), BALL.faces
    if used:
        faces = np.concatenate([[[len(BALL.vertices), 0, 1]], faces])
    header = f"ply\nformat ascii 1.0\nelement vertex {len(vertices)}\n"
    header += "".join(f"property double {axis}\n" for axis in "xyz")
    header += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    rows = [f"{x} {y} {z}" for x, y, z in vertices] + [f"3 {a} {b} {c}" for a, b, c in faces]
    (tmp_path / "mesh.ply").write_text(header + "\n".join(rows) + "\n")
    normals = files.read_cloud(tmp_path / "mesh.ply").normals
    assert normals is not None
    assert ((normals[:-1] * BALL.normals).sum(axis=1) > 0.9).sum() >= len(BALL.vertices) - 2


def field() -> Field:
    siren = Siren(3, 1, SirenConfig(8, 1), torch.Generator().manual_seed(0))
    return Field(siren, Frame((1.0, 2.0, 3.0), 4.0), {"scan": {"name": "x"}})


def test_a_field_comes_back(tmp_path: Path) -> None:
    fieldfiles.save_field(tmp_path / "field.safetensors", field())
    back = fieldfiles.load_field(tmp_path / "field.safetensors")
    np.testing.assert_array_equal(back.distance(POINTS), field().distance(POINTS))
    assert (back.frame, back.about) == (field().frame, field().about)


def test_a_place_that_refuses_a_field_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (
        tmp_path / "file" / "f.safetensors",
        tmp_path / f"{'x' * 300}.safetensors",
        tmp_path / "no" / "f.safetensors",
    ):
        with pytest.raises(InputError, match="cannot write .*: choose another place"):
            fieldfiles.save_field(place, field())


def test_other_fields_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "field.safetensors"
    fieldfiles.save_field(path, field())
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(InputError, match="cannot read .* as a field"):
        fieldfiles.load_field(path)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="cannot read .* as a field"):
        fieldfiles.load_field(path)
    path.write_bytes(whole.replace(b"field-1", b"field-9"))
    with pytest.raises(InputError, match="has format 'sdfrecon-field-9'; this version reads 'sdfrecon-field-1'"):
        fieldfiles.load_field(path)
    size = {"in_dim": 3, "out_dim": 1, "width": 16, "hidden_layers": 1}
    for promise, message in (
        ({"width": 10**6, "hidden_layers": 9}, "promises a larger network than it holds"),
        ({"hidden_layers": 10**9}, "promises a larger network than it holds"),
        ({"width": 10**12, "hidden_layers": 0}, "cannot read .* as a field"),
        ({"in_dim": 10**12, "hidden_layers": 0}, "cannot read .* as a field"),
        ({"encoding": 10**12, "hidden_layers": 0}, "cannot read .* as a field"),
    ):
        about = {"format": fieldfiles.FIELD_FORMAT, "siren": size | promise}
        fieldfiles.write_tensors(path, {"weights.0": torch.zeros(2)}, about)
        with pytest.raises(InputError, match=message):
            fieldfiles.load_field(path)
    path.write_bytes(whole)
    tensors, about = fieldfiles.read_tensors(path, "field")
    for wrong in (
        {"frame": {"center": [0, 0], "scale": 1}},
        {"about": "nothing"},
        {"about": {"config": "mine"}},
        {"siren": about["siren"] | {"activation": "step"}},
        {"siren": about["siren"] | {"in_dim": 2}, "image": {"height": "20", "width": 20}},
        {"siren": about["siren"] | {"in_dim": 5}},
        {"siren": about["siren"] | {"first_omega_0": "high"}},
        {"siren": about["siren"] | {"first_omega_0": float("nan")}},
    ):
        dims = wrong.get("siren", {}).get("in_dim", 3)
        first = torch.zeros(len(tensors["weights.0"]), dims)
        fieldfiles.write_tensors(path, tensors | {"weights.0": first}, about | wrong)
        with pytest.raises(InputError, match="cannot read .* as a field|says of its config what|not finite: fit"):
            fieldfiles.load_field(path)
    broken = field()
    with torch.no_grad():
        broken.siren.weights[0][0, 0] = torch.nan
    fieldfiles.save_field(path, broken)
    with pytest.raises(InputError, match="weights or frequencies that are not finite"):
        fieldfiles.load_field(path)


PROMISING = (
    b"\x93NUMPY\x01\x00\x56\x00"
    + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3)}".ljust(85)
    + b"\n"
)
PCD = (  # Open3D takes each of these and crashes
    b"VERSION 0.7\nFIELDS %s\nSIZE 4 4 4 4 4 4\nTYPE F F F F F F\nCOUNT %s\nHEIGHT 1\nWIDTH %s\nPOINTS %s\n"
    b"DATA binary\n" + bytes(48)
)
GLTF = b"glTF" + struct.pack("<III", 2, 80, 60) + b"JSON{%s}"
SHORT_PCD = b"VERSION 0.7\nFIELDS x y z\nSIZE %s\nTYPE F F F\nCOUNT 1 1 1\nHEIGHT 1\nWIDTH 3\nPOINTS 3\nDATA %s\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scan.ply", b"", "is empty"),
        ("scan.ply", b"ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nend_header\n", "holds no points"),
        ("scan.ply", b"garbage", "cannot read .* as a PLY scan"),
        ("scan.ply", b"ply\nformat binary_little_endian 1.0\nelement vertex 1000000000000\nproperty float x\n"
         b"property float y\nproperty float z\nend_header\n1234", "cannot read|promises"),
        ("scan.ply", b"ply\nformat ascii 1.0\nelement vertex 9\nproperty float x\nproperty float y\n"
         b"property float z\nend_header\n1 2 3\n4 5 6\n", "cannot read|promises"),
        ("scan.xyz", b"1 2 3\n4 5\n", "cannot read .* as a XYZ scan"),
        ("scan.csv", b"x,east,north\n1,2,3\n", "needs columns x, y and z; got x, east, north"),
        ("scan.xyz", b"# made by hand\n", "no rows in it"),
        ("scan.txt", b"hello\n", "no rows of numbers follow its first line, 'hello'"),
        ("scan.xyz", b"1 2\n3 4\n", "at least x y z; got an array of shape"),
        ("scan.pts", b"5\n1 2 3\n4 5 6\n", "promises 5 points and 2 follow"),
        ("scan.npz", b"whatever it is", "cannot read .* as a NPZ scan: it is no archive of arrays: the file"),
        ("scan.npy", b"\x93NUMPY\x01\x00junk", "cannot read .* as a NPY scan"),
        ("scan.npy", PROMISING, "as a NPY scan: mmap length is greater than file size"),
        ("scan.pcd", b"not a pcd", "is no PCD file"),
        ("scan.pcd", PCD % (b"x y z normal_x normal_y n9rmal_z", b"1 1 1 1 1 1", b"2", b"2"), "contradicts itself"),
        ("scan.pcd", PCD % (b"x y z normal_x normal_y normal_z", b"1 1 1", b"2", b"2"), "contradicts itself"),
        ("scan.pcd", PCD % (b"x y z a b c", b"1 1 1 1 1 1", b"1000000000000", b"1000000000000"), "promises 10+ points"),
        ("scan.pcd", PCD % (b"x y z a b c", b"1 1 1 1 1 -1", b"2", b"2"), "COUNT must be whole numbers above 0"),
        ("scan.pcd", PCD % (b"x y z a b c", b"1 1 1 1 33 1", b"2", b"2"), "33 values of b for each point"),
        ("scan.pcd", b"VERSION 0.7\nFIELDS x y z\nDATA ascii\n1 2 3\n", "lacks SIZE, TYPE, WIDTH"),
        ("scan.pcd", SHORT_PCD % (b"4 4 4", b"ascii") + b"1.5 2.5 3.5\n4.5 5.5 6", "promises 3 points and holds fewer"),
        ("scan.pcd", SHORT_PCD % (b"8 8 8", b"binary") + bytes(72), "numbers of 8 bytes, which Open3D reads as 0"),
        ("scan.ply", b"ply\nformat ascii 1.0\nelement vertex 1\nproperty uint packed_position\nend_header\n7\n",
         "needs columns x, y and z; got packed_position"),
        ("scan.ply", b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
         b"end_header\n1 2 3\n4 5\n", "points must be numbers, as many in each row"),
        ("scan.obj", b"\x00\x01\x02", "OBJ scan|holds no points"),
        ("scan.obj", 2 * b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\n", "export it with absolute indices"),
        ("scan.glb", GLTF % b'"extensionsRequired": ["KHR_draco_mesh_compression"]', "by KHR_draco_mesh_compression"),
        ("scan.gltf", b'{"accessors": [{"normalized": true}], "meshes": [{"primitives": [{"attributes": '
         b'{"POSITION": 0}}]}]}', "is compressed by KHR_mesh_quantization: export it without"),
        ("scan.asc", b"//X Y Z\n5\n1 2 3\n4 5 6\n", "promises 5 points and 2 follow"),
        ("scan.csv", b"X;Y;Z\n1,5;2,5;3,5\n", "decimal commas"),
        ("scan.csv", b"100;2,5;3,5\n", "decimal commas"),
        ("scan.txt", b"X Y\n1 2 3\n", "the header 'X Y' names 2 columns, and 3 follow"),
        ("scan.csv", b"Pt,East,North\n1,2,3\n", "needs columns x, y and z; got Pt, East, North"),
        ("scan.csv", b"1,5;2,5;3,5\n", "decimal commas, as in '1,5;2,5;3,5': write them with points"),
        ("scan.xyz", b"1,5 -2,5 3,5\n", "decimal commas"),
        ("scan.csv", b"1,2,3,tree\n1,2,3,tree\n", "got '1,2,3,tree': drop columns of text, or name all"),
        ("scan.pcd", SHORT_PCD % (b"4 4 4", b"Binary") + bytes(36), "or binary_compressed; got Binary: save it again"),
        ("scan.xyz", b"1 2 3\n1 2 tree\n", "got 'tree' in row 2 of them, column 3: drop that column"),
        ("scan.csv", b"x,y,z,class\n1,2,3,\n1,,3,tree\n", "got '' in row 2 of them, column 2: leave such rows out"),
        ("scan.csv", b"x,y,z\n100.0,2.0,3.0\n1,000.0,2.0,3.0\n", "changed from 3 to 4"),
        ("scan.e57", b"x", "unknown ending .*: convert others to PLY"),
    ],
)  # fmt: skip
def test_bad_scans_give_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        files.read_cloud(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_pickle_in_an_array_is_never_loaded(tmp_path: Path) -> None:
    pickled = np.array([{"a": 1}], dtype=object)
    np.save(tmp_path / "scan.npy", pickled, allow_pickle=True)
    np.savez(tmp_path / "scan.npz", points=pickled)
    for name in ("scan.npy", "scan.npz"):
        with pytest.raises(InputError, match="Python objects in dtype|allow_pickle=False"):
            files.read_cloud(tmp_path / name)


@pytest.mark.parametrize("suffix", [".ply", ".off"])
def test_a_text_of_a_mesh_that_was_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    import trimesh

    path, ball = tmp_path / f"mesh{suffix}", trimesh.Trimesh(BALL.vertices, BALL.faces)
    whole = ball.export(file_type=suffix[1:], **({"encoding": "ascii"} if suffix == ".ply" else {}))
    whole = whole if isinstance(whole, bytes) else whole.encode()
    path.write_bytes(whole)
    assert len(files.read_mesh(path).faces) == len(BALL.faces)
    for kept in (whole[:-200], b"\n".join(whole.splitlines()[: -len(BALL.faces)]) + b"\n"):  # these, none of them
        path.write_bytes(kept)
        for read in (files.read_mesh, files.read_cloud):
            with pytest.raises(InputError, match=f"promises {len(BALL.faces)} faces and holds .*: the file is truncat"):
                read(path)


@pytest.mark.parametrize("text", [True, False])
def test_an_stl_that_was_cut_short_is_refused(tmp_path: Path, text: bool) -> None:
    import trimesh

    path, ball = tmp_path / "balls.stl", trimesh.Trimesh(BALL.vertices, BALL.faces)
    whole = ball.export(file_type="stl_ascii" if text else "stl")
    whole = 2 * (whole.encode() + b"\n") if isinstance(whole, str) else whole
    # What follows the triangles is nothing; what stands before them says not what they are.
    for head in ("\ufeff".encode(), b"; made by hand\n") if text else (b"solid faceted ball".ljust(80), bytes(80)):
        path.write_bytes(head + whole if text else head + whole[80:] + bytes(7))
        assert len(files.read_mesh(path).faces) == len(BALL.faces) * (1 + text)
    path.write_bytes(whole[:-2000])
    for read in (files.read_mesh, files.read_cloud):
        with pytest.raises(InputError, match="promises .* and holds .*: the file is truncated"):
            read(path)


@pytest.mark.parametrize("comment", ["# a quad", "# 1 2 3", ""])
def test_comments_of_an_off_may_stand_anywhere(tmp_path: Path, comment: str) -> None:
    lines = ["OFF", "4 2 0", "0 0 0", "1 0 0", "1 1 0", "0 1 0", "3 0 1 2", "3 0 2 3"]
    for at in range(len(lines)):
        (tmp_path / "a.off").write_text("\n".join([*lines[:at], f"{lines[at]} {comment}", comment, *lines[at + 1 :]]))
        assert files.read_mesh(tmp_path / "a.off").areas.sum() == pytest.approx(1)


def test_an_off_may_hold_points_alone(tmp_path: Path) -> None:
    (tmp_path / "a.off").write_text("OFF\n40 0 0\n" + "".join(f"{x} {y} {z}\n" for x, y, z in POINTS))
    same(files.read_cloud(tmp_path / "a.off"), normals=False, colors=False)


@pytest.mark.parametrize("word", ["NOFF", "COFF", "CNOFF"])
def test_the_first_word_of_an_off_says_what_its_vertices_have(tmp_path: Path, word: str) -> None:
    table = [POINTS, *[NORMALS] * ("N" in word), *[COLORS, np.full(40, 255)] * ("C" in word)]
    np.savetxt(tmp_path / "a.off", np.column_stack(table), header=f"{word}\n40 0 0", comments="", fmt="%.9g")
    same(files.read_cloud(tmp_path / "a.off"), normals="N" in word, colors="C" in word)
    (tmp_path / "mesh.off").write_text((tmp_path / "a.off").read_text().replace("40 0 0", "40 1 0") + "3 0 1 2\n")
    mesh = files.read_mesh(tmp_path / "mesh.off")
    assert len(mesh.faces) == 1
    assert (mesh.colors is not None) == ("C" in word)


def test_faces_may_count_back_from_the_last_vertex(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf -4 -3 -2\nf -4 -2 -1\n")
    assert files.read_mesh(tmp_path / "a.obj").areas.sum() == pytest.approx(1)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_comments_of_a_ply_may_be_in_any_code_and_come_first(tmp_path: Path, form: str) -> None:
    path = ply(tmp_path / "scan.ply", form, "float")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"made by hand", "von Größe".encode("latin-1")))
    same(files.read_cloud(path))
    path.write_bytes(whole.replace(b"ply\n", b"ply\ncomment first\nobj_info second\n", 1))
    same(files.read_cloud(path))


def test_polygons_that_have_as_many_corners_in_the_mean_are_told_apart(tmp_path: Path) -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0, 0], [3, 0, 0], [3, 1, 0], [2.5, 2, 0],
                        [2, 1, 0]], np.float32)  # fmt: skip
    header = b"ply\nformat binary_little_endian 1.0\nelement vertex 9\nproperty float x\nproperty float y\n"
    header += b"property float z\nelement face 3\nproperty list uchar int vertex_indices\nend_header\n"
    faces = [(0, 1, 2, 3), (0, 1, 2), (4, 5, 6, 7, 8)]
    body = corners.tobytes() + b"".join(struct.pack(f"<B{len(face)}i", len(face), *face) for face in faces)
    (tmp_path / "a.ply").write_bytes(header + body)
    assert files.read_mesh(tmp_path / "a.ply").areas.sum() == pytest.approx(1 + 0.5 + 1.5)
    assert len(files.read_cloud(tmp_path / "a.ply")) == 9


def test_a_corner_that_is_nowhere_takes_its_triangles_alone(tmp_path: Path) -> None:
    corners = BALL.vertices.copy()
    corners[0] = np.nan
    files.write_mesh(tmp_path / "a.ply", replace(BALL, vertices=corners))
    mesh = files.read_mesh(tmp_path / "a.ply")
    assert len(mesh.faces) == len(BALL.faces) - (BALL.faces == 0).any(axis=1).sum()
    assert 0 < mesh.areas.sum() < BALL.areas.sum()


def test_a_pipe_is_no_file_to_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scan.ply")
    with pytest.raises(InputError, match="got the pipe or device .*: save what comes from it first"):
        files.read_cloud(tmp_path / "scan.ply")


def test_complex_numbers_are_no_points(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", np.zeros((9, 3), complex))
    with pytest.raises(InputError, match="must be real numbers"):
        files.read_cloud(tmp_path / "scan.npy")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file: .*nothing.ply"):
        files.read_cloud(tmp_path / "nothing.ply")
    (tmp_path / "folder.ply").mkdir()
    with pytest.raises(InputError, match="got the directory .*folder.ply"):
        files.read_cloud(tmp_path / "folder.ply")


def test_a_field_is_neither_a_scan_nor_a_mesh(tmp_path: Path) -> None:
    fieldfiles.save_field(tmp_path / "field.safetensors", field())
    for read in (files.read_cloud, files.read_mesh):
        with pytest.raises(InputError, match="make a mesh of it with `sdfrecon mesh`, or take one of .ply"):
            read(tmp_path / "field.safetensors")


def test_a_cloud_is_no_mesh(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no triangles"):
        files.read_mesh(ply(tmp_path / "scan.ply", "ascii", "float"))


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "precious.txt"
    path.write_text("old")

    def fail() -> None:
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"cannot write .*precious.txt: No space left on device"):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_unwritable_meshes_are_refused_before_the_work(tmp_path: Path) -> None:
    for name, message in (("mesh.doc", "unknown ending"), ("no/mesh.ply", "no such directory")):
        with pytest.raises(InputError, match=message):
            files.check_mesh_ending(tmp_path / name)
