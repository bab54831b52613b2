"""Options from defaults, TOML and flags: which wins, what is refused, and what is stored."""

import json
from dataclasses import FrozenInstanceError, fields

import pytest

from mpodis.options import LayerConfig, MainConfig, from_mapping, load_config, to_mapping

GIVEN = {LayerConfig: {"file": "w.npy"}, MainConfig: {}}
"""What each config cannot do without."""

both = pytest.mark.parametrize("cls", [MainConfig, LayerConfig])


def toml(tmp_path, text):
    (tmp_path / "job.toml").write_text(text)
    return tmp_path / "job.toml"


# --- where a value comes from


@both
def test_defaults(cls):
    config = load_config(cls, None, GIVEN[cls])
    assert config == cls(**GIVEN[cls])
    for field in fields(cls):
        if field.name not in GIVEN[cls]:
            assert getattr(config, field.name) == field.default
    with pytest.raises(FrozenInstanceError):
        config.seed = 1


def test_flags_win_over_toml_and_toml_over_defaults(tmp_path):
    path = toml(tmp_path, 'n_init = 7\nseed = 5\ndata = "mnist"\n')
    config = load_config(MainConfig, path, {"seed": 9, "n_init": None})
    assert (config.seed, config.n_init, config.data) == (9, 7, "mnist")
    assert config.tol == MainConfig.tol
    assert load_config(MainConfig, str(path)).seed == 5


def test_false_is_a_value_and_not_a_missing_flag(tmp_path):
    path = toml(tmp_path, 'file = "w.pt"\ntranspose = true\n')
    assert load_config(LayerConfig, path).transpose is True
    assert load_config(LayerConfig, path, {"transpose": None}).transpose is True
    assert load_config(LayerConfig, path, {"transpose": False}).transpose is False
    assert load_config(LayerConfig, None, {"file": "w.pt"}).transpose is None


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("depths = [2, 4]", {"depths": "2,4"}),
        ("depths = 3", {"depths": "3"}),
        ('depths = "1, 2,"', {"depths": "1,2"}),
        ('objectives = ["overlap"]', {"objectives": "overlap"}),
        ('objectives = "overlap, activations"', {"objectives": "overlap,activations"}),
        ("tol = 1", {"tol": 1.0}),
        ("learning_rate = 0.1", {"learning_rate": 0.1}),
        ("execute = -1", {"execute": -1}),
    ],
)
def test_toml_and_flags_say_the_same(tmp_path, text, flags):
    from_file = load_config(MainConfig, toml(tmp_path, text))
    assert from_file == load_config(MainConfig, None, flags)
    (name,) = flags
    kind = type(getattr(MainConfig(), name) or 0.0)
    assert type(getattr(from_file, name)) is kind


def test_a_depth_is_a_circuit_too(tmp_path):
    path = toml(tmp_path, 'file = "w.npy"\nleft = 4\nright = "2b + CNOT"\n')
    config = load_config(LayerConfig, path)
    assert (config.left, config.right) == ("4", "2b + CNOT")
    assert config == load_config(
        LayerConfig, None, {"file": "w.npy", "left": "4", "right": config.right}
    )


# --- what is stored


@pytest.mark.parametrize(
    "config",
    [
        MainConfig(),
        MainConfig(depths=(1, 3), objectives=("overlap",), learning_rate=0.5, data_dir="mnist"),
        LayerConfig(file="w.npy"),
        LayerConfig(
            file="w.pt",
            layer="fc1",
            transpose=False,
            inputs="x.npy",
            compress_error=0.1,
            objectives=("overlap", "activations"),
            max_seconds=2.5,
        ),
    ],
)
def test_a_config_survives_being_stored(config):
    stored = json.loads(json.dumps(to_mapping(config)))
    assert from_mapping(type(config), stored) == config
    assert set(stored) == {field.name for field in fields(config)}


# --- what is refused


@both
def test_an_unknown_key_names_the_known_ones(tmp_path, cls):
    known = ", ".join(sorted(field.name for field in fields(cls)))
    for source in ((toml(tmp_path, "strats = 3"),), (None, {"strats": 3})):
        with pytest.raises(ValueError, match=f"^unknown option 'strats'; known are {known}$"):
            load_config(cls, *source)


