from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from sdfrecon import page
from sdfrecon.field import Field
from sdfrecon.frame import Frame
from sdfrecon.geometry import Mesh
from sdfrecon.siren import Siren, SirenConfig


def square(size: float, height: float, cells: int) -> Mesh:
    """Of two triangles a cell, around the origin, in that height."""
    at = np.linspace(-size / 2, size / 2, cells + 1)
    x, y = np.meshgrid(at, at, indexing="ij")
    corner = np.arange(cells * (cells + 1)).reshape(cells, -1)[:, :-1].ravel()
    a, b = (np.stack([corner, corner + cells + 1 + (not k), corner + 1 + k * (cells + 1)], axis=1) for k in (0, 1))
    return Mesh(np.stack([x.ravel(), y.ravel(), np.full(x.size, height)], axis=1), np.concatenate([a, b]))


@pytest.mark.parametrize("most", [150_000, 100])
def test_a_comparison_shows_each_meshs_distances_on_the_scale_of_the_worst(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    shown: dict[str, Any] = {}

    def take(traces: Mapping[str, Any]) -> str:
        shown.update(traces)
        return ""

    monkeypatch.setattr(page, "_scenes", take)
    monkeypatch.setattr(page, "SHOWN_TRIANGLES", most)
    meshes, flat = {"fine": square(1, 0.25, 60), "coarse": square(1, 0.5, 1)}, square(3, 0, 1)
    page.comparison_page("", meshes, flat, [])
    for name, away in (("fine", 0.25), ("coarse", 0.5)):
        np.testing.assert_allclose(shown[name].intensity, away, atol=1e-6)
        assert (shown[name].cmin, shown[name].cmax) == pytest.approx((0, 0.5))
        assert len(shown[name].i) <= min(most, len(meshes[name].faces))
    page.comparison_page("", {"same": flat}, flat, [])
    assert 0 == shown["same"].cmin < shown["same"].cmax < 1e-6


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the page's figures are, in their order."""
    made: list[Any] = []

    def take(figure: Any, script: str) -> str:
        made.append(figure)
        return script

    monkeypatch.setattr(page, "_html", take)
    return made


def test_side_by_side_a_place_is_at_one_spot(figures: list[Any]) -> None:
    small, large = square(1, 0, 1), square(3, 0.5, 1)
    page.comparison_page("", {"small": small, "large": large}, large, [])
    for scene in (figures[0].layout.scene, figures[0].layout.scene2):
        ranges = [getattr(scene, f"{axis}axis").range for axis in "xyz"]
        np.testing.assert_allclose(ranges, [(-1.53, 1.53), (-1.53, 1.53), (-0.03, 0.53)])
        assert scene.aspectmode == "manual"
        drawn = np.array([getattr(scene.aspectratio, axis) for axis in "xyz"])
        np.testing.assert_allclose(drawn / drawn[0], [1, 1, 0.56 / 3.06], err_msg="to scale")
        assert np.linalg.norm(drawn) == pytest.approx(3**0.5), "as far from the camera as a cube"


def test_titles_fit_side_by_side_and_are_no_markup(figures: list[Any]) -> None:
    meshes = {f"/{'long' * 30}/a<b>{at}.ply": square(1, at, 1) for at in range(5)}
    page.comparison_page("", meshes, square(1, 0, 1), [])
    titles = [note.text for note in figures[0].layout.annotations]
    assert all(title.endswith(f"a&lt;b&gt;{at}.ply") for at, title in enumerate(titles))
    assert max(map(len, titles)) < 40


def test_slices_have_the_scans_coordinates() -> None:
    middle = (100.0, -7.0, 0.5)
    figure = page._slices(Field(Siren(3, 1, SirenConfig(8, 1)), Frame(middle, 2.0)))
    for (u, v), surface in zip([(1, 2), (0, 2), (0, 1)], figure.data[::2], strict=True):
        assert (surface.x[0], surface.x[-1]) == (middle[u] - 2, middle[u] + 2)
        assert (surface.y[0], surface.y[-1]) == (middle[v] - 2, middle[v] + 2)
