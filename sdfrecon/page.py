"""A report to look at: one HTML file that turns, zooms and needs no network. Drawn by plotly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from sdfrecon.columns import to_bytes
from sdfrecon.geometry import Floats, Mesh, PointCloud, decimals
from sdfrecon.metrics import nearest

if TYPE_CHECKING:
    from sdfrecon.field import Field

SHOWN_POINTS, SHOWN_TRIANGLES = 40_000, 150_000
"""So many stay smooth to turn."""
SLICE = 160
WIDE = 150
"""Letters of titles that stand side by side on a page."""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1500px; margin: 1.5em auto; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 1.8em } table { border-collapse: collapse }
td { padding: .1em 1.2em .1em 0; vertical-align: top } pre { background: #f4f4f4; padding: .8em; overflow-x: auto }
"""
LINK = """
(() => {
  const plot = document.getElementById('{plot_id}');
  const scenes = Object.keys(plot._fullLayout).filter(name => /^scene\\d*$/.test(name));
  let linking = false;
  const link = event => {
    const turned = Object.keys(event).find(name => /^scene\\d*\\.camera$/.test(name));
    if (linking || !turned) return;
    linking = true;
    const others = scenes.filter(name => name + '.camera' !== turned);
    const update = Object.fromEntries(others.map(name => [name + '.camera', event[turned]]));
    Plotly.relayout(plot, update).then(() => { linking = false; });
  };
  // When it is let go, not before: a relayout takes the one that is being turned back to where it was.
  plot.on('plotly_relayout', link);
  // It is let go where it leaves its view, too, and by a finger, of which plotly tells nobody.
  for (const name of scenes) {
    const canvas = plot._fullLayout[name]._scene.glplot.canvas;
    const letGo = () => canvas.dispatchEvent(new Event('mouseup'));
    canvas.addEventListener('mouseleave', event => { if (event.buttons) letGo(); });
    canvas.addEventListener('touchend', letGo);
  }
})();
"""
Facts = Sequence[tuple[str, str]]


def reconstruction_page(
    title: str, scan: PointCloud, away: Floats, residuals: Floats, mesh: Mesh, field: Field,
    losses: Mapping[int, Mapping[str, float]], facts: Facts, command: str, settings: str,
) -> str:  # fmt: skip
    """The HTML of a reconstruction: scan, mesh and the scan's distance from it; losses; slices; residuals; figures.

    scan: the points to show, SHOWN_POINTS or so. away, residuals: (n,) their distances to the mesh and by the field.
    losses: by step, every constraint's share. facts: figures and their values. command: what makes it again.
    settings: as text.
    """
    import plotly.graph_objects as go
    from plotly.colors import qualitative

    small, center = _decimated(mesh), _center(mesh)
    colours = "#446" if scan.colors is None else [f"rgb({r},{g},{b})" for r, g, b in scan.colors]
    points, marks = scan.points - center, {"size": 1.6, "color": colours}
    shown = {
        f"{len(scan):,} points of the scan": _points(points, marks),
        f"mesh ({len(mesh.faces):,} triangles)": _surface(small, center),
        "distance of the scan from the mesh": _points(points, _coloured(away, float(np.quantile(away, 0.99)))),
    }
    note = "" if len(small.faces) == len(mesh.faces) else f" The mesh is shown with {len(small.faces):,} triangles."
    curves = go.Figure(
        [
            go.Scatter(x=list(losses), y=[terms[name] for terms in losses.values()], name=name)
            for name in next(iter(losses.values()), {})
        ]
    )
    curves.update_layout(
        xaxis_title="step", yaxis_title="share of the loss", yaxis_type="log", height=420, colorway=qualitative.Dark24
    )
    bars = go.Figure(go.Histogram(x=residuals, nbinsx=120, marker_color="#446"))
    bars.update_layout(xaxis_title="signed distance of the field at the points, scan units", height=360)
    turn = "Drag to turn, scroll to zoom: the other views follow. Scan units, from the middle of the mesh at "
    return _page(title, [
        ("", _table(facts)),
        ("Scan, mesh, error", f"<p>{turn}({', '.join(decimals(center, mesh.diagonal))}).{note}</p>" + _scenes(shown)),
        ("Loss, constraint by constraint", _html(curves) if losses else "<p>No steps were recorded.</p>"),
        ("Slices of the distance", "<p>Black: the surface. Red: outside, blue: inside.</p>" + _html(_slices(field))),
        ("Residuals: the field at the points", _html(bars)),
        ("Made by", f"<pre>{escape(command)}</pre><pre>{escape(settings)}</pre>"),
    ])  # fmt: skip


