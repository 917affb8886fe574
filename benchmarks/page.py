"""How smoothly the page of a large mesh turns: `python benchmarks/page.py SCAN [--resolution 512]`, in Chromium.

The middle view is dragged with the mouse for some seconds, and the other two follow. A frame counts once it is drawn:
a pixel of every view is read back in it. What its script takes beside that wait, no graphics card can shorten.
"""

import dataclasses
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tyro
from machine import ROOT, heading
from playwright.sync_api import CDPSession, Page, sync_playwright
from tyro.conf import Positional

GL = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
SCENES = "Object.values(document.querySelector('.js-plotly-plot')._fullLayout).filter(x => x && x._scene)"
COUNT = f"""() => {{
  const drawn = {SCENES}.map(x => x._scene.glplot.gl), pixel = new Uint8Array(4);
  window.times = [];
  window.waited = 0;
  const frame = now => {{
    if (window.turning) {{
      const start = performance.now();
      drawn.forEach(gl => gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel));
      window.waited += (performance.now() - start) / 1000;
      window.times.push(now);
    }}
    requestAnimationFrame(frame);
  }};
  requestAnimationFrame(frame);
  const gl = drawn[0], about = gl.getExtension('WEBGL_debug_renderer_info');
  return 'drawn by ' + gl.getParameter(about.UNMASKED_RENDERER_WEBGL);
}}"""


@dataclasses.dataclass
class Args:
    """Makes a mesh and its page, and turns it."""

    scan: Positional[Path]
    """A scan."""
    resolution: int = 512
    """Of the mesh."""
    seconds: float = 5.0
    """Of turning."""
    browser: str = "chromium"
    """The browser's command."""


def main(args: Args) -> None:
    print(heading())
    browser, kept = shutil.which(args.browser), ROOT / "out" / "page"
    kept.mkdir(parents=True, exist_ok=True)
    made = kept / "mesh.html"
    line = [sys.executable, "-m", "sdfrecon.cli", "reconstruct", str(args.scan), "--report", "--device", "cpu"]
    line += ["--output", str(made.with_suffix(".ply")), "--resolution", str(args.resolution)]
    told = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    print(next(part for part in told.splitlines() if part.startswith("mesh:")).split("(")[1].rstrip(")"))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=GL)
        page, start = chromium.new_page(viewport={"width": 1500, "height": 900}), time.time()
        page.goto(made.as_uri(), timeout=120_000)
        page.wait_for_function(SCENES + ".length === 3", timeout=120_000)
        print(f"page: {made.stat().st_size / 1e6:.1f} MB, there after {time.time() - start:.1f} s")
        said = page.inner_text("body").splitlines()
        print(next((line for line in said if "The mesh is shown" in line), "The mesh is shown whole."))
        page.wait_for_timeout(3000)
        box = page.locator(".js-plotly-plot").first.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        metrics = page.context.new_cdp_session(page)
        metrics.send("Performance.enable")
        print(page.evaluate(COUNT))
        before = _script_seconds(page, metrics)
        page.evaluate("window.turning = true")
        page.mouse.move(x, y)
        page.mouse.down()
        start = time.time()
        while (gone := time.time() - start) < args.seconds:
            page.mouse.move(x + 150 * math.sin(3 * gone), y + 40 * math.cos(3 * gone))
        page.evaluate("window.turning = false")
        script, times = _script_seconds(page, metrics) - before, np.array(page.evaluate("window.times"))
        page.mouse.up()
        page.wait_for_timeout(1000)
        page.screenshot(path=str(kept / "turned.png"))
    took = np.diff(times)
    print(f"turning: {1000 / took.mean():.1f} frames/s on average, the slowest {took.max():.0f} ms")
    print(f"of a frame, the page's own script: {1000 * script / len(times):.0f} ms")


def _script_seconds(page: Page, metrics: CDPSession) -> float:
    """What the page's script has taken so far, but waiting for what is drawn."""
    found = metrics.send("Performance.getMetrics")["metrics"]
    taken = next(float(metric["value"]) for metric in found if metric["name"] == "ScriptDuration")
    return taken - float(page.evaluate("window.waited"))


if __name__ == "__main__":
    main(tyro.cli(Args))
