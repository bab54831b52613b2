"""Options: declared once, checked, from defaults, TOML and flags, and stored."""

import json
import tomllib
from dataclasses import FrozenInstanceError, dataclass, fields

import numpy as np
import pytest

from mpodis.options import (
    Config,
    DisentangleConfig,
    ParetoConfig,
    ReproduceConfig,
    RunConfig,
    SearchOptions,
    like,
    load_options,
    option,
    read_options,
)

GIVEN = {
    RunConfig: {},
    DisentangleConfig: {"file": "w.npy"},
    ParetoConfig: {"file": "w.npy"},
    SearchOptions: {},
    ReproduceConfig: {},
}
"""What each cannot do without."""

every_class = pytest.mark.parametrize("cls", GIVEN)


def toml(tmp_path, text):
    (tmp_path / "job.toml").write_text(text)
    return tmp_path / "job.toml"


# --- where a value comes from


@every_class
def test_defaults(cls):
    options = load_options(cls, None, GIVEN[cls])
    assert options == cls(**GIVEN[cls])
    for field in fields(cls):
        if field.name not in GIVEN[cls]:
            assert getattr(options, field.name) == field.default
    with pytest.raises(FrozenInstanceError):
        options.seed = 1


@every_class
def test_every_option_is_explained_in_a_sentence(cls):
    for field in fields(cls):
        help = field.metadata["help"]
        assert help[0].isupper(), field.name
        assert help.endswith("."), field.name


def test_a_search_has_the_options_and_defaults_of_disentangle():
    import inspect

    from mpodis import disentangle

    signature = inspect.signature(disentangle).parameters
    for field in fields(SearchOptions):
        if field.name in signature:
            assert signature[field.name].default == field.default, field.name
    circuits = {"depth", "left", "right", "group", "objectives", "n_jobs"}
    own = {f.name for f in fields(DisentangleConfig)}
    assert {f.name for f in fields(SearchOptions)} - {"objective"} | circuits <= own


def test_flags_win_over_toml_and_toml_over_defaults(tmp_path):
    path = toml(tmp_path, 'n_init = 7\nseed = 5\ndata = "mnist"\n')
    options = load_options(RunConfig, path, {"seed": "9"})
    assert (options.seed, options.n_init, options.data) == (9, 7, "mnist")
    assert options.tol == RunConfig.tol
    assert load_options(RunConfig, str(path)).seed == 5


def test_false_is_a_value_and_not_a_missing_flag(tmp_path):
    path = toml(tmp_path, 'file = "w.pt"\ntranspose = true\n')
    assert load_options(DisentangleConfig, path).transpose is True
    assert load_options(DisentangleConfig, path, {"transpose": False}).transpose is False
    assert load_options(DisentangleConfig, None, {"file": "w.pt"}).transpose is None


@pytest.mark.parametrize(
    ("text", "flags", "value"),
    [
        ("depth = [2, 4]", {"depth": "2,4"}, (2, 4)),
        ("depth = 3", {"depth": "3"}, (3,)),
        ('depth = "1, 2,"', {"depth": "1,2"}, (1, 2)),
        ('objectives = ["overlap"]', {"objectives": "overlap"}, ("overlap",)),
        (
            'objectives = "overlap, activations"',
            {"objectives": "overlap,activations"},
            ("overlap", "activations"),
        ),
        ("tol = 1", {"tol": "1"}, 1.0),
        ("learning_rate = 0.1", {"learning_rate": "1e-1"}, 0.1),
        ("execute = -1", {"execute": "-1"}, -1),
        ('memory = "none"', {"memory": "none"}, None),
        ('data_dir = "none"', {"data_dir": "none"}, "none"),
        ("environment_bond = 8", {"environment_bond": "8"}, (8,)),
    ],
)
def test_toml_and_flags_say_the_same(tmp_path, text, flags, value):
    from_file = load_options(RunConfig, toml(tmp_path, text))
    assert from_file == load_options(RunConfig, None, flags)
    (name,) = flags
    found = getattr(from_file, name)
    assert found == value
    assert type(found) is type(value)


def test_a_depth_is_a_circuit_too(tmp_path):
    path = toml(tmp_path, 'file = "w.npy"\nleft = 4\nright = "2b + CNOT"\n')
    options = load_options(DisentangleConfig, path)
    assert (options.left, options.right) == ("4", "2b + CNOT")


