"""The pages in a real browser: they load without an error, turn when dragged, and show the object."""

import contextlib
import functools
import io
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cli import FAST, run

from sdfrecon import files
from sdfrecon.frame import Frame
from sdfrecon.presets import PRESETS
from sdfrecon.reconstruction import reconstruct
from sdfrecon.viewer import LiveViewer

FLAGS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
]  # fmt: skip
CAMERAS = "Object.values(document.querySelector('.js-plotly-plot')._fullLayout).filter(x => x && x._scene)"
EYES = CAMERAS + ".map(x => { const e = x._scene.getCamera().eye; return [e.x, e.y, e.z] })"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium to test the pages in it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails the test if anything goes wrong on it, or if it asks another machine for something."""
    opened = browser.new_page(viewport={"width": 1500, "height": 900})
    errors: list[str] = []
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("request", lambda request: errors.append(request.url) if not at_home(request.url) else None)
    yield opened
    opened.close()
    assert errors == []


def at_home(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:", "http://127.0.0.1", "ws://127.0.0.1"))


def shot(page: Any, name: Path, **clip: float) -> np.ndarray:
    """(h, w, 3) a screenshot, kept under that name."""
    data = page.screenshot(path=str(name), **({"clip": clip} if clip else {}))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def soon(true: Callable[[], bool], page: Any) -> None:
    """Waits for it, on a busy machine too."""
    for _ in range(60):
        if true():
            return
        page.wait_for_timeout(500)
    pytest.fail("not within half a minute")


def drag(page: Any, x: float, y: float) -> None:
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 150, y + 60, steps=6)
    page.mouse.up()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with a fitted ring.ply, ring.safetensors and ring.html, its run as `run`, and the command's words."""
    folder = tmp_path_factory.mktemp("made")
    scan = Path(__file__).parent.parent / "data" / "ring_and_ball.ply"
    words = ["sdfrecon", "reconstruct", str(scan), "--output", str(folder / "ring.ply"), "--run-dir",
             str(folder / "run"), "--report", *FAST]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", words)
        run(*words[1:])
    return folder, words


def test_the_report_turns_in_a_browser(page: Any, tmp_path: Path, made: tuple[Path, list[str]]) -> None:
    folder, words = made
    run("report", folder / "run")
    written = folder / "run" / "report.html"
    first, again = (re.findall("<table.*?</table>", path.read_text()) for path in (folder / "ring.html", written))
    assert first == again
    page.goto(written.as_uri())
    page.wait_for_function(CAMERAS + ".length === 3")
    page.wait_for_timeout(1000)
    figures = page.inner_text("table")
    assert "12,593 points" in figures
    assert "field at the points" in figures
    assert "No steps were recorded" not in page.inner_text("body")
    assert set(page.evaluate("document.querySelector('.js-plotly-plot').data.map(t => t.marker?.symbol)")) == {
        "square",
        None,
    }
    assert page.inner_text("pre") == shlex.join(words), "the command that makes it again"
    box = page.locator(".js-plotly-plot").first.bounding_box()
    view = {"x": box["x"], "y": box["y"], "width": box["width"], "height": box["height"]}
    before, eyes = shot(page, tmp_path / "before.png", **view), page.evaluate(EYES)
    thirds = np.array_split(before, 3, axis=1)
    for third in thirds:
        assert (np.abs(third[60:] - 255).max(axis=2) > 30).mean() > 0.05, "something is there, below the titles"
    drag(page, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(800)
    turned = np.array(page.evaluate(EYES))
    assert np.abs(turned - eyes).max() > 0.1
    np.testing.assert_allclose(turned, turned[[0, 0, 0]], atol=1e-6, err_msg="the cameras are linked")
    after = shot(page, tmp_path / "after.png", **view)
    for old, new in zip(thirds, np.array_split(after, 3, axis=1), strict=True):
        assert (np.abs(old - new).max(axis=2) > 30).mean() > 0.01, "every view has turned"
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 200)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 40, box["y"] + box["height"] + 60, steps=12)
    page.mouse.up()  # below them all
    page.wait_for_timeout(800)
    eyes = np.array(page.evaluate(EYES))
    assert np.abs(turned - eyes).max() > 0.05
    np.testing.assert_allclose(eyes, eyes[[0, 0, 0]], atol=1e-6, err_msg="linked where a drag leaves its view, too")