def comparison_page(title: str, meshes: Mapping[str, Mesh], reference: Mesh | PointCloud, facts: Facts) -> str:
    """The HTML of meshes against a reference: each coloured by its distance from it, on one scale."""
    small = {name: _decimated(mesh) for name, mesh in meshes.items()}
    away = {}
    for name, mesh in meshes.items():  # of the whole mesh, not of what is shown of it
        _, same = cKDTree(mesh.vertices).query(small[name].vertices, workers=-1)
        away[name] = nearest(mesh.vertices, reference)[0][same]
    # Of the worst mesh, however few vertices it has; a scale from 0 to 0 would be each view's own.
    worst = max(float(np.quantile(far, 0.99)) for far in away.values()) or 1e-9 * reference.diagonal
    center = _center(next(iter(small.values())))
    shown = {name: _surface(mesh, center, away[name], worst) for name, mesh in small.items()}
    return _page(title, [("", _table(facts)), ("Distance from the reference, scan units", _scenes(shown))])


def _page(title: str, parts: Sequence[tuple[str, str]]) -> str:
    from plotly.offline import get_plotlyjs

    body = "".join((f"<h2>{escape(name)}</h2>" if name else "") + content for name, content in parts)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style><script>{get_plotlyjs()}</script></head>'
        f"<body><h1>{escape(title)}</h1>{body}</body></html>"
    )


def _table(facts: Facts) -> str:
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts)
    return f"<table>{rows}</table>"


def _html(figure: Any, script: str | None = None) -> str:
    figure.update_layout(template="plotly_white", margin={"l": 50, "r": 20, "t": 60, "b": 40})
    return figure.to_html(include_plotlyjs=False, full_html=False, post_script=script)