# --- what is stored


@pytest.mark.parametrize(
    "options",
    [
        RunConfig(),
        RunConfig(depth=(1, 3), objectives=("overlap",), learning_rate=0.5, data_dir="mnist"),
        DisentangleConfig(file="w.npy"),
        DisentangleConfig(
            file="w.pt",
            layer="fc1",
            transpose=False,
            inputs="x.npy",
            compress_error=0.1,
            objectives=("overlap", "activations"),
            max_seconds=2.5,
        ),
        SearchOptions(environment_bond=8, optimize="hyper", memory=1e9),
        ParetoConfig(file='a "quoted"\\path\n\x7fé😀.npy', families=()),
    ],
)
def test_options_survive_being_stored(options, tmp_path):
    stored = json.loads(json.dumps(options.to_dict()))
    assert type(options).from_dict(stored) == options
    assert set(stored) == {field.name for field in fields(options)}
    # TOML, which has no null, leaves out what has no value
    written = {name: value for name, value in stored.items() if value is not None}
    assert tomllib.loads(options.to_toml()) == written
    (tmp_path / "options.toml").write_text(options.to_toml())
    assert load_options(type(options), tmp_path / "options.toml") == options


def test_numbers_of_numpy_become_those_that_json_knows():
    options = SearchOptions(max_bond=np.int64(3), tol=np.float32(0.5))
    assert [type(v) for v in (options.max_bond, options.tol)] == [int, float]


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = DisentangleConfig(file="w.npy", layer="fc1").with_absolute_paths()
    assert options.file == str(tmp_path / "w.npy")
    assert (options.inputs, options.layer) == (None, "fc1")


# --- one objective out of several


def test_a_job_makes_the_options_of_a_search():
    job = DisentangleConfig(file="w.npy", max_bond=3, dtype="float32", optimize="hyper")
    search = job.search("overlap")
    assert search == SearchOptions(max_bond=3, dtype="float32", optimize="hyper")
    run = RunConfig(tol=0.5)
    # the sensitivity is a weight of the activations
    assert run.search("sensitivity") == run.search("activations")
    assert run.search("activations").objective == "activations"
    assert run.search("overlap").init == "identity"


def test_an_option_is_taken_over_with_another_default():
    @dataclass(frozen=True)
    class Other(Config):
        max_bond: int = like(SearchOptions, "max_bond", 5)
        places: tuple[str, ...] = option(
            ("auto",), "Names.", choices=("auto",), registry="mpodis.environments:ENGINES"
        )

    assert Other().max_bond == 5
    assert Other(places=("dense",)).places == ("dense",)
    with pytest.raises(ValueError, match="max_bond=0 must be a whole number, 1 or more"):
        Other(max_bond=0)
    with pytest.raises(ValueError, match="places='gpu' is not known; use one of auto, dense"):
        Other(places=("gpu",))


# --- what is refused


@every_class
def test_an_unknown_name_is_refused(tmp_path, cls):
    known = ", ".join(sorted(field.name for field in fields(cls)))
    for read in (
        lambda: load_options(cls, toml(tmp_path, "zzz = 3")),
        lambda: read_options(cls, {"zzz": 3}),
        lambda: cls.from_dict({"zzz": 3}),
    ):
        with pytest.raises(ValueError, match=f"^unknown option 'zzz'; use one of {known}$"):
            read()
    with pytest.raises(ValueError, match=r"^unknown option 'sed'; did you mean 'seed'\?$"):
        read_options(cls, {"sed": 3})


