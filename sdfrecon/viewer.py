"""Scan, surface and slices in the browser, live while a field is fitted. Drawn by viser (the extra `view`).

All is shown in the field's cube, [-1, 1]^3, so that a scan's large coordinates keep their digits on the way.
"""

from __future__ import annotations

import atexit
import errno
import socket
import time
from contextlib import redirect_stdout, suppress
from importlib.util import find_spec
from io import StringIO
from typing import Any

import numpy as np
import torch

from sdfrecon.field import Field
from sdfrecon.frame import Frame
from sdfrecon.geometry import Floats, InputError, Mesh, PointCloud
from sdfrecon.meshing import extract_mesh
from sdfrecon.run_dir import Losses, keep

SHARE, EVERY = 0.08, 2.0
"""The live view takes at most this share of the fit's time, or one look, and shows the surface so often, seconds."""
CELLS, PIXELS, POINTS = 64, 128, 200_000
GREY, BLUE = (190, 190, 196), (60, 60, 110)
TRIED = 1000
"""How many ports are tried."""


def free_port(host: str, port: int) -> int:
    """The port, or the next, on which `host` can be listened on. Raises InputError where none is, or viser is not."""
    if find_spec("viser") is None:
        raise InputError("the viewer needs viser, which is not installed: pip install viser")
    if not 0 < port < 1 << 16:
        raise InputError(f"--port must be from 1 to 65535; got {port}")
    why: Exception
    for place in range(port, min(port + TRIED, 1 << 16)):
        try:
            socket.create_server((host, place), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
            return place
        except (OSError, UnicodeError) as error:  # a host that is no name
            why = error
            if getattr(error, "errno", None) not in (errno.EADDRINUSE, errno.EACCES):
                break
    raise InputError(f"cannot listen on {host}, port {port}: {why}: choose another --port, or --host")


class Viewer:
    """A page at `address` with what `show_...` was given. host: who may connect; 127.0.0.1 is this machine alone.

    Where the port is taken it is the next free one. Raises InputError as `free_port` does.
    """

    def __init__(self, frame: Frame, host: str = "127.0.0.1", port: int = 8080) -> None:
        port = free_port(host, port)  # viser waits for ever where it cannot listen
        import viser

        with redirect_stdout(StringIO()):  # it prints a banner, and a mesh may go there
            self.server = viser.ViserServer(host=host, port=port, label="sdfrecon", verbose=False)
        atexit.register(self.close)
        self.server.gui.configure_theme(show_share_button=False)  # which would show the scan to anyone
        self._field: Field | None = None
        self._moved = False
        self.frame = frame
        self.server.scene.set_up_direction("+z")
        self.server.initial_camera.position = (2.0, -2.4, 1.6)
        self.server.initial_camera.look_at = (0.0, 0.0, 0.0)
        name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        self.address = f"http://{name}:{self.server.get_port()}"

    def close(self) -> None:
        """Takes the page down, without a word."""
        atexit.unregister(self.close)
        with redirect_stdout(StringIO()):
            self.server.stop()

    def show_cloud(self, cloud: PointCloud) -> None:
        """Points, in their colours."""
        some = cloud.thinned(POINTS)
        points = self.frame.points_to_unit(some.points).astype(np.float32)
        colors = np.broadcast_to(np.array(BLUE, np.uint8), points.shape) if some.colors is None else some.colors
        self.server.scene.add_point_cloud("scan", points, colors, point_size=0.004, precision="float32")

    def show_mesh(self, mesh: Mesh, unit: bool = False) -> None:
        """Triangles, from both sides, since an open surface has two. unit: they are in the cube already."""
        vertices = mesh.vertices if unit else self.frame.points_to_unit(mesh.vertices)
        self.server.scene.add_mesh_simple("surface", vertices.astype(np.float32), mesh.faces.astype(np.uint32),
                                          color=GREY, side="double")  # fmt: skip

    def show_slices(self, field: Field) -> None:
        """A plane to drag through the first field given: red is outside, blue inside, black the surface."""
        if self._field is not None:
            return
        gui = self.server.gui
        self._axis = gui.add_dropdown("slice across", ("x", "y", "z", "none"), initial_value="none")
        self._place = gui.add_slider("at", min=-1.0, max=1.0, step=0.01, initial_value=0.0)

        def moved(_: Any) -> None:
            self._moved = True

        self._axis.on_update(moved)
        self._place.on_update(moved)
        self._field = field

    def wait(self) -> None:
        """Keeps the page up, and its slices moving, until Ctrl-C."""
        with suppress(KeyboardInterrupt):
            while True:
                self._draw_slice()
                time.sleep(0.05)

    def _draw_slice(self, always: bool = False) -> None:
        if self._field is None or not (self._moved or always):
            return
        self._moved, axis = False, self._axis.value
        if axis == "none":
            self.server.scene.add_image("slice", np.zeros((1, 1, 3), np.uint8), 0.001, 0.001, visible=False)
            return
        across = "xyz".index(axis)
        points, turn = plane(across, self._place.value)
        with torch.no_grad():
            distance = self._field.value(torch.tensor(points, dtype=torch.float32).to(self._field.device))
        self.server.scene.add_image("slice", painted(distance[:, 0].cpu().numpy().reshape(PIXELS, PIXELS)), 2.0, 2.0,
                                    wxyz=turn, position=tuple(self._place.value * np.eye(3)[across]))  # fmt: skip


class LiveViewer(Viewer):
    """A viewer that watches a fit (`reconstruct`'s watch): the surface grows, the loss falls, a button ends it."""

    def __init__(self, cloud: PointCloud, frame: Frame, host: str = "127.0.0.1", port: int = 8080) -> None:
        super().__init__(frame, host, port)
        self.show_cloud(cloud)
        self.stopped = False
        self._status = self.server.gui.add_markdown("starting")
        self._losses: Losses = {}
        self._button = self.server.gui.add_button("stop here and mesh")

        @self._button.on_click
        def _(_: Any) -> None:
            self.stopped = True

        self._plot = self.server.gui.add_plotly(curve(self._losses))
        self._spent = self._cost = 0.0

    def __call__(self, step: int, terms: dict[str, float], field: Field) -> bool:
        """Shows the field as it is, if that is due and will not cost too much. True once the button was pressed."""
        start = time.monotonic()
        keep(self._losses, step, terms)
        if self._field is None:
            self._start = self._last = start
            self.show_slices(field)
        if start - self._last > EVERY and self._spent + self._cost <= SHARE * (start - self._start):
            self._show(field)
            self._last = time.monotonic()
            self._cost = self._last - start
        if self._moved:
            self._draw_slice()
        self._spent += time.monotonic() - start
        return self.stopped

    def show_result(self, mesh: Mesh, field: Field, losses: Losses) -> None:
        """The surface that came out, and how the fit went, which may have been over before it was due to be shown."""
        self.show_mesh(mesh)
        self.show_slices(field)  # where all of it was over before
        self._button.disabled = True
        self._losses = losses
        self._show_losses()
        self._moved = True  # the slice is of some steps before

    def _show(self, field: Field) -> None:
        with suppress(InputError):  # there is no surface yet
            self.show_mesh(extract_mesh(field, CELLS), unit=True)
        self._draw_slice(always=True)
        self._show_losses()

    def _show_losses(self) -> None:
        if self._losses:
            step, terms = next(reversed(self._losses.items()))
            self._status.content = f"step {step:,}, loss {sum(terms.values()):.4g}"
            self._plot.figure = curve(self._losses)


def plane(axis: int, place: float) -> tuple[Floats, tuple[float, float, float, float]]:
    """(PIXELS^2, 3) points of the cube across an axis, row after row from the top, and an image's rotation there."""
    along = (np.arange(PIXELS) + 0.5) / PIXELS * 2 - 1
    half = np.sqrt(0.5)
    # Image right and down as axes, and the rotation (w, x, y, z) that turns an image's own x, y into them.
    right, down, turn = (
        ((0, 1, 0), (0, 0, 1), (0.5, 0.5, 0.5, 0.5)),
        ((1, 0, 0), (0, 0, 1), (half, half, 0.0, 0.0)),
        ((1, 0, 0), (0, 1, 0), (1.0, 0.0, 0.0, 0.0)),
    )[axis]
    u, v = np.meshgrid(along, along)
    points = u[..., None] * np.array(right) + v[..., None] * np.array(down) + place * np.eye(3)[axis]
    return points.reshape(-1, 3), turn


def painted(distance: Floats) -> Any:
    """(h, w, 3) bytes: signed distances as colours, red outside and blue inside, with lines, the zero level black."""
    from matplotlib import colormaps

    limit = max(float(np.abs(distance).max()), 1e-9)
    colors = colormaps["RdBu_r"](0.5 + 0.5 * distance / limit)[..., :3]
    colors[np.abs(distance % 0.1 - 0.05) > 0.046] *= 0.8
    colors[np.abs(distance) < 2.0 / len(distance)] = 0
    return (255 * colors).astype(np.uint8)


def curve(losses: Losses) -> Any:
    """The loss over the steps."""
    import plotly.graph_objects as go

    figure = go.Figure(go.Scatter(x=list(losses), y=[sum(terms.values()) for terms in losses.values()]))
    figure.update_layout(xaxis_title="step", yaxis_title="loss", yaxis_type="log",
                         margin={"l": 40, "r": 10, "t": 10, "b": 40})  # fmt: skip
    return figure
