"""The numbers on the pages of findings are those of the records that the pages link to."""

import json
import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import linregress

from mpodis import Study
from mpodis.jobs import load_job
from mpodis.paper import load_experiment
from pages import NUMBER

FOLDER = Path(__file__).resolve().parents[1] / "notebooks" / "findings"
PAGES = sorted(p.stem for p in FOLDER.glob("*.md") if "../records/" in p.read_text())

SPREAD = re.compile(
    rf"({NUMBER.pattern}) \(({NUMBER.pattern}) to ({NUMBER.pattern})\)"
    rf"|({NUMBER.pattern}) \+- ({NUMBER.pattern})"
)
"""Median (least to most), or mean +- standard deviation."""

FIXED = {
    "table1-costs": {"2403.13692"},  # arXiv
    # versions of numpy, an earlier record, and the least lead of a network
    "dense-wide": {"2.5", "2.4", *["21.9", "38.2", "37.1", "68.1", "70.9", "85.8", ".33"], "-.04"},
    "fig4": {"2.5", "2.4"},  # versions of numpy
    "recipes": {"0.01"},  # a learning rate
    # settings of hypercube and tomography, version of numpy, fidelity that encodings are fitted to
    "table2": {"7", "729", "2.5", ".999"},
    "trained-mnist": {".04"},  # a learning rate
}
"""Single numbers that no table of the record has."""


def text(page):
    return (FOLDER / f"{page}.md").read_text()


@cache
def rows(page):
    """What is computed from a page's records: the rows of the tables, each as one text."""
    found = []
    for name in re.findall(r"\.\./records/([\w-]+\.json)", text(page)):
        record = json.loads((FOLDER.parent / "records" / name).read_text())
        if "job" not in record:  # of a script
            found += flat_rows(record)
            continue
        job = record["job"]
        tables = (
            load_experiment(record["experiment"]) if job == "reproduce" else load_job(job)
        ).tables
        for table in tables(record):
            found += [" ".join(map(str, row)) for row in (*table.rows, [table.title])]
    for name in re.findall(r"\.\./records/([\w-]+)\.csv", text(page)):
        found += study_rows(name)
    return tuple(found + PREDICTED.get(page, list)())


def flat_rows(record, words=()):
    """Numbers of a record, each after the names and numbers that lead to it."""
    if isinstance(record, dict | list):
        pairs = record.items() if isinstance(record, dict) else enumerate(record)
        own = words
        if isinstance(record, dict) and "workers" in record:
            own = (*words, str(record["workers"]))
            pairs = [*pairs, ("total seconds", sum(record["cpu_seconds"]))]
        return [row for k, value in pairs for row in flat_rows(value, (*own, str(k)))]
    if not isinstance(record, float | int):
        return []
    factors = UNITS.get(next((u for u in UNITS if any(u in w for w in words)), ""), (1.0,))
    return [f"{' '.join(words)} {record * factor:.12g}" for factor in factors]


# --- studies

UNITS = {"bytes": (1e-3, 1e-6, 1e-9), "seconds": (1.0, 1e3, 1 / 60)}
"""Of what is in the record, on the pages: kB, MB and GB; s, ms and minutes."""


def study_rows(name):
    """Settings, and median (least to most) of every number; and fits."""
    study = Study.from_toml(FOLDER.parents[1] / "scripts" / "studies" / f"{name}.toml")
    frame = pd.read_csv(FOLDER.parent / "records" / f"{name}.csv", keep_default_na=False)
    axes = list(study.cases[0].settings)
    numbers = [n for n in frame.select_dtypes("number") if n not in (*axes, "seed")]
    found = [f"{len(frame)} cases, {len(study.seeds)} seeds"]
    for values, group in frame.groupby(axes, sort=False):
        for n in numbers:
            for factor in UNITS.get(n.rpartition("_")[2], (1.0,)):
                spread = "{:.9f} ({:.9f} to {:.9f})".format(
                    *(group[n] * factor).quantile([0.5, 0.0, 1.0])
                )
                found.append(f"{' '.join(map(str, values))} {n} {spread}")
    return found + FITS.get(name, lambda frame: [])(frame)


