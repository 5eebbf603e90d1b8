import ast
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avemo import configuration
from avemo.models import expression
from media.errors import UserError

TEACHER = "configs/paper/teacher.py"


def load(name, text):
    return configuration.load(TEACHER, [f"--config.{name}={text}"])


def test_an_override_takes_the_fields_type():
    overrides = ["--config.optimizer.learning_rate=1", "--config.data.faces=5", "--config.steps=7"]
    config = configuration.load(TEACHER, overrides)
    assert config.optimizer.learning_rate == 1.0
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.data.faces == "5"
    assert config.steps == 7


def test_a_margin_may_become_one_per_triplet_type():
    config = configuration.load(TEACHER, ["--config.loss.margin=(0.1,0.2,0.2)"])
    assert config.loss.margin == (0.1, 0.2, 0.2)


@pytest.mark.parametrize("text", ["2.0", "2", "1,2", "(1,2)", "[1, 2.5]", "-1,2e3", "(3,)", "()", ""])
def test_class_weights_are_numbers_although_the_default_is_empty(text):
    weights = load("loss.class_weights", text).loss.class_weights
    literal = ast.literal_eval(text or "()")
    assert weights == tuple(literal if isinstance(literal, (tuple, list)) else [literal])
    assert all(type(weight) is float for weight in weights)


NUMBERS = st.one_of(st.integers(-(10**12), 10**12), st.floats(allow_nan=False, allow_infinity=False))
FORMS = st.sampled_from(["({},)", "[{}]", "{}"])


@given(st.lists(NUMBERS, min_size=1, max_size=8), FORMS)
def test_numbers_written_in_any_form_are_read_as_they_are(numbers, form):
    text = form.format(", ".join(map(repr, numbers)))
    weights = load("loss.class_weights", text).loss.class_weights
    assert weights == tuple(map(float, numbers))
    if len(numbers) > 1:  # a single number replaces the flat margin
        assert load("loss.margin", text).loss.margin == weights
    assert load("optimizer.learning_rate", repr(numbers[0])).optimizer.learning_rate == numbers[0]


@given(st.integers(-(10**6), 10**6), st.sampled_from(["{}", "{}.0", "{}e3"]))
def test_whole_numbers_in_any_form_are_ints(number, form):
    text = form.format(number)
    steps = load("steps", text).steps
    assert steps == float(text)
    assert type(steps) is int


@given(
    st.one_of(
        st.text(max_size=12), st.sampled_from(["nan", "inf", "1e999", "9" * 400, "None", "True", "1.5", "{", "(", "(1"])
    )
)
def test_an_override_gives_a_value_of_the_fields_type_or_one_clear_error(text):
    for name, holds in (
        ("steps", lambda v: type(v) is int),
        ("optimizer.learning_rate", lambda v: all(type(x) is float for x in (v if isinstance(v, tuple) else [v]))),
        ("data.balanced", lambda v: type(v) is bool),
        ("loss.class_weights", lambda v: type(v) is tuple and all(type(x) is float and math.isfinite(x) for x in v)),
        ("optimizer.freeze", lambda v: type(v) is tuple and all(type(x) is str for x in v)),
        ("eval_splits", lambda v: type(v) is tuple and all(type(x) is str for x in v)),
        ("data.faces", lambda v: v == text),
    ):
        try:
            value = load(name, text)
        except UserError as error:
            assert f"config field {name!r} takes a" in str(error)  # noqa: PT017
            continue
        for key in name.split("."):
            value = value[key]
        assert holds(value), (name, value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("loss.class_weights", "many"),
        ("loss.class_weights", "1,two"),
        ("loss.class_weights", "(1,'2')"),
        ("loss.class_weights", "True"),
        ("loss.class_weights", "None"),
        ("loss.class_weights", "((1,2),3)"),
        ("loss.margin", "(0.1,'a')"),
        ("optimizer.freeze", "(1,2)"),
        ("eval_splits", "['dev',3]"),
        ("data.balanced", "1"),
        ("steps", "1.5"),
        ("steps", "True"),
    ],
)
def test_a_value_of_another_type_is_refused(name, text):
    with pytest.raises(UserError, match=f"config field '{name}' takes an? "):
        load(name, text)


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("^visual/", ("^visual/",)),
        ("^visual/,^audio/", ("^visual/", "^audio/")),
        ("('^a{1,2}$',)", ("^a{1,2}$",)),
        ("['a','b']", ("a", "b")),
        ("3,4", ("3", "4")),
        ("()", ()),
    ],
)
def test_patterns_stay_text(text, patterns):
    assert load("optimizer.freeze", text).optimizer.freeze == patterns


