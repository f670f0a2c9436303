"""Epochs in place of steps: the steps that follow, what a file may give, what a hash sees."""

import pytest

from scaled_mpi.compressors import MEMBERS as COMPRESSORS
from scaled_mpi.config import InputError, Spec, parse, plain
from scaled_mpi.learning.settings import Training, with_steps, with_steps_of
from scaled_mpi.learning.training import train
from scaled_mpi.surrogates import MEMBERS as SURROGATES
from tests.compressors.waves import runs


@pytest.mark.parametrize(
    ("epochs", "samples", "batch", "steps"), [(1, 64, 16, 4), (3, 64, 16, 12), (2, 33, 16, 5)]
)
def test_epochs_are_passes_over_the_samples(epochs, samples, batch, steps):
    found = with_steps(Training(epochs=epochs, batch=batch), samples)
    assert (found.steps, found.epochs) == (steps, None)
    assert plain(found) == plain(Training(steps=steps, batch=batch))


def test_a_file_without_epochs_has_the_tree_of_before():
    assert "epochs" not in plain(Training())
    assert with_steps(Training(steps=7), 1) == Training(steps=7)


class Owner(Spec):
    training: Training = Training(steps=400, batch=8)


def test_a_file_gives_one_of_the_two():
    found = parse(Owner, {"training": {"epochs": 5}}).training
    assert (found.epochs, found.batch) == (5, 8)
    assert with_steps(found, 16).steps == 10
    assert parse(Owner, plain(Owner(training=found))).training.epochs == 5
    assert parse(Owner, {"training": {"steps": 5}}).training.steps == 5
    with pytest.raises(InputError, match="training.epochs: 5 is not allowed: training.steps is 6"):
        parse(Owner, {"training": {"epochs": 5, "steps": 6}})
    with pytest.raises(ValueError, match="training.epochs: 5 is not allowed"):
        Training(epochs=5, steps=6)
    with pytest.raises(InputError, match="training.epochs: 0"):
        parse(Owner, {"training": {"epochs": 0}})


def test_other_keys_are_checked_against_the_steps():
    adversarial = COMPRESSORS["adversarial"]
    found = with_steps_of(parse(adversarial, {"training": {"epochs": 2, "batch": 8}}), 400)
    assert (found.training.steps, found.begin) == (100, 25)
    with pytest.raises(InputError, match="critic.start: 150"):
        with_steps_of(
            parse(adversarial, {"training": {"epochs": 2, "batch": 8}, "critic": {"start": 150}}),
            400,
        )


def test_a_training_refuses_epochs_without_samples():
    with pytest.raises(InputError, match="the number of samples is not known here"):
        train(None, None, Training(epochs=2), None)
    with pytest.raises(InputError, match="at most its 3 samples"):
        with_steps(Training(epochs=2), 3)


@pytest.mark.parametrize(
    ("kind", "keys", "count"),
    [
        ("stepper", {"patch": 16, "coarsen": 2}, 4),
        ("stepper", {"patch": 16, "rollout": 2, "masked": False}, 4),
        ("probabilistic", {"patch": 16, "memory": 2}, 4),
        ("diffusion", {"patch": 16}, 2),
    ],
)
def test_the_samples_of_settings_are_those_of_the_data(tmp_path, kind, keys, count):
    from scaled_mpi.learning.patches import measure
    from scaled_mpi.surrogates.fitting import Excerpt

    made = runs(tmp_path, (32, 48), count=count)
    spec = SURROGATES[kind](**keys)
    learned = made[: -spec.held_out] if count > spec.held_out else made
    moments = slice(None) if count > spec.held_out else slice(0, 10)
    lesson = spec._lesson(Excerpt(learned, moments, measure(learned, ()), ()), 0)
    assert spec.sample_count(count, 12, (32, 48), (True, True)) == lesson.single.distinct