def _laws(frame):
    """Exponents b of y = a x^b, and bases b of y = a b^x, with their standard errors."""
    bonds = frame[frame.environment_bond.isin(["none", "32"])]
    series = {
        "n": bonds[bonds.depth == 8],
        "depth": bonds[bonds.n == np.where(bonds.engine == "boundary", 32, 10)],
        "environment_bond": frame[
            (frame.n == 32) & (frame.depth == 16) & frame.environment_bond.isin(["32", "64", "128"])
        ],
    }
    found = []
    for x, part in series.items():
        for engine, own in part.groupby("engine"):
            for quantity in ("pass_seconds", "bytes"):
                points = own.groupby(own[x].astype(int))[quantity].median()
                for law, at in (("power", np.log(points.index)), ("base", points.index)):
                    fit = linregress(at, np.log(points))
                    b, error = fit.slope, fit.stderr
                    if law == "base":
                        b, error = np.exp(b), np.exp(b) * error
                    found.append(f"{engine} {quantity} {x} {law} {b:.6f} +- {error:.6f}")
    return found


def _ratios(frame):
    """What is estimated, in units of what is measured, over all problems of an engine."""
    found = []
    for engine, own in frame.groupby("engine"):
        for estimated, measured in (
            ("estimated_seconds", "pass_seconds"),
            ("estimated_bytes", "bytes"),
        ):
            ratios = (own[estimated] / own[measured]).quantile([0.5, 0.0, 1.0])
            found.append("{} {} {:.6f} ({:.6f} to {:.6f})".format(engine, estimated, *ratios))
    return found


def _plan(n=100, depth=128):
    """A half sweep of the boundary engine at another size, from one law fitted to D >= 32."""
    frame = pd.read_csv(FOLDER.parent / "records" / "engines.csv", keep_default_na=False)
    own = frame[(frame.engine == "boundary") & frame.environment_bond.isin(["32", "64", "128"])]
    columns = [own.n, own.depth, own.environment_bond.astype(int)]
    logs = np.column_stack([np.ones(len(own)), *map(np.log, columns)])
    found = []
    for bond in (32, 64, 128, 256):
        at = np.array([1.0, *np.log([n, depth, bond])])
        seconds, size = (
            math.exp(at @ np.linalg.lstsq(logs, np.log(own[q]), rcond=None)[0])
            for q in ("pass_seconds", "bytes")
        )
        hours = 400 * seconds / 3600  # 200 sweeps up and down
        sent = 2 * n * 4 * bond**2 * 8  # two boundaries
        found.append(f"{bond} {seconds:.6f} {hours:.6f} {size / 1e9:.6f} {sent / 1e6:.6f}")
    return found


PREDICTED = {"cluster-plan": _plan}


def _growing(frame):
    """In how many series the overlap grows at every step of the depth, or of the width."""
    found = [f"{(frame.status == 'max_sweeps').sum()} of {len(frame)} at the limit of sweeps"]
    for along, other in (("depth", "width"), ("width", "depth")):
        for value, own in frame.groupby(other):
            steps = own.pivot_table(index="seed", columns=along, values="overlap").diff(axis=1)
            grows = (steps.iloc[:, 1:] > 0).all(axis=1)
            found.append(f"{other} {value}: grows in {grows.sum()} of {len(grows)}")
    lower = frame.s_avg < frame.s_avg_before
    for settings, own in lower.groupby([frame.width, frame.depth]):
        found.append(f"{settings} S_avg is lower in {own.sum()} of {len(own)}")
    return found


FITS = {"depth": _growing, "engines": lambda frame: _laws(frame) + _ratios(frame)}


def close(here, there):
    """Whether a number of the page is one of the record, which may have more digits."""
    shown, known = (len(number.partition(".")[2]) for number in (here, there))
    a, b = (float(number.replace(",", "")) for number in (here, there))
    return abs(a - b) <= (0.5 * 10.0**-shown + 0.5 * 10.0**-known if known > shown else 1e-9)


