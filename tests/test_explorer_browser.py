"""The explorer in JupyterLab and a browser: a slider is moved, figure and table change."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = """
import numpy as np
import mpodis

matrix = np.random.default_rng(0).normal(size=(16, 16))
mpodis.explore(matrix, max_sweeps=5)
"""
PATIENCE = 90  # seconds, on a machine that is busy


@pytest.fixture
def lab(tmp_path):
    """Address of a JupyterLab whose folder holds one notebook."""
    pytest.importorskip("jupyterlab", reason="needs jupyterlab")
    pytest.importorskip("ipywidgets", reason="needs ipywidgets")
    import nbformat  # takes more than a second

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SOURCE.strip())])
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["kernelspec"] = kernel  # otherwise a dialog asks for it
    (tmp_path / "files").mkdir()
    nbformat.write(notebook, tmp_path / "files" / "explorer.ipynb")
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = os.environ | {name: str(tmp_path / name) for name in folders}
    environment |= {"PYTHONPATH": str(ROOT), "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "spaces")}
    address = tmp_path / "address"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0"]
    command += [f"--ServerApp.root_dir={tmp_path / 'files'}", "--IdentityProvider.token="]
    command += [
        "--allow-root",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    with open(address, "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield _address(server, address)
    finally:
        server.terminate()
        server.wait(30)


def _address(server, log):
    """Where a server that has just been started listens, once it answers."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        lines = [line for line in log.read_text().splitlines() if "http://127.0.0.1:" in line]
        if lines:
            url = "http://127.0.0.1:" + lines[0].split("http://127.0.0.1:")[1].split("/")[0]
            try:
                urllib.request.urlopen(f"{url}/api", timeout=5).close()
                return url
            except OSError:
                pass
        time.sleep(0.3)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")


@pytest.fixture
def page():
    """An empty page of a headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Chromium, and there is no command of that name")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


def test_a_slider_is_moved_and_the_figure_changes(lab, page):
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(f"{lab}/doc/tree/explorer.ipynb")
    page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
    page.keyboard.press("Control+Enter")
    figure = page.locator("img.mpodis-explorer-figure")
    figure.wait_for()
    first = figure.get_attribute("src")
    table = page.locator(".mpodis-explorer-table table")
    overlap = table.locator("tr", has_text="overlap f with M").locator("td").last
    before = float(overlap.inner_text())

    slider = page.locator(".widget-inline-hbox", has_text="layers a side")
    slider.locator(".noUi-handle").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")  # from 2 layers to 5
    page.wait_for_function(
        "old => document.querySelector('img.mpodis-explorer-figure').src != old", arg=first
    )
    page.wait_for_function(
        "() => document.querySelector('.mpodis-explorer-status').innerText.includes('sweeps')"
    )
    assert slider.locator(".widget-readout").inner_text() == "5"
    assert float(overlap.inner_text()) > before + 0.05
    assert page.locator(".jp-RenderedText[data-mime-type*=stderr]").count() == 0
    if folder := os.environ.get("MPODIS_SCREENSHOT"):
        page.screenshot(path=folder)