def test_meshes_are_compared_in_a_browser(
    page: Any, tmp_path: Path, ring_and_ball: Path, made: tuple[Path, list[str]]
) -> None:
    mesh, other = made[0] / "ring.ply", tmp_path / "b.ply"
    run("mesh", mesh.with_suffix(".safetensors"), "--output", other, "--level", "0.03", "--resolution", "48")
    run("compare", mesh, ring_and_ball, "--others", other, "--report", tmp_path / "c.html")
    page.goto((tmp_path / "c.html").as_uri())
    page.wait_for_function(CAMERAS + ".length === 2")
    scales = page.evaluate("document.querySelector('.js-plotly-plot').data.map(t => [t.cmin, t.cmax])")
    assert scales[0] == scales[1], "one colour scale"
    page.wait_for_timeout(1000)
    left, right = np.array_split(shot(page, tmp_path / "compare.png"), 2, axis=1)
    assert (np.ptp(left, axis=2) > 40).mean() > 0.02
    assert (np.ptp(right, axis=2) > 40).mean() > 0.02


def test_the_live_view_grows_turns_and_stops_the_fit(page: Any, tmp_path: Path, ring_and_ball: Path) -> None:
    cloud, config = files.read_cloud(ring_and_ball).thinned(4000), replace(PRESETS["draft"], resolution=64)
    live = LiveViewer(cloud, Frame.around(cloud, config.margin), port=8123)
    assert live.address.startswith("http://127.0.0.1:")
    page.goto(live.address)
    page.wait_for_selector("canvas")
    steps: list[int] = []

    def watch(step: int, *rest: Any) -> bool:
        steps.append(step)
        ended = live(step, *rest)
        if step == 150:
            live._show(rest[1])
            page.wait_for_timeout(3000)
            first = shot(page, tmp_path / "live.png", x=0, y=0, width=1100, height=900)
            drag(page, 700, 460)
            page.wait_for_timeout(1500)
            second = shot(page, tmp_path / "turned.png", x=0, y=0, width=1100, height=900)
            assert (np.abs(first - np.median(first, axis=(0, 1))).max(axis=2) > 30).mean() > 0.03, "the object is there"
            assert (np.abs(first - second).max(axis=2) > 30).mean() > 0.02, "it has turned"
            assert "step 150" in page.inner_text("body")
            page.get_by_text("stop here and mesh").click()
            soon(lambda: live.stopped, page)
        return ended

    result = reconstruct(cloud, config, device="cpu", watch=watch)
    assert steps[-1] == 200, "it ended early, at the next look"
    assert len(result.mesh.faces) > 1000
    live.close()


@pytest.mark.parametrize("what", ["scan", "mesh", "field"])
def test_a_file_is_shown_here_alone_until_ctrl_c(
    page: Any, tmp_path: Path, ring_and_ball: Path, made: tuple[Path, list[str]], what: str
) -> None:
    shown = {"scan": ring_and_ball, "mesh": made[0] / "ring.ply", "field": made[0] / "ring.safetensors"}[what]
    line = [sys.executable, "-m", "sdfrecon.cli", "view", str(shown), "--port", "8140"]
    line += ["--resolution", "64"] if what == "field" else []
    # A shell that runs this in the background has Ctrl-C ignored, and so would have the viewer.
    listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with (
        subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listening
        ) as process,
        contextlib.ExitStack() as always,
    ):
        always.callback(process.kill)
        assert process.stdout is not None
        assert process.stderr is not None
        address = next(word for word in process.stdout.readline().split() if word.startswith("http"))
        with pytest.raises(ConnectionRefusedError):  # at another address of this machine
            socket.create_connection(("127.0.0.2", int(address.rsplit(":", 1)[1].strip("/"))), timeout=5)
        page.goto(address)
        page.wait_for_selector("canvas")

        def drawn() -> bool:
            seen = shot(page, tmp_path / "view.png", x=0, y=0, width=1100, height=900)
            return bool((np.abs(seen - np.median(seen, axis=(0, 1))).max(axis=2) > 30).mean() > 0.01)

        soon(drawn, page)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read()
