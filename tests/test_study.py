"""Studies: which cases there are, that each is computed once, and what becomes of the records."""

import functools
import json
import logging
import re
import time

import numpy as np
import pytest
import xarray as xr

import mpodis
from mpodis import Study, StudyResults, disentangle, load_study
from mpodis.cli import main
from mpodis.study import cases
from mpodis.study.cases import expand, fingerprint
from mpodis.study.live import LiveStudy
from mpodis.study.measured import measure
from mpodis.study.records import StudyDirectory

CALLS: list[tuple] = []


def product(a, b=2, *, seed=0, scale=1.0):
    """What the studies here compute: a number, an array and a text."""
    CALLS.append((a, b, seed))
    if scale == 0:
        raise RuntimeError(f"no scale at a={a}")
    return {
        "value": scale * a * b + seed,
        "steps": ("step", np.arange(float(a)), {"units": "s"}),
        "text": f"{a}{b}",
    }


def seedless(a):
    return {"value": a}


def namesake(a, b=1):
    """A result that has the names of settings, of times and of axes."""
    return {"a": "one", "seconds": 5.0, "value": float(a * b), "steps": ("a", np.arange(3.0))}


@pytest.fixture(autouse=True)
def _no_calls():
    CALLS.clear()


def contents(directory):
    """Everything in the records that does not depend on the time and the place of the run."""
    store = StudyDirectory(directory)
    found = {}
    for key in sorted(store.keys()):
        record = store.load(key)
        arrays = {name: v.values.tobytes() for name, v in record.arrays.items()}
        found[key] = (record.settings, record.seed, record.scalars, arrays)
    return found


# --- cases


def test_a_study_is_every_combination_and_each_is_computed_once(tmp_path):
    study = Study(product, grid={"a": [1, 2], "b": [3, 4]}, seeds=2)
    table = study.run(tmp_path, progbar=False)
    assert sorted(CALLS) == sorted((a, b, s) for a in (1, 2) for b in (3, 4) for s in (0, 1))
    assert table.columns == ("a", "b", "cases", "value", "seconds")
    assert [row[:3] for row in table.rows] == [(1, 3, 2), (1, 4, 2), (2, 3, 2), (2, 4, 2)]
    CALLS.clear()
    study.run(tmp_path, progbar=False)
    assert CALLS == []


def of_kind(kind):
    return {"length": len(kind)}


def test_a_setting_may_be_called_kind(tmp_path):
    study = Study(of_kind, grid={"kind": ["SO", "U"]})
    study.run(tmp_path, progbar=False)
    assert study.to_dataframe()["length"].tolist() == [2, 1]


def test_a_case_does_not_see_what_another_did_to_its_arguments(tmp_path):
    def longer(a, b):
        b.append(a)
        return {"length": len(b)}

    study = Study(longer, settings={"b": []}, grid={"a": [1, 2]})
    study.run(tmp_path, progbar=False)
    assert study.to_dataframe()["length"].tolist() == [1, 1]


def test_a_further_seed_or_value_computes_only_itself(tmp_path):
    study = Study(product, grid={"a": [1, 2]}, seeds=2)
    study.run(tmp_path, progbar=False)
    before = contents(tmp_path)
    CALLS.clear()
    more = study.extended(seeds=3)
    more.run(tmp_path, progbar=False)
    assert CALLS == [(1, 2, 2), (2, 2, 2)]
    CALLS.clear()
    more.extended(grid={"a": [1, 2, 5]}).run(tmp_path, progbar=False)
    assert CALLS == [(5, 2, 0), (5, 2, 1), (5, 2, 2)]
    after = contents(tmp_path)
    assert {key: after[key] for key in before} == before
    # a default that is written out is the same case
    CALLS.clear()
    Study(product, settings={"scale": 1.0}, grid={"a": [1, 2, 5]}, seeds=3).run(
        tmp_path, progbar=False
    )
    assert CALLS == []


