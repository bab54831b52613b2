"""Figures, fits and the live views of studies, against numpy on the records."""

import io
import time
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.testing import assert_allclose
from rich.console import Console

from mpodis import Study, disentangle, load_study
from mpodis.files import read_json
from mpodis.study import fit_scaling, plot_study
from mpodis.study import records as records_module
from mpodis.study.figures import save_figure
from mpodis.study.live import LiveStudy
from mpodis.study.page import write_page
from mpodis.study.records import StudyDirectory
from mpodis.study.watch import follow, screen
from mpodis.targets import make_target

GRID = {"n": [4, 6, 9, 16], "depth": [2, 4], "engine": ["dense", "tree"]}
SEEDS = 4


def cost(*, n, depth, engine, seed):
    """A power law in n with noise, entropies of n - 1 bonds, and one text."""
    rng = np.random.default_rng([n, depth, seed, len(engine)])
    return {
        "work": depth * n**1.5 * np.exp(0.1 * rng.normal()),
        "gain": float(rng.normal()),
        "entropies": ("bond", rng.random(n - 1), {"units": "nats"}),
        "status": "converged",
        "names": ["a", "b"],
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = Study(cost, grid=GRID, seeds=SEEDS)
    study.run(tmp_path_factory.mktemp("study") / "cost", progbar=False)
    return study


def values(n, depth, engine, name="work"):
    found = [cost(n=n, depth=depth, engine=engine, seed=seed)[name] for seed in range(SEEDS)]
    return np.array([v[1] if isinstance(v, tuple) else v for v in found])


def lines(ax):
    """Points of the curves of a panel, by their labels; dashed lines are fits."""
    return {
        line.get_label(): line.get_xydata() for line in ax.lines if line.get_linestyle() != "--"
    }


# --- curves


def test_curves_are_medians_and_bands_quartiles_over_the_seeds(study):
    ax = plot_study(study, "work", x="n", hue="depth", where={"engine": "tree"})
    assert list(lines(ax)) == ["2", "4"]
    assert ax.get_legend().get_title().get_text() == "depth"
    for depth, band in zip(GRID["depth"], ax.collections, strict=True):
        found = [values(n, depth, "tree") for n in GRID["n"]]
        assert_allclose(lines(ax)[str(depth)], [*zip(GRID["n"], np.median(found, 1), strict=True)])
        corners = band.get_paths()[0].vertices
        for n, v in zip(GRID["n"], found, strict=True):
            at = corners[corners[:, 0] == n, 1]
            assert_allclose([at.min(), at.max()], np.percentile(v, [25, 75]))
    ax = plot_study(study, "work", x="n", where={"engine": "tree", "depth": 2}, spread="range")
    corners = ax.collections[0].get_paths()[0].vertices
    assert corners[:, 1].max() == max(values(n, 2, "tree").max() for n in GRID["n"])


def test_an_array_has_its_own_axis(study):
    fixed = {"depth": 2, "engine": "dense"}
    ax = plot_study(study, "entropies", x="bond", hue="n", where=fixed)
    assert ax.get_ylabel() == "entropies (nats)"
    for n in GRID["n"]:
        expected = np.median(values(n, 2, "dense", "entropies"), axis=0)
        assert_allclose(lines(ax)[str(n)], [*enumerate(expected, start=1)])
    ax = plot_study(study, "entropies", x="n", where={**fixed, "bond": 3})
    third = [np.median(values(n, 2, "dense", "entropies")[:, 2]) for n in GRID["n"]]
    (points,) = lines(ax).values()
    assert_allclose(points, [*zip(GRID["n"], third, strict=True)])


def test_panels_for_columns_rows_and_quantities(study):
    axes = plot_study(study, "work", x="n", col="depth", row="engine")
    assert axes.shape == (2, 2)
    assert axes[1, 0].get_title() == "engine = tree, depth = 2"
    (points,) = lines(axes[1, 0]).values()
    assert_allclose(points[:, 1], [np.median(values(n, 2, "tree")) for n in GRID["n"]])
    axes = plot_study(study, ["work", "gain"], x="n", hue="depth", col="engine")
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["work", "gain"]
    assert axes[0, 0].get_ylim() != axes[1, 0].get_ylim()
    assert axes[0, 0].get_ylim() == axes[0, 1].get_ylim()
    again = plot_study(study, ["work", "gain"], x="n", hue="depth", col="engine", ax=axes)
    assert again[0, 1] is axes[0, 1]


def test_texts_on_the_axis_keep_the_order_of_the_grid(study):
    ax = plot_study(study, "work", x="engine", where={"n": 4, "depth": 4})
    assert [label.get_text() for label in ax.get_xticklabels()] == ["dense", "tree"]
    heights = [np.median(values(4, 4, engine)) for engine in GRID["engine"]]
    assert_allclose(ax.lines[0].get_xydata(), [*enumerate(heights)])


@pytest.mark.parametrize(
    ("quantity", "options", "words"),
    [
        ("work", {"x": "n", "hue": "depth"}, r"engine has 2 values.*hue='engine'.*'dense'}"),
        ("work", {"x": "engine"}, r"n has 4 values \(4, 6, 9, 16\)"),
        ("entropies", {"x": "n", "hue": "depth", "col": "engine"}, r"bond has 15 values"),
        ("work", {"x": "dept"}, "did you mean 'depth'"),
        ("wrok", {"x": "n", "hue": "depth", "col": "engine"}, "did you mean 'work'"),
        ("status", {"x": "n", "hue": "depth", "col": "engine"}, "is a text"),
        ("names", {"x": "n", "hue": "depth", "col": "engine"}, "holds texts"),
        ("work", {"x": "n", "where": {"depth": 3}}, r"'depth': 3.*use one of 2, 4"),
        ("work", {"x": "n", "hue": "n"}, "every coordinate once"),
        (["work", "gain"], {"x": "n", "col": "depth", "row": "engine"}, "leave out col or row"),
        ("work", {"x": "n", "hue": "depth", "col": "engine", "spread": "sd"}, "spread='sd'"),
        (["work", "entropies"], {"x": "bond", "hue": "n"}, "is a number|depth has 2 values"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(study, quantity, options, words):
    with pytest.raises(ValueError, match=words):
        plot_study(study, quantity, **options)


def product(*, target, size=1):
    return {"bond": target["n"] * target["max_bond"] * size}


def test_listed_settings_follow_one_another_and_last_parts_are_names(tmp_path):
    cases = [{"target.n": n, "target.max_bond": 2 * n} for n in (2, 3, 5)]
    study = Study(product, cases=cases)
    study.run(tmp_path / "listed", progbar=False)
    (points,) = lines(plot_study(study, "bond", x="n")).values()
    assert_allclose(points, [(2, 8), (3, 18), (5, 50)])
    study = Study(
        product, settings={"target.n": 2}, grid={"target.max_bond": [1, 2], "size": [1, 2]}
    )
    study.run(tmp_path / "grid", progbar=False)
    ax = plot_study(study, "bond", x="max_bond", hue="size")
    assert_allclose(lines(ax)["2"], [(1, 4), (2, 8)])


def test_texts_are_shown_as_they_are(tmp_path):
    texts = ["[/b]", "$a_b^$", "_x"]
    study = Study(lambda text, n: {"value": float(n)}, grid={"text": texts, "n": [1, 2]})
    study.run(tmp_path / "study", progbar=False)
    svg = save_figure(study, tmp_path / "figure", "value", x="n", hue="text")[1].read_text()
    console = Console(file=io.StringIO(), width=200)
    live = LiveStudy(tmp_path / "study")
    live.refresh()
    console.print(screen(live, 40, is_running=False))
    for text in texts:
        assert text in svg
        assert text in console.file.getvalue()


def test_what_would_be_averaged_is_named_so_that_it_can_be_given(tmp_path):
    study = Study(lambda a, b: {"value": 1.0}, grid={"a.n": [1, 2], "b.n": [1, 2]})
    study.run(tmp_path, progbar=False)
    with pytest.raises(ValueError, match=r"draw them by hue='b\.n'"):
        plot_study(study, "value", x="a.n")


def test_the_panels_of_figure_4_are_one_call(tmp_path):
    spec = {"kind": "random_mpo", "n": 4, "max_bond": 4}
    options = {"max_sweeps": 3, "n_init": 1, "method": "sweeps", "init": "identity"}
    depths = [1, 2, 3]
    grid = {"depth": depths}
    study = Study(disentangle, settings={"operator": spec, **options}, grid=grid, seeds=2)
    study.run(tmp_path / "fig4", progbar=False)
    axes = plot_study(study, ["overlap", "s_avg", "entangling_gates"], x="depth")
    runs = [
        [disentangle(make_target(spec, seed=s), depth=d, seed=s, **options) for s in range(2)]
        for d in depths
    ]
    expected = (
        [np.median([run.overlap for run in same]) for same in runs],
        [np.median([run.entropies_after.mean() for run in same]) for same in runs],
        [2 * 2, 2 * (2 + 1), 2 * (2 + 1 + 2)],  # of both circuits, on four wires
    )
    for ax, heights in zip(axes, expected, strict=True):
        (points,) = lines(ax).values()
        assert_allclose(points[:, 0], depths)
        assert_allclose(points[:, 1], heights, rtol=1e-12)
    assert [ax.get_ylabel() for ax in axes[:2]] == ["overlap f", "$S_{avg}$ (nats)"]


# --- fits


def test_exponents_and_errors_are_those_of_least_squares(study):
    table = fit_scaling(study, "work", x="n", hue="depth", where={"engine": "tree"})
    for (depth, exponent, error, prefactor, r2, count), given in zip(
        table.rows, GRID["depth"], strict=True
    ):
        logs = np.log([np.median(values(n, given, "tree")) for n in GRID["n"]])
        (slope, offset), covariance = np.polyfit(np.log(GRID["n"]), logs, 1, cov=True)
        assert (depth, count) == (given, len(GRID["n"]))
        assert_allclose((exponent, error), (slope, covariance[0, 0] ** 0.5), rtol=1e-9)
        assert_allclose(prefactor, np.exp(offset), rtol=1e-9)
        assert_allclose(r2, np.corrcoef(np.log(GRID["n"]), logs)[0, 1] ** 2, rtol=1e-9)
        assert abs(exponent - 1.5) < 4 * error
    ax = plot_study(study, "work", x="n", hue="depth", where={"engine": "tree"}, fit="power")
    text = ax.get_legend().get_texts()[0].get_text()
    assert text == rf"2: $\mathrm{{n}}^{{{table.rows[0][1]:.3f} \pm {table.rows[0][2]:.3f}}}$"
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def doubling(*, n, seed):
    return {"work": 3.0 * 2.0 ** (n + 0.01 * seed)}


def test_an_exponential_has_its_base_and_is_told_from_a_power(tmp_path):
    study = Study(doubling, grid={"n": [-1, 0, 2, 5]}, seeds=3)
    study.run(tmp_path, progbar=False)
    ((base, error, prefactor, r2, points),) = study.fit("work", x="n", law="exponential").rows
    assert_allclose((base, prefactor, r2), (2, 3 * 2**0.01, 1), rtol=1e-12)
    assert (points, error < 1e-12) == (4, True)
    ax = study.plot("work", x="n", fit="exponential")
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")
    assert ax.get_legend().get_texts()[0].get_text() == r"$(2.00 \pm 0.00)^{\mathrm{n}}$"
    positive = {"x": "n", "where": {"n": [2, 5, -1]}}
    with pytest.raises(ValueError, match="a x\\^b needs numbers above 0, and work is 1.5"):
        study.fit("work", **positive)
    with pytest.raises(ValueError, match="law='linear' is not known; use 'power' or 'exp"):
        study.fit("work", x="n", law="linear")


def alike(*, n):
    return {"work": 0.1}


def test_a_constant_is_fitted_without_an_error(tmp_path):
    study = Study(alike, grid={"n": [1, 2, 3, 4]})
    study.run(tmp_path, progbar=False)
    for law, b in (("power", 0.0), ("exponential", 1.0)):
        ((found, error, prefactor, _, points),) = study.fit("work", x="n", law=law).rows
        assert (found, error, points) == (b, 0.0, 4)
        assert_allclose(prefactor, 0.1, rtol=1e-14)


@pytest.mark.parametrize(
    ("quantity", "options", "words"),
    [
        (
            "work",
            {"x": "n", "where": {"n": [4, 6], "depth": 2, "engine": "tree"}},
            "needs 3 values",
        ),
        ("gain", {"x": "n", "where": {"depth": 2, "engine": "tree"}}, "above 0, and gain is -"),
        ("work", {"x": "engine", "where": {"depth": 2, "n": 4}}, "are no numbers"),
    ],
)
def test_what_no_law_fits_is_refused(study, quantity, options, words):
    with pytest.raises(ValueError, match=words):
        fit_scaling(study, quantity, **options)


def test_figures_are_files_that_do_not_change(study, tmp_path):
    options = {"x": "n", "hue": "depth", "where": {"engine": "tree"}, "fit": "power"}
    first = [path.read_bytes() for path in save_figure(study, tmp_path / "a.b", "work", **options)]
    written = save_figure(study, tmp_path / "a.b", "work", **options)
    assert [path.name for path in written] == ["a.b.png", "a.b.svg"]
    assert [path.read_bytes() for path in written] == first
    assert first[0].startswith(b"\x89PNG")
    assert ElementTree.fromstring(first[1]).tag.endswith("svg")


# --- while it runs


def half(*, n, depth, seed):
    if n == 9 and seed == 1:
        raise ValueError("no <b>memory</b>")
    time.sleep(0.001 * n)
    return {"overlap": 1 - 1 / (n * depth + seed), "loss": 1 / (n * depth + seed), "engine": "tree"}


@pytest.fixture
def running(tmp_path):
    """A study of which only some cases have ended."""
    study = Study(half, grid={"n": [4, 6, 9], "depth": [2, 4]}, seeds=3)
    few = study.extended(grid={"n": [4, 9]})
    few.run(tmp_path / "half", progbar=False)
    StudyDirectory(tmp_path / "half").write_study(study._described(1))
    return LiveStudy(tmp_path / "half")


def test_the_state_of_a_study_that_runs(running, monkeypatch):
    reads = []
    monkeypatch.setattr(
        records_module, "read_json", lambda path: reads.append(path) or read_json(path)
    )
    for _ in range(2):
        running.refresh()
    assert len(set(reads)) == len(reads) == 10 + 2  # records and failures, each once
    assert (running.total, len(running.failures), running.left) == (18, 2, 6)
    assert (running.x, running.order) == ("n", [4, 6, 9])
    assert [one.label for one in running.series.values()] == ["depth=2", "depth=4"]
    first = running.series[(2,)]
    assert (first.done, first.failed, first.total) == (5, 1, 9)
    expected = [1 - 1 / 9, np.nan, 1 - (1 / 18 + 1 / 20) / 2]
    assert_allclose(first.medians("overlap", running.order), expected)
    assert str(running.best["overlap"]) == "highest overlap 0.973684 at n=9, depth=4, seed=2"
    assert running.best["loss"].is_lowest
    seconds = [read_json(path)["seconds"] for path in reads if path.parent.name == "cases"]
    assert min(seconds) * 6 < running.seconds_left < max(seconds) * 6
    assert load_study(running.directory).status().seconds_left == running.seconds_left


def test_a_case_that_is_tried_again_is_no_failure_any_more(running):
    running.refresh()
    key = next(iter(running.failures))
    running.fail(key, "MemoryError")
    assert running.failures[key][1] == "MemoryError"
    running.add(key, {"overlap": 0.5, "loss": 0.5}, 1.0)
    assert (running.done, len(running.failures), running.left) == (11, 1, 6)


def test_the_page_needs_nothing_but_itself(running):
    running.refresh()
    page = write_page(running, is_running=True).read_text()
    assert not [word for word in ("://", "src=", "@import", "<script", "<link") if word in page]
    assert 'http-equiv="refresh"' in page
    assert "10 of 18" in page
    assert "no &lt;b&gt;memory&lt;/b&gt;" in page
    assert page.count("<polyline") == 2 * 2  # depths, and overlap and loss
    assert (running.directory / "failed").is_dir()
    for key in running.failures:
        assert f'href="failed/{key}.json"' in page
    assert 'http-equiv="refresh"' not in write_page(running).read_text()


def test_the_page_of_ten_thousand_cases_is_cheap(tmp_path):
    study = Study(half, grid={"n": list(range(1, 101)), "depth": list(range(1, 21))}, seeds=5)
    (tmp_path / "many").mkdir()
    there = StudyDirectory(tmp_path / "many")
    there.write_study(study._described(2))
    live = LiveStudy(tmp_path / "many")
    for case in study.cases:
        n, depth = case.settings["n"], case.settings["depth"]
        live.add(case.key, {"overlap": 1 - 1 / (n * depth), "loss": 1 / n, "status": "ok"}, 1.0)
    began = time.process_time()
    write_page(live)
    assert time.process_time() - began < 0.5  # 0.05 s where it was measured
    assert live.seconds_left == 0


def test_watching_prints_a_line_or_draws_a_table(running):
    plain, screen = io.StringIO(), io.StringIO()
    naps = []
    assert not follow(
        running, Console(file=plain, width=60), every=2.0, once=False, sleep=naps.append
    )
    (line,) = plain.getvalue().splitlines()  # one, since nothing has changed
    assert "half: 10 of 18 done, 2 failed, 6 left, about" in line
    assert naps == [2.0]  # nobody works on it
    console = Console(file=screen, width=100, height=30, force_terminal=True, color_system=None)
    follow(running, console, every=2.0, once=True, sleep=naps.append)
    text = screen.getvalue()
    assert "depth=4" in text
    assert "█" in text
    assert "no <b>memory</b>" in text