def test_a_table_is_an_unknown_key(tmp_path):
    with pytest.raises(ValueError, match="unknown option 'run'"):
        load_config(MainConfig, toml(tmp_path, "[run]\nseed = 1"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('seed = "1"', "seed='1' should be of type int"),
        ("seed = 1.5", "seed=1.5 should be of type int"),
        ("seed = true", "seed=True should be of type int"),
        ('tol = "small"', "tol='small' should be of type float"),
        ("tol = true", "tol=True should be of type float"),
        ("data = 1.5", "data=1.5 should be of type str"),
        ("data = ['digits']", r"data=\['digits'\] should be of type str"),
        ("group = false", "group=False should be of type str"),
        ("depths = [1.5]", "depths=1.5 should be of type int"),
        ("depths = [true]", "depths=True should be of type int"),
        ('depths = "2,x"', "depths='x' is not a whole number"),
        ("objectives = [1.5]", "objectives=1.5 should be of type str"),
        ("epochs = 'all'", "epochs='all' should be of type int"),
        ("data_dir = []", r"data_dir=\[\] should be of type str"),
    ],
)
def test_a_wrong_type_names_key_and_value(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_config(MainConfig, toml(tmp_path, text))


def test_a_flag_that_is_no_switch(tmp_path):
    with pytest.raises(ValueError, match="transpose=1 should be of type bool"):
        load_config(LayerConfig, toml(tmp_path, 'file = "w.npy"\ntranspose = 1'))


@pytest.mark.parametrize("name", ["repeats", "bond", "max_bond", "width", "n_init", "max_sweeps"])
def test_counts_begin_at_one(name):
    with pytest.raises(ValueError, match=f"{name}=0 must be 1 or more"):
        MainConfig(**{name: 0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": ()}, "depths is empty; give at least one"),
        ({"objectives": ()}, "objectives is empty; give at least one"),
        ({"depths": (2, 4, 2)}, r"depths=\(2, 4, 2\) names something twice"),
        ({"depths": (2, 0)}, "depths holds 0; a circuit has 1 or more layers"),
        (
            {"objectives": ("overlap", "fidelity")},
            "'fidelity' is not known; use overlap or activations or sensitivity",
        ),
        ({"group": "U"}, "group='U' makes a complex layer, the network is real; use SO or O"),
        ({"execute": -2}, r"execute=-2 must be -1 \(all test images\) or a number"),
        ({"seed": -1}, "seed=-1 must be 0 or more"),
        ({"tol": -0.1}, "tol=-0.1 must be 0 or more"),
        ({"tol": float("nan")}, "tol=nan must be 0 or more"),
    ],
)
def test_the_main_job_is_checked_before_it_begins(options, message):
    with pytest.raises(ValueError, match=message):
        MainConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no file was given; name a .npy, .npz, .safetensors or .pt file"),
        ({"file": "w.npy", "n_init": 0}, "n_init=0 must be 1 or more"),
        ({"file": "w.npy", "objectives": ()}, "objectives is empty"),
        (
            {"file": "w.npy", "objectives": ("sensitivity",)},
            "'sensitivity' is not known; use overlap or activations$",
        ),
        (
            {"file": "w.npy", "objectives": ("activations",)},
            "'activations' needs the layer's inputs; give --inputs FILE",
        ),
    ],
)
def test_the_layer_job_is_checked_before_it_begins(options, message):
    with pytest.raises(ValueError, match=message):
        LayerConfig(**options)


def test_a_missing_config_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*absent.toml"):
        load_config(MainConfig, tmp_path / "absent.toml")


@pytest.mark.parametrize("content", [b"seed = ", b"seed: 3", b"\xff\xfe", b"seed = 1\nseed = 2"])
def test_what_is_not_toml_names_its_file(tmp_path, content):
    (tmp_path / "job.toml").write_bytes(content)
    with pytest.raises(ValueError, match="job.toml is not valid TOML"):
        load_config(MainConfig, tmp_path / "job.toml")
