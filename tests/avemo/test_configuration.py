import pytest

from avemo import configuration
from avemo.models import expression
from media.errors import Registry, UserError

TEACHER = "configs/paper/teacher.py"


def test_override_takes_the_fields_type():
    overrides = ["--config.optimizer.learning_rate=1", "--config.data.faces=5", "--config.steps=7"]
    config = configuration.load(TEACHER, overrides)
    assert config.optimizer.learning_rate == 1.0
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.data.faces == "5"
    assert config.steps == 7


def test_a_margin_may_become_one_a_triplet_type():
    config = configuration.load(TEACHER, ["--config.loss.margin=(0.1,0.2,0.2)"])
    assert config.loss.margin == (0.1, 0.2, 0.2)


def test_module_arguments_are_open():
    config = configuration.load("configs/paper/fusion.py", ["--config.model.fusion_args.rank=4"])
    assert config.model.fusion_args.rank == 4


@pytest.mark.parametrize(
    ("spec", "override", "says"),
    [
        ("configs/paper/nothing.py", "--config.seed=1", "no config file"),
        (TEACHER, "--config.optimiser.name=sgd", "did you mean 'optimizer.name'"),
        (TEACHER, "--config.optimizer.learning_rat=1", "did you mean 'optimizer.learning_rate'"),
        (TEACHER, "--config.steps=many", "takes a int"),
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


def test_registry_names_what_it_knows():
    registry = Registry("fusion")
    registry.register("gated")(dict)
    assert registry["gated"] is dict
    with pytest.raises(UserError, match=r"unknown fusion 'gatd'; did you mean 'gated'\? Known: gated\."):
        registry["gatd"]


def test_none_takes_a_number_out_of_the_model_for_a_network_that_has_no_such_number():
    compact = ["--config.model.name=compact", "--config.model.repeats_35=None", "--config.model.repeats_17=None"]
    model = configuration.load(TEACHER, compact).model
    assert "repeats_35" not in model
    assert expression.build(model).trunk.width == 1.0
    with pytest.raises(UserError, match="steps"):  # elsewhere every field is needed
        configuration.load(TEACHER, ["--config.steps=None"])
