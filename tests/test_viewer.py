"""What is drawn in the browser, as numbers: that it is drawn is `test_browser`'s."""

import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sdfrecon import page
from sdfrecon.cli import main
from sdfrecon.field import Field
from sdfrecon.frame import Frame
from sdfrecon.geometry import InputError, Mesh, PointCloud
from sdfrecon.shapes import evenly_spread
from sdfrecon.siren import Siren, SirenConfig
from sdfrecon.viewer import EVERY, PIXELS, SHARE, LiveViewer, Viewer, free_port, painted, plane


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_lies_where_its_image_is_put(axis: int) -> None:
    points, (w, x, y, z) = plane(axis, 0.3)
    np.testing.assert_allclose(points[:, axis], 0.3)
    rows = points.reshape(PIXELS, PIXELS, 3)
    turn = Rotation.from_quat([x, y, z, w])
    right, down = rows[0, -1] - rows[0, 0], rows[-1, 0] - rows[0, 0]
    # viser spans an image by its own x to the right and y downwards.
    np.testing.assert_allclose(turn.apply([1, 0, 0]), right / np.linalg.norm(right), atol=1e-9)
    np.testing.assert_allclose(turn.apply([0, 1, 0]), down / np.linalg.norm(down), atol=1e-9)


def test_outside_is_red_inside_blue_and_the_surface_black() -> None:
    across = np.tile(np.linspace(-0.97, 0.97, 400), (400, 1))
    red, green, blue = painted(across)[0].astype(int).T
    assert (blue[20:180] >= red[20:180]).all()
    assert (red[220:380] >= blue[220:380]).all()
    assert red[199] == green[199] == blue[199] == 0


def test_the_live_view_looks_when_there_is_something_and_takes_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    ball, now, looks = evenly_spread(100), 1000.0, list[float]()
    live = LiveViewer(PointCloud(ball, ball), frame := Frame.around(PointCloud(ball, ball)), port=8124)

    def look(*_: object) -> None:
        nonlocal now
        looks.append(now)
        now += 0.5

    monkeypatch.setattr("sdfrecon.viewer.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(live, "_show", look)
    field, begun = Field(Siren(3, 1, SirenConfig(16), None), frame, {}), now + 30
    now = begun
    while now < begun + 100:
        live(0, {"zero level, surface": 1.0}, field)
        now += 0.1
    live.close()
    assert EVERY < looks[0] - begun < EVERY + 0.2, "the time before the fit does not count"
    assert np.diff(looks).min() > EVERY
    assert SHARE / 2 < 0.5 * len(looks) / 100 <= SHARE


def test_an_address_of_the_sixth_version_is_one() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    live = LiveViewer(PointCloud(evenly_spread(9)), Frame((0, 0, 0), 1.0), "::1", 8135)
    assert live.address == f"http://[::1]:{live.server.get_port()}"
    live.close()


def test_it_listens_on_this_machine_alone_and_on_the_next_port_where_one_is_taken() -> None:
    first, second = (LiveViewer(PointCloud(evenly_spread(9)), Frame((0, 0, 0), 1.0), port=8136) for _ in range(2))
    ports = [live.server.get_port() for live in (first, second)]
    assert ports[0] < ports[1]
    for port in ports:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=5)
    for live in (first, second):
        live.close()


def test_where_no_port_is_left_it_says_so() -> None:
    with socket.create_server(("127.0.0.1", 65535)), pytest.raises(InputError, match="cannot listen on .* another --"):
        free_port("127.0.0.1", 65535)


def test_points_far_from_all_others_are_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = list[PointCloud]()
    monkeypatch.setattr(Viewer, "show_cloud", lambda _, cloud: shown.append(cloud))
    monkeypatch.setattr(Viewer, "wait", Viewer.close)
    np.save(tmp_path / "scan.npy", np.vstack([evenly_spread(1000) + 1e6, np.zeros((1, 3))]))
    main(["view", str(tmp_path / "scan.npy"), "--port", "8138"])
    assert "1 of 1,001 points are far from all others: they are left out" in capsys.readouterr().out
    assert len(shown[0]) == 1000


def test_dark_colours_stay_dark_on_a_page() -> None:
    dark = Mesh(np.eye(3), np.array([[0, 1, 2]]), colors=np.array([[0, 0, 0], [1, 0, 1], [9, 1, 200]]))
    drawn = np.asarray(page._surface(dark, np.zeros(3)).vertexcolor)
    np.testing.assert_array_equal(drawn, [[0, 0, 0], [2, 0, 2], [9, 1, 200]], "of 1 alone plotly.js makes 255")


def test_a_fit_that_was_over_before_has_its_slices_and_its_loss_too() -> None:
    ball = evenly_spread(100)
    live = LiveViewer(PointCloud(ball, ball), frame := Frame.around(PointCloud(ball, ball)), port=8134)
    field = Field(Siren(3, 1, SirenConfig(16), None), frame, {})
    for step in (50, 100, 150, 100):  # it went back
        live(step, {"a": float(step)}, field)
    assert list(live._losses.items()) == [(50, {"a": 50.0}), (100, {"a": 100.0})]
    live._field = None
    live.show_result(Mesh(ball[:3], np.array([[0, 1, 2]])), field, {50: {"a": 2.0, "b": 1.0}, 100: {"a": 1.0}})
    assert live._field is field
    assert live._status.content == "step 100, loss 1"
    assert list(live._plot.figure.data[0].y) == [3.0, 1.0]
    assert live._moved, "the slice is drawn anew"
    assert live._button.disabled
    live.close()