def _scenes(shown: Mapping[str, Any]) -> str:
    """Traces side by side, each in a scene of its own, at the same places of it, whose cameras move together."""
    from plotly.subplots import make_subplots

    count = len(shown)
    short = [name if len(name) <= WIDE // count else f"…{name[1 - WIDE // count :]}" for name in shown]
    titles = [escape(name, quote=False) for name in short]
    figure = make_subplots(1, count, specs=[[{"type": "scene"}] * count], subplot_titles=titles,
                           horizontal_spacing=0.01)  # fmt: skip
    for column, trace in enumerate(shown.values()):
        figure.add_trace(trace, 1, column + 1)
    places = np.stack([np.concatenate([trace[axis] for trace in shown.values()]) for axis in "xyz"]).astype(float)
    low, high = places.min(axis=1), places.max(axis=1)
    room = 0.01 * ((high - low).max() or 1)
    low, high = low - room, high + room
    for axis, *ends in zip("xyz", low.tolist(), high.tolist(), strict=True):
        figure.update_scenes({f"{axis}axis": {"visible": False, "range": ends}})
    # Left to itself, plotly scales each scene by its own trace; as large as the unit cube all is before the camera.
    aspect = np.sqrt(3) * (high - low) / np.linalg.norm(high - low)
    figure.update_scenes(aspectmode="manual", aspectratio=dict(zip("xyz", aspect.tolist(), strict=True)))
    figure.update_layout(height=560, showlegend=False)
    return _html(figure, LINK)


def _points(points: Floats, marks: dict[str, Any]) -> Any:
    import plotly.graph_objects as go

    # A circle has dozens of triangles, a square two, and at this size nobody can tell.
    x, y, z = points.astype(np.float32).T
    return go.Scatter3d(
        x=x,
        y=y,
        z=z,
        mode="markers",
        marker={"symbol": "square"} | marks,
        **({"hovertemplate": "%{marker.color:.4g}<extra></extra>"} if "cmax" in marks else {"hoverinfo": "skip"}),
    )


def _coloured(values: Floats, worst: float) -> dict[str, Any]:
    return {"size": 1.8, "color": values.astype(np.float32)} | _scale(worst)


def _scale(worst: float) -> dict[str, Any]:
    bar = {"title": "scan units", "thickness": 14, "len": 0.7}
    return {"cmin": 0, "cmax": worst, "colorscale": "Viridis", "colorbar": bar}


def _surface(mesh: Mesh, center: Floats, away: Floats | None = None, worst: float = 0.0) -> Any:
    import plotly.graph_objects as go

    (x, y, z), (i, j, k) = (mesh.vertices - center).astype(np.float32).T, mesh.faces.astype(np.int32).T
    light = {"ambient": 0.45, "diffuse": 0.7, "specular": 0.15, "roughness": 0.8}
    look: dict[str, Any] = {"color": "#c8c8cc"}
    if away is not None:
        look = {"intensity": away.astype(np.float32)} | _scale(worst)
    elif mesh.colors is not None:
        dim = mesh.colors.max(axis=1, keepdims=True) == 1  # plotly.js would take its numbers for shares: white
        look = {"vertexcolor": np.where(dim, 2 * mesh.colors, mesh.colors)}
    return go.Mesh3d(x=x, y=y, z=z, i=i, j=j, k=k, lighting=light, hoverinfo="skip", **look)


def _slices(field: Field) -> Any:
    """The distance on three planes through the middle of the field's cube, with lines of equal distance."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    along = np.linspace(-1, 1, SLICE) * field.frame.scale
    figure = make_subplots(1, 3, subplot_titles=[f"{axis} in the middle" for axis in "xyz"])
    planes, distances = [(1, 2), (0, 2), (0, 1)], []
    for u, v in planes:
        places = np.zeros((SLICE * SLICE, 3))
        places[:, u], places[:, v] = (grid.ravel() for grid in np.meshgrid(along, along))
        told = field.distance(places + np.asarray(field.frame.center))
        distances.append(told.reshape(SLICE, SLICE).astype(np.float32))
    limit = float(np.abs(distances).max())
    lines, bar = {"start": -limit, "end": limit, "size": limit / 12}, {"title": "scan units", "thickness": 14}
    for axis, ((u, v), distance) in enumerate(zip(planes, distances, strict=True)):
        x, y = (along + field.frame.center[i] for i in (u, v))
        across = {"x": x, "y": y, "z": distance, "hovertemplate": "%{x}, %{y}: %{z:.4g}<extra></extra>"}
        figure.add_trace(go.Contour(**across, contours=lines, colorscale="RdBu_r", zmin=-limit, zmax=limit,
                                    line_width=0.5, showscale=axis == 2, colorbar=bar), 1, axis + 1)  # fmt: skip
        figure.add_trace(go.Contour(**across, contours={"start": 0, "end": 0, "size": 1, "coloring": "lines"},
                                    colorscale=[[0, "black"], [1, "black"]], line_width=3, showscale=False),
                         1, axis + 1)  # fmt: skip
        figure.update_xaxes(title="xyz"[u], exponentformat="none", row=1, col=axis + 1)
        figure.update_yaxes(
            title="xyz"[v], exponentformat="none", scaleanchor=f"x{axis + 1 if axis else ''}", row=1, col=axis + 1
        )
    figure.update_layout(height=480)
    return figure


def _center(mesh: Mesh) -> Floats:
    return (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2


def _decimated(mesh: Mesh) -> Mesh:
    """The mesh with at most SHOWN_TRIANGLES, by quadric error (Garland and Heckbert 1997)."""
    if len(mesh.faces) <= SHOWN_TRIANGLES:
        return mesh
    from sdfrecon.meshexport import to_open3d

    center = _center(mesh)
    built = to_open3d(replace(mesh, vertices=mesh.vertices - center)).simplify_quadric_decimation(SHOWN_TRIANGLES)
    colors = to_bytes(np.asarray(built.vertex_colors).clip(0, 1)) if built.has_vertex_colors() else None
    return Mesh(np.asarray(built.vertices) + center, np.asarray(built.triangles), colors=colors)