def test_listed_cases_go_with_the_grid(tmp_path):
    listed = [{"a": 1, "b": 7}, {"a": 2, "b": 9}]
    study = Study(product, cases=listed, grid={"scale": [1.0, 2.0]})
    study.run(tmp_path, progbar=False)
    found = study.to_xarray()
    assert found["value"].dims == ("case", "scale", "seed")
    assert found["value"].values[..., 0].tolist() == [[7, 14], [18, 36]]
    assert found["b"].dims == ("case",)
    assert found["b"].values.tolist() == [7, 9]


def test_parts_of_settings_are_varied_by_names_with_dots():
    def function(operator, *, seed=0):
        return {}

    cases = expand(
        function,
        settings={"operator": {"kind": "random_mpo", "max_bond": 2}},
        grid={"operator.n": [4, 6]},
        cases=[],
        seeds=[0],
        code="1",
    )
    assert [case.arguments["operator"] for case in cases] == [
        {"kind": "random_mpo", "max_bond": 2, "n": n} for n in (4, 6)
    ]
    assert [case.label for case in cases] == ["operator.n=4, seed=0", "operator.n=6, seed=0"]


def test_arrays_are_values_under_their_labels(tmp_path):
    random = np.random.default_rng(0)
    given = {"first": random.normal(size=(8, 8)), "second": random.normal(size=(8, 8))}
    study = Study(disentangle, settings={"depth": 1, "max_sweeps": 3}, grid={"operator": given})
    study.run(tmp_path, progbar=False)
    frame = study.to_dataframe().set_index("operator")
    for label, matrix in given.items():
        alone = disentangle(matrix, depth=1, max_sweeps=3)
        assert frame["overlap"][label] == pytest.approx(alone.overlap, abs=1e-13)
    changed = {**given, "second": random.normal(size=(8, 8))}
    keys = [case.key for case in study.cases]
    other = Study(disentangle, settings={"depth": 1, "max_sweeps": 3}, grid={"operator": changed})
    assert [a.key == b for a, b in zip(other.cases, keys, strict=True)] == [True, False]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"grid": {"aa": [1]}}, "takes no setting 'aa'; did you mean 'a'"),
        ({"settings": {"colour": 1}}, "takes no setting 'colour'; use one of a, b, scale"),
        ({"settings": {"seed": 1}}, "give the seeds of the study by seeds="),
        ({"grid": {"a": []}}, "no values for 'a'"),
        ({"grid": {"a": [1, 2, 1]}}, "a=1 twice"),
        ({"grid": {"a": 3}}, "a=3, which is not several values"),
        ({"grid": {"a": "12"}}, "not several values"),
        ({"grid": {"a": [1]}, "settings": {"a": 2}}, "in the settings and in the grid"),
        ({"cases": [{"a": 1}, {"b": 1}]}, "do not set the same names"),
        ({"cases": [{"a": 1}, {"a": 1}]}, "two cases are the same: a=1, seed=0"),
        ({"grid": {"a": [1]}, "seeds": 0}, "seeds=0 must be"),
        ({"grid": {"a": [1]}, "seeds": [1, 1]}, "must be different whole numbers"),
        ({"grid": {"a": [1]}, "seeds": [1, 1.5]}, "must be different whole numbers"),
        ({"grid": {"a": [1]}, "seeds": [True]}, "must be different whole numbers"),
        ({"grid": {"a": [1]}, "seeds": ["x"]}, "must be different whole numbers"),
        ({"grid": {"a": [1]}, "seeds": [2**63]}, "must be different whole numbers"),
        ({"grid": {"a": [1]}, "seeds": "12"}, "'12' must be a number of seeds"),
        ({"grid": {"a": [1]}, "seeds": 2.0}, "2.0 must be a number of seeds"),
        ({"grid": {"b": [1]}}, "product needs 'a'; give it among the settings"),
        ({"grid": {3: [1]}}, "3 is no name of a setting"),
        ({"grid": {"a..n": [1]}}, "'a..n' is no name of a setting"),
        ({"settings": {"a": {"n": 4}}, "grid": {"a.n.m": [1]}}, "part of a.n, which is 4"),
        ({"settings": {"a": 1}, "grid": {"a.n": [1]}}, "which is 1 and has no parts"),
    ],
)
def test_what_cannot_be_a_study_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Study(product, **given)