def wrong_spreads(page, page_text):
    numbers = [NUMBER.findall(row) for row in rows(page)]
    runs = {k: {tuple(n[i : i + k]) for n in numbers for i in range(len(n))} for k in (2, 3)}
    return [
        match.group()
        for match in SPREAD.finditer(page_text)
        if (values := [value for value in match.groups() if value])
        and not any(
            len(run) == len(values) and all(map(close, values, run)) for run in runs[len(values)]
        )
    ]


def cells(page_text):
    """First cell of each row of the tables of a page, and the cells that do not quote the paper."""
    heads = None
    for line in page_text.splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            heads = None
        elif heads is None:
            heads = row
        elif not set(line) <= set("|- "):
            own = [c for c, h in zip(row[1:], heads[1:], strict=True) if "paper" not in h]
            yield row[0], own


def wrong_numbers(page, page_text):
    """Single numbers in tables that are not in the record, in rows that begin with the same number
    if the row of the page begins with one."""
    found = []
    for key, own in cells(page_text):
        first = re.split(r"[ ,]", key.replace(",", ""))[0].lower()
        near = [row for row in rows(page) if first in row.replace(",", "").lower().split()]
        numbers = NUMBER.findall(" ".join(near if NUMBER.match(first) else rows(page)))
        for cell in own:
            for value in NUMBER.findall(SPREAD.sub("", cell)):
                if value not in FIXED.get(page, ()) and not any(close(value, n) for n in numbers):
                    found.append((key, value))
    return found


def wrong_statements(page, page_text):
    """Numbers with a decimal point in sentences, and "N of M", that the record does not have."""
    above = page_text.partition("## Repeat it")[0].splitlines()
    prose = SPREAD.sub("", " ".join(line for line in above if not line.startswith(("|", "!", "#"))))
    numbers = {n for row in rows(page) for n in NUMBER.findall(row)}
    counts = re.findall(r"\d+ of \d+(?![\w-])", prose)

    def known(number):
        return number in FIXED.get(page, ()) or any(close(number, n) for n in numbers)

    return [
        *(n for n in NUMBER.findall(prose) if re.search(r"\.\d", n) and not known(n)),
        *(c for c in counts if not any(re.search(rf"\b{c}\b", row) for row in rows(page))),
    ]


def of_studies(page):
    """Whether the page's records are made of rows."""
    names = re.findall(r"\.\./records/([\w-]+\.json)", text(page))
    records = [json.loads((FOLDER.parent / "records" / name).read_text()) for name in names]
    return all("rows" in record for record in records)


@pytest.mark.parametrize("page", [page for page in PAGES if of_studies(page)])
def test_numbers_in_sentences_are_those_of_the_record(page):
    assert not wrong_statements(page, text(page))


@pytest.mark.parametrize("page", PAGES)
def test_numbers_are_those_of_the_record(page):
    assert not wrong_spreads(page, text(page))
    assert not wrong_numbers(page, text(page))


def test_a_wrong_number_is_found():
    page = text("activations")
    assert wrong_spreads("activations", page.replace("2.7 (.7 to 8.6)", "2.7 (.8 to 8.6)", 1))
    assert wrong_numbers("activations", page.replace("| 76.4 |", "| 77.4 |", 1))
    page = text("cores")
    assert wrong_statements("cores", page.replace("(74.2 against", "(74.3 against", 1)) == ["74.3"]
    assert wrong_statements("cores", page.replace("11 of 36", "13 of 36", 1)) == ["13 of 36"]


@pytest.mark.parametrize("page", PAGES)
def test_the_command_is_that_of_the_record(page):
    def words(command):
        return sorted(re.sub(r" --n-jobs \d+", "", command).split())

    joined = re.sub(r"\\\n\s*", " ", text(page))
    given = [words(line) for line in re.findall(r"^(?:mpodis|python) .*$", joined, re.MULTILINE)]
    for name in re.findall(r"\.\./records/([\w-]+\.json)", text(page)):
        command = json.loads((FOLDER.parent / "records" / name).read_text())["command"]
        assert words(command) in given or words(f"python {command} --out {name}") in given
    for name in re.findall(r"\.\./records/([\w-]+)\.csv", text(page)):
        assert words(f"mpodis study run scripts/studies/{name}.toml") in given