@pytest.mark.parametrize(("text", "value"), [("True", True), ("true", True), ("False", False), ("false", False)])
def test_a_switch_is_true_or_false(text, value):
    assert load("data.balanced", text).data.balanced is value


def test_a_broken_group_is_one_clear_error():
    with pytest.raises(UserError, match=r"'model\.fusion_args' takes a dictionary"):
        configuration.load("configs/paper/fusion.py", ["--config.model.fusion_args={'features': "])


OWN = """
from ml_collections import ConfigDict
{declaration}
def get_config(variant):
    return ConfigDict({{"variant": variant}})
"""


def test_a_config_that_declares_its_variants_refuses_others(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN.format(declaration='VARIANTS = ("plain", "smoke")'))
    assert configuration.load(str(path)).variant == "plain"
    assert configuration.load(f"{path}:smoke").variant == "smoke"
    with pytest.raises(
        UserError, match=r"unknown variant of .*own.py 'smok'; did you mean 'smoke'\? Known: plain, smoke"
    ):
        configuration.load(f"{path}:smok")


def test_a_config_without_declared_variants_gets_whatever_is_asked_for(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN.format(declaration=""))
    assert configuration.load(str(path)).variant == ""
    assert configuration.load(f"{path}:mine").variant == "mine"


def test_module_arguments_are_open():
    config = configuration.load("configs/paper/fusion.py", ["--config.model.fusion_args.rank=4"])
    assert config.model.fusion_args.rank == 4


@pytest.mark.parametrize(
    ("spec", "override", "says"),
    [
        ("configs/paper/nothing.py", "--config.seed=1", "no config file"),
        (TEACHER, "--config.optimiser.name=sgd", "did you mean 'optimizer.name'"),
        (TEACHER, "--config.optimizer.learning_rat=1", "did you mean 'optimizer.learning_rate'"),
        (TEACHER, "--config.steps=many", "takes an int such as"),
        (TEACHER, "--config.optimizer=sgd", "is a group"),
        (TEACHER, "--seed=1", "is not an override"),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(spec, override, says):
    with pytest.raises(UserError, match=says) as error:
        configuration.load(spec, [override])
    assert "\n" not in str(error.value)


def test_difference_names_the_fields():
    old = configuration.load(TEACHER)
    new = configuration.load(TEACHER, ["--config.seed=3"])
    assert configuration.difference(old, new) == ["seed: 0 -> 3"]
    assert configuration.difference(old, old) == []


def test_json_round_trip(tmp_path):
    config = configuration.load(TEACHER)
    (tmp_path / "config.json").write_text(config.to_json_best_effort())
    assert configuration.difference(config, configuration.from_json(tmp_path / "config.json")) == []


def test_none_removes_a_field_from_the_model_for_a_network_without_that_field():
    compact = ["--config.model.name=compact", "--config.model.repeats_35=None", "--config.model.repeats_17=None"]
    model = configuration.load(TEACHER, compact).model
    assert "repeats_35" not in model
    assert expression.build(model).trunk.width == 1.0
    with pytest.raises(UserError, match="steps"):  # all other fields are needed
        configuration.load(TEACHER, ["--config.steps=None"])