def test_a_table_is_an_unknown_name(tmp_path):
    with pytest.raises(ValueError, match="unknown option 'run'"):
        load_options(RunConfig, toml(tmp_path, "[run]\nseed = 1"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = 1.5", "seed=1.5 must be a whole number$"),
        ("seed = true", "seed=True must be a whole number$"),
        ('tol = "small"', "tol='small' must be a number$"),
        ("tol = true", "tol=True must be a number$"),
        ("data = ['digits']", r"data=\['digits'\] must be a text$"),
        ("group = false", "group='False' is not known; use one of SO, O"),
        ("depth = [1.5]", r"depth=\[1.5\] must be a whole number, or several"),
        ("depth = [true]", r"depth=\[True\] must be a whole number, or several"),
        ('depth = "2,x"', r"depth='2,x' must be a whole number, or several with commas$"),
        ("objectives = [1.5]", "objectives='1.5' is not known"),
        ("epochs = 'all'", "epochs='all' must be a whole number, or none$"),
        ("data_dir = []", r"data_dir=\[\] must be a text$"),
    ],
)
def test_a_wrong_type_names_option_and_value(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        load_options(RunConfig, toml(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_switch_is_true_or_false(tmp_path):
    with pytest.raises(ValueError, match="transpose=2 must be true or false, or none$"):
        load_options(DisentangleConfig, toml(tmp_path, 'file = "w.npy"\ntranspose = 2'))


FILE = {"file": "w.npy"}


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        *(
            (RunConfig, {name: 0}, f"{name}=0 must be a whole number, 1 or more")
            for name in ("repeats", "bond", "max_bond", "width", "n_init", "max_sweeps", "epochs")
        ),
        (RunConfig, {"depth": ()}, r"depth=\(\) is empty; give at least one value"),
        (RunConfig, {"objectives": ()}, r"objectives=\(\) is empty; give at least one value"),
        (RunConfig, {"depth": (2, 4, 2)}, r"depth=\(2, 4, 2\) contains duplicates"),
        (RunConfig, {"depth": (2, 0)}, "depth=0 must be a whole number, 1 or more"),
        (
            RunConfig,
            {"objectives": ("overlap", "fidelity")},
            "'fidelity' is not known; use one of overlap, activations, sensitivity",
        ),
        (RunConfig, {"group": "U"}, "group='U' is not known; use one of SO, O$"),
        (RunConfig, {"execute": -2}, "execute=-2 must be a whole number, -1 or more"),
        (RunConfig, {"seed": -1}, "seed=-1 must be a whole number, 0 or more"),
        (RunConfig, {"tol": -0.1}, "tol=-0.1 must be a number, 0.0 or more"),
        (RunConfig, {"tol": float("nan")}, "tol=nan must be a number, 0.0 or more"),
        (RunConfig, {"learning_rate": 0.0}, "learning_rate=0.0 must be a positive number"),
        (RunConfig, {"engine": "gpu"}, "engine='gpu' is not known; use one of auto, dense"),
        (DisentangleConfig, {}, "no file was given; name a .npy, .npz, .safetensors or .pt file"),
        (DisentangleConfig, FILE | {"n_init": 0}, "n_init=0 must be a whole number"),
        (DisentangleConfig, FILE | {"objectives": ()}, r"objectives=\(\) is empty"),
        (DisentangleConfig, FILE | {"depth": 0}, "depth=0 must be a whole number, 1 or more"),
        (
            DisentangleConfig,
            FILE | {"depth": 2, "left": "2b"},
            "depth=2 describes both circuits; leave it out where left= or right= is given",
        ),
        (
            DisentangleConfig,
            FILE | {"objectives": ("sensitivity",)},
            "'sensitivity' is not known; use one of overlap, activations$",
        ),
        (
            DisentangleConfig,
            FILE | {"objectives": ("activations",)},
            "'activations' needs the layer's inputs; give --inputs FILE",
        ),
        (ParetoConfig, FILE | {"beam": 0}, "beam=0 must be a whole number, 1 or more"),
        (ParetoConfig, FILE | {"objective": "activations"}, "give --inputs FILE"),
        (SearchOptions, {"optimize": "best"}, "optimize='best' is not known; use one of greedy, h"),
        (ReproduceConfig, {"n_jobs": 0}, "n_jobs=0 must be a whole number, 1 or more"),
    ],
)
def test_values_that_are_not_allowed(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(**options)


def test_a_missing_config_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*absent.toml"):
        load_options(RunConfig, tmp_path / "absent.toml")


@pytest.mark.parametrize("content", [b"seed = ", b"seed: 3", b"\xff\xfe", b"seed = 1\nseed = 2"])
def test_what_is_not_toml_names_its_file(tmp_path, content):
    (tmp_path / "job.toml").write_bytes(content)
    with pytest.raises(ValueError, match="job.toml is not valid TOML"):
        load_options(RunConfig, tmp_path / "job.toml")