def test_other_refusals(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="takes no seed"):
        Study(seedless, settings={"a": 1}, seeds=2)
    with pytest.raises(ValueError, match="'seconds' cannot vary"):
        Study(lambda seconds: {"value": seconds}, grid={"seconds": [1, 2]})
    with pytest.raises(ValueError, match="did you mean 'disentangle'"):
        Study("disentangel")
    with pytest.raises(ValueError, match="there is no function 'mpodis.mpo:nothing'"):
        Study("mpodis.mpo:nothing")
    for operator, message in [
        ({"kind": "random", "n": 4}, "kind='random' is no target"),
        ({"kind": "random_mpo", "n": 4, "maxbond": 4}, "did you mean 'max_bond'"),
        ({"kind": "random_mpo", "n": 4}, "random_mpo needs max_bond"),
    ]:
        with pytest.raises(ValueError, match=message):
            Study(disentangle, settings={"operator": operator}, grid={"depth": [1]})
    with pytest.raises(TypeError, match="a object cannot be a setting"):
        Study(product, settings={"a": object()})
    for function in (functools.partial(product, b=3), 3):
        with pytest.raises(TypeError, match="has no name, by which records are told apart"):
            Study(function, grid={"a": [1]})
    for wrong in ({"grid": [1]}, {"settings": "a"}, {"cases": ["a"]}):
        with pytest.raises(TypeError, match="must be a mapping of names to values"):
            Study(product, **wrong)
    (tmp_path / "broken.py").write_text("def f(a):\n  return {\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="'broken' of the function 'broken:f' cannot be imported"):
        Study("broken:f")
    with pytest.raises(FileNotFoundError, match="there is no file nowhere.npy"):
        Study(disentangle, settings={"operator": {"kind": "load_operator", "path": "nowhere.npy"}})
    study = Study(product, settings={"a": 1})
    with pytest.raises(ValueError, match="run it"):
        study.to_dataframe()
    for options, message in [
        ({"n_jobs": 0}, "n_jobs=0"),
        ({"n_jobs": 10_000}, "more than the"),
        ({"threads": 0}, "threads=0"),
        ({"resumable": True}, "takes no run_dir"),
    ]:
        with pytest.raises(ValueError, match=message):
            study.run(tmp_path / "new", progbar=False, **options)
    assert not (tmp_path / "new").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(ValueError, match="is not empty and holds no study"):
        study.run(tmp_path / "taken", progbar=False)
    with pytest.raises(FileNotFoundError, match="no study"):
        load_study(tmp_path / "taken")
    with pytest.raises(ValueError, match="is a file; give a directory"):
        study.run(tmp_path / "broken.py", progbar=False)
    study.run(tmp_path / "whole", progbar=False)
    (tmp_path / "whole" / "study.json").write_text("{")
    with pytest.raises(ValueError, match="if it is removed, the next run"):
        study.run(tmp_path / "whole", progbar=False)
    (tmp_path / "whole" / "study.json").unlink()
    CALLS.clear()
    study.run(tmp_path / "whole", progbar=False)
    assert not CALLS
    with pytest.raises(ValueError, match="is a directory; give the TOML file"):
        Study.from_toml(tmp_path)


# --- records


def test_a_failed_case_is_listed_and_stops_nothing(tmp_path, caplog):
    study = Study(product, grid={"a": [1, 2], "scale": [0.0, 1.0]})
    table = study.run(tmp_path, progbar=False)
    assert "2 of 4 cases failed, see failures()" in table.notes
    assert "RuntimeError: no scale at a=1" in caplog.text
    failures = study.failures()
    assert [row[2] for row in failures.rows] == [f"RuntimeError: no scale at a={a}" for a in (1, 2)]
    traceback = json.loads((tmp_path / failures.rows[0][3]).read_text())["traceback"]
    assert "in product" in traceback
    CALLS.clear()
    study.run(tmp_path, progbar=False)
    assert CALLS == []
    study.run(tmp_path, progbar=False, retry=True)
    assert len(CALLS) == 2
    status = study.status()
    assert (status.total, status.done, status.failed, status.left) == (4, 2, 2, 0)
    assert np.isnan(study.to_xarray()["value"].sel(scale=0.0)).all()


@pytest.mark.parametrize("content", ["", "[]", "null", "{}"])
def test_a_damaged_failure_is_named_among_the_failures(tmp_path, content):
    study = Study(product, grid={"scale": [0.0, 1.0]}, settings={"a": 1})
    study.run(tmp_path, progbar=False)
    (file,) = (tmp_path / "failed").iterdir()
    file.write_text(content)
    (row,) = load_study(tmp_path).failures().rows
    assert row[2].startswith(f"{file} is damaged")
    live = LiveStudy(tmp_path)
    live.refresh()
    assert (live.done, len(live.failures)) == (1, 1)


@pytest.mark.parametrize("kind", [".json", ".safetensors"])
def test_a_damaged_record_is_named_left_out_and_computed_again(tmp_path, caplog, kind):
    study = Study(product, grid={"a": [1, 2, 3]})
    study.run(tmp_path, progbar=False)
    before = contents(tmp_path)
    file = (tmp_path / "cases" / study.cases[1].key).with_suffix(kind)
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    seen = header if kind == ".safetensors" else len(whole)  # the status does not read arrays
    for position in range(0, len(whole), 7):
        data = bytearray(whole)
        data[position] ^= 1 << (position % 8)
        file.write_bytes(bytes(data))
        caplog.clear()
        found = load_study(tmp_path)
        if len(found.records()) == 3:
            assert contents(tmp_path) == before, f"byte {position} was changed in silence"
            continue
        assert str(file.with_suffix("")) in caplog.text
        assert len(found.records()) == 2
        if position < seen:
            status = found.status()
            assert (status.done, status.damaged, status.left) == (2, 1, 1)
            assert re.search(r"of these, damaged +1\b", str(status))
            assert status.seconds_left > 0
    file.write_bytes(whole[:-1])
    assert load_study(tmp_path).status().damaged == 1
    CALLS.clear()
    study.run(tmp_path, progbar=False)
    assert CALLS == [(2, 2, 0)]
    assert contents(tmp_path) == before


def _without_arrays(file):
    file.with_suffix(".safetensors").unlink()


def _empty(file):
    file.write_bytes(b"")


def _of_another_case(file):
    for suffix in (".json", ".safetensors"):
        other = next(f for f in file.parent.glob(f"*{suffix}") if f.stem != file.stem)
        file.with_suffix(suffix).write_bytes(other.read_bytes())


def _arrays_of_another_case(file):
    whole = file.read_bytes()
    _of_another_case(file)
    file.write_bytes(whole)


def _directory(file):
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("has_failed", [False, True])
@pytest.mark.parametrize(
    "damage", [_without_arrays, _empty, _of_another_case, _arrays_of_another_case, _directory]
)
def test_a_damaged_record_is_left_and_counted_once(tmp_path, monkeypatch, damage, has_failed):
    study = Study(product, grid={"a": [1, 2, 3]})
    study.run(tmp_path, progbar=False)
    before = contents(tmp_path)
    live = LiveStudy(tmp_path)
    key = study.cases[1].key
    file = tmp_path / "cases" / f"{key}.json"
    damage(file)
    if has_failed:
        study._there().save_failure(key, {"error": "OSError: of a run before"})
    status = study.status()
    assert (status.done, status.failed, status.damaged, status.left) == (2, 0, 1, 1)
    live.refresh()
    assert (live.done, len(live.failures), live.damaged, live.left) == (2, 0, {key}, 1)
    assert "2 of 3 done, 1 left, 1 of these damaged" in live.line()
    monkeypatch.setattr("sys.argv", ["mpodis", "study", "watch", str(tmp_path), "--once"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    if damage is _directory:  # which is not ours to remove
        with pytest.raises(OSError, match=f"{key}.json is a directory, .* move it away"):
            study.run(tmp_path, progbar=False)
        file.rmdir()
    study.run(tmp_path, progbar=False, retry=True)
    assert contents(tmp_path) == before
    live.refresh()
    assert (study.status().left, live.left, live.damaged) == (0, 0, set())


def test_other_code_or_another_function_is_not_mixed_in(tmp_path):
    Study(product, grid={"a": [1]}).run(tmp_path, progbar=False)
    changed = Study(product, grid={"a": [1]}, code="another")
    with pytest.raises(ValueError, match="were made by other code .*recompute=True"):
        changed.run(tmp_path, progbar=False)
    with pytest.raises(ValueError, match=r"holds a study of .*:product, not of .*:seedless"):
        Study(seedless, grid={"a": [1]}).run(tmp_path, progbar=False)
    CALLS.clear()
    changed.run(tmp_path, progbar=False, recompute=True)
    assert CALLS == [(1, 2, 0)]


def test_a_file_that_changed_under_the_records_is_named(tmp_path):
    file = tmp_path / "w.npy"
    np.save(file, np.eye(4))
    settings = {
        "operator": {"kind": "load_operator", "path": str(file)},
        "depth": 1,
        "max_sweeps": 2,
    }
    Study(disentangle, settings=settings).run(tmp_path / "study", progbar=False)
    before = contents(tmp_path / "study")
    np.save(file, 2 * np.eye(4) + 1)
    changed = Study(disentangle, settings=settings)
    with pytest.raises(ValueError, match=f"{file} has changed under the records"):
        changed.run(tmp_path / "study", progbar=False)
    assert contents(tmp_path / "study") == before
    changed.run(tmp_path / "study", progbar=False, recompute=True)
    assert len(changed.to_dataframe()) == 1
    np.save(file, np.eye(4))  # after the study was made: its keys have the hash of the other one
    changed.run(tmp_path / "new", progbar=False)
    assert "w.npy has changed since the study was made" in str(changed.failures())
    assert not contents(tmp_path / "new")


def test_a_file_and_an_array_of_all_cases_are_read_once(tmp_path, monkeypatch):
    read = []
    for name in ("file_hash", "fingerprint"):
        whole = getattr(cases, name)
        monkeypatch.setattr(cases, name, lambda v, whole=whole: (read.append(v), whole(v))[1])
    np.save(tmp_path / "w.npy", np.eye(4))
    target = {"kind": "load_operator", "path": str(tmp_path / "w.npy")}
    settings = {"operator": target, "inputs": np.ones((3, 4))}
    study = Study(disentangle, settings=settings, grid={"depth": range(1, 9)})
    assert len({case.key for case in study.cases}) == 8
    assert len(read) == 2


def test_a_study_can_be_read_while_it_runs(tmp_path):
    seen = []

    def watching(a):
        if (tmp_path / "study.json").exists():
            seen.append(load_study(tmp_path).status())
        return {"value": a}

    study = Study(watching, grid={"a": [1, 2, 3]}, code="1")
    study.run(tmp_path, progbar=False)
    assert [status.done for status in seen] == [0, 1, 2]
    assert all(status.is_running for status in seen)
    assert not study.status().is_running


# --- what records become


def test_dataframe_dataset_and_files_agree(tmp_path):
    study = Study(product, settings={"b": 3}, grid={"a": [1, 4]}, seeds=[5, 7])
    study.run(tmp_path / "study", progbar=False)
    frame, found = study.to_dataframe(), study.to_xarray()
    assert frame["value"].tolist() == [8, 10, 17, 19]
    assert found["value"].values.tolist() == [[8, 10], [17, 19]]
    assert found["steps"].dims == ("a", "seed", "step")
    assert found["steps"].attrs == {"units": "s"}
    assert np.isnan(found["steps"].sel(a=1, step=[1, 2, 3])).all()
    study.export(tmp_path / "records.nc")
    study.export(tmp_path / "records.csv")
    study.export(tmp_path / "records.parquet")
    pandas = pytest.importorskip("pandas")
    xr.testing.assert_identical(
        xr.load_dataset(tmp_path / "records.nc", engine="h5netcdf").drop_vars("text"),
        found.drop_vars("text"),
    )
    pandas.testing.assert_frame_equal(pandas.read_parquet(tmp_path / "records.parquet"), frame)
    assert pandas.read_csv(tmp_path / "records.csv")["value"].tolist() == frame["value"].tolist()
    mixed = Study(seedless, grid={"a": [2, None]})  # as a max_bond, or none
    mixed.run(tmp_path / "mixed", progbar=False)
    mixed.export(tmp_path / "mixed.parquet")
    assert pandas.read_parquet(tmp_path / "mixed.parquet")["a"].tolist() == ["2", "none"]
    with pytest.raises(ValueError, match=r"must end in \.nc"):
        study.export(tmp_path / "records.pkl")
    assert isinstance(load_study(tmp_path / "study"), StudyResults)
    assert load_study(tmp_path / "study").to_xarray().identical(found)


def test_settings_of_other_content_have_other_keys():
    torch = pytest.importorskip("torch")
    gate = np.eye(4)
    placed = [((mpodis.circuit.Placement(wires),),) for wires in [(0, 1), (2, 3)]]
    places = [mpodis.circuit.Ansatz(4, layers) for layers in placed]
    different = [
        *(mpodis.Circuit(ansatz, (gate,)) for ansatz in places),
        *(torch.tensor([1.0, 1j * y]) for y in (0.0, 1.0)),
        *(torch.nn.Linear(2, n) for n in (2, 3)),
        np.eye(4),
        np.eye(2),
    ]
    assert len({fingerprint(value) for value in different}) == len(different)
    assert fingerprint(different[0]) == fingerprint(mpodis.Circuit(places[0], (gate.copy(),)))


def test_results_with_the_names_of_settings_are_kept_beside_these(tmp_path):
    study = Study(namesake, grid={"a": [1, 2]})
    table = study.run(tmp_path / "study", progbar=False)
    assert [row[0] for row in table.rows] == [1, 2]
    frame, found = study.to_dataframe(), study.to_xarray()
    assert frame["a"].tolist() == [1, 2]
    assert frame["a_found"].tolist() == ["one", "one"]
    assert frame["seconds_found"].tolist() == [5, 5] != frame["seconds"].tolist()
    assert found["steps"].dims == ("a", "a_axis")
    study.export(tmp_path / "records.nc")


def test_records_have_the_settings_that_vary_now(tmp_path):
    study = Study(namesake, grid={"a": [1, 2]})
    study.run(tmp_path, progbar=False)
    more = study.extended(grid={"b": [1, 3]})  # the cases of b=1 are those that are there
    more.run(tmp_path, progbar=False)
    assert contents(tmp_path).keys() > {case.key for case in study.cases}
    assert more.to_dataframe().set_index(["a", "b"])["value"].to_dict() == {
        (a, b): a * b for a in (1, 2) for b in (1, 3)
    }


def test_what_a_function_returns_becomes_scalars_and_arrays():
    scalars, arrays = measure(
        {
            "a": np.float64(1.5),
            "n": np.int64(3),
            "on": True,
            "what": None,
            "parts": {"left": 2, "deep": {"x": [1.0, 2.0]}},
            "m": (("row", "column"), np.eye(2)),
            "z": np.array([1j]),
        }
    )
    assert scalars == {"a": 1.5, "n": 3, "on": True, "what": None, "parts_left": 2}
    assert {name: v.dims for name, v in arrays.items()} == {
        "parts_deep_x": ("parts_deep_x_0",),
        "m": ("row", "column"),
        "z": ("z_0",),
    }
    for wrong in ({"a": object()}, {"a": [object()]}, 3):
        with pytest.raises(TypeError):
            measure(wrong)
    for result, message in [
        ({"a": ("row", np.eye(2))}, "2 axes"),
        ({"a": (("row", "row"), np.eye(2))}, "name every axis once"),
        ({"a": ("row", [1, 2]), "b": ("row", [1, 2, 3])}, "'a' has 2 values along 'row', and 'b'"),
        ({"a": 10**400}, "'a' is too large for a float"),
        ({"": 1.0}, "empty name"),
    ]:
        with pytest.raises(ValueError, match=message):
            measure(result)
    assert measure({"a": 2**62, "b": 2**64})[0] == {"a": 2**62, "b": 2.0**64}


def test_a_result_named_like_a_setting_does_not_take_its_place(tmp_path):
    def entropies(*, bond, engine, seed):
        used = "dense" if engine == "auto" else engine
        return {"engine": used, "bond": bond, "entropies": ("bond", np.arange(5.0) + bond)}

    study = Study(entropies, grid={"engine": ["auto", "tree"], "bond": [2, 4]}, seeds=2)
    table = study.run(tmp_path, progbar=False)
    assert [row[:3] for row in table.rows] == [
        ("auto", 2, 2),
        ("auto", 4, 2),
        ("tree", 2, 2),
        ("tree", 4, 2),
    ]
    found = study.to_xarray()
    assert found["entropies"].dims == ("engine", "bond", "seed", "bond_axis")
    assert found["engine_found"].sel(engine="auto").values.ravel().tolist() == ["dense"] * 4
    with pytest.raises(ValueError, match="bond_axis has 5 values"):
        study.plot("entropies", x="bond", hue="engine")
    ax = study.plot("entropies", x="bond_axis", hue="bond", where={"engine": "auto"})
    np.testing.assert_array_equal(ax.lines[1].get_xydata(), [[k + 1, k + 4] for k in range(5)])


@pytest.mark.parametrize(
    "function",
    [mpodis.compress, mpodis.entanglement, lambda m: disentangle(m, depth=1, max_sweeps=3)],
)
def test_results_of_the_package_are_measured(function):
    matrix = np.random.default_rng(0).normal(size=(8, 8))
    result = function(matrix)
    scalars, arrays = measure(result)
    assert scalars["s_avg"] == pytest.approx(
        mpodis.entanglement(matrix).average
        if not hasattr(result, "entropies_after")
        else result.entropies_after.mean()
    )
    name = "entropies" if "entropies" in arrays else "entropies_after"
    assert arrays[name].dims == ("bond",)
    assert arrays[name].attributes == {"units": "nats"}


def test_compiled_circuits_are_measured():
    found = mpodis.compile_unitary(np.eye(8), depth=1, max_iterations=5)
    scalars, arrays = measure(found)
    assert scalars["loss"] == found.loss
    assert scalars["n_cnots"] == found.n_cnots
    assert all(v.dims == ("record",) for v in arrays.values())


def test_keys_and_records_do_not_depend_on_the_order_of_settings(tmp_path):
    first = Study(product, settings={"b": 3, "scale": 2.0}, grid={"a": [1]})
    second = Study(product, settings={"scale": 2.0, "b": 3}, grid={"a": [1]})
    assert [case.key for case in first.cases] == [case.key for case in second.cases]


def test_many_records_are_read_in_little_time_and_space(tmp_path, caplog):
    study = Study(product, grid={"a": list(range(1, 11)), "b": list(range(20))}, seeds=2)
    caplog.set_level(logging.ERROR, logger="mpodis")
    study.run(tmp_path, progbar=False)
    began = time.process_time()
    found = load_study(tmp_path).to_xarray()
    assert time.process_time() - began < 400 * 5e-3  # ten times what it takes
    numbers = 400 * (1 + 10 + 2) * 8
    assert sum(v.nbytes for v in found.data_vars.values() if v.dtype != object) < 2 * numbers
