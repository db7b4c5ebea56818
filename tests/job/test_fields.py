"""Arguments that a class of the user's does not have, or that are no numbers, are told in a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from crowdlearn import SGD, Adagrad, Adam, Data, Downpour, Job, Momentum, Normal
from crowdlearn.errors import JobError

FIELDS = {
    "name": "a", "params": {"w": np.ones(2)}, "loss": lambda p, b: 0.0, "data": Data({"x": np.ones((4, 2), "f4")}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Job(batchsize=3, **FIELDS), "Job has no field 'batchsize': did you mean 'batch_size'?"),
        (lambda: Job(optimiser=3, **FIELDS), "Job has no field 'optimiser': did you mean 'optimizer'?"),
        (lambda: Job(lr=3, **FIELDS), "Job has no field 'lr': did you mean optimizer=Adagrad(learning_rate=...)?"),
        (
            lambda: Job(fetch_codecs=3, **FIELDS),
            "Job has no field 'fetch_codecs': did you mean downpour=Downpour(fetch_codec=...)?",
        ),
        (lambda: Job(loss_fn=3, **FIELDS), "Job has no field 'loss_fn': did you mean 'loss', which is given too?"),
        (lambda: Job(dataset=3, **FIELDS), "Job has no field 'dataset': did you mean data=Data(train=...)?"),
        (lambda: Job(valid=3, **FIELDS), "Job has no field 'valid': did you mean data=Data(held_out=...)?"),
        (lambda: Data({"x": np.ones(2)}, test={}), "Data has no field 'test': did you mean 'held_out'?"),
        (lambda: Data(train={}, validation={}), "Data has no field 'validation': did you mean 'held_out'?"),
        (lambda: Downpour(npush=3), "Downpour has no field 'npush': did you mean 'n_push'?"),
        (lambda: Downpour(max_stalness=3), "Downpour has no field 'max_stalness': did you mean 'staleness_limit'?"),
        (
            lambda: Downpour(expected_stalenes=3),
            "Downpour has no field 'expected_stalenes': did you mean 'expected_staleness'?",
        ),
        (lambda: Job(warmups=3, **FIELDS), "Job has no field 'warmups': did you mean downpour=Downpour(warmup=...)?"),
        (lambda: Job(warmp=3, **FIELDS), "Job has no field 'warmp': did you mean downpour=Downpour(warmup=...)?"),
        (lambda: Job(early_stoping=3, **FIELDS), "Job has no field 'early_stoping': did you mean 'patience'?"),
        (lambda: Adagrad(lr=0.1), "Adagrad has no field 'lr': did you mean 'learning_rate'?"),
        (lambda: Adam(beta1=0.1), "Adam has no field 'beta1': did you mean 'b1'?"),
        (lambda: SGD(momentum=0.9), "SGD has no field 'momentum': did you mean Momentum(momentum=...)?"),
        (lambda: SGD(momentun=0.9), "SGD has no field 'momentun': did you mean Momentum(momentum=...)?"),
        (lambda: Adagrad(beta2=0.9), "Adagrad has no field 'beta2': did you mean Adam(b2=...)?"),
        (lambda: SGD(decay=0.1), "SGD has no field 'decay': did you mean 'weight_decay'?"),
        (lambda: Normal(3, stddev=1), "Normal has no field 'stddev': did you mean 'std'?"),
        (lambda: Normal(3, zzz=1), "Normal has no field 'zzz'; it has shape, mean, std"),
        (lambda: Adagrad(0.1), "Adagrad expects its fields by name, such as Adagrad(learning_rate=...), got 0.1"),
        (lambda: Normal(3, 0, 1, 2), "Normal expects its fields by name, such as shape, mean, std, got 2"),
        (lambda: Normal(3, shape=3), "Normal expects shape once, got it twice"),
        (lambda: Job(name="a"), "Job expects params and data, got name"),
        (lambda: Data(), "Data expects train, or a stream, got neither"),
    ],
)
def test_a_misspelt_field_says_what_it_may_have_meant(make, message):
    with pytest.raises(JobError) as caught:
        make()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Job(epochs="10", **FIELDS), "epochs expects a whole number, got '10'"),
        (lambda: Job(batch_size=32.0, **FIELDS), "batch_size expects a whole number, got 32.0: write 32"),
        (lambda: Job(batch_size=True, **FIELDS), "batch_size expects a whole number, got True"),
        (lambda: Job(seed=None, **FIELDS), "seed expects a whole number, got None"),
        (lambda: Job(until=0.95, **FIELDS), "until expects a string such as 'accuracy >= 0.95', got 0.95"),
        (lambda: Momentum(momentum="0.9"), "momentum expects a number, got '0.9'"),
        (lambda: Adagrad(learning_rate=[0.1]), "learning_rate expects a number, got [0.1]"),
        (lambda: Adagrad(epsilon=None), "epsilon expects a number, got None"),
        (lambda: Downpour(n_push="2"), "n_push expects a whole number, got '2'"),
    ],
)
def test_a_value_of_another_type_is_told_with_the_field(make, message):
    with pytest.raises(JobError) as caught:
        make()
    assert str(caught.value) == message


def test_a_class_in_the_place_of_an_optimizer_asks_for_parentheses():
    with pytest.raises(JobError, match=r"got the class Adagrad: write Adagrad\(\)"):
        Job(optimizer=Adagrad, **FIELDS)


def test_numbers_of_numpy_become_pythons():
    job = Job(epochs=np.int64(3), batch_size=np.uint8(2), optimizer=Adagrad(learning_rate=np.float32(0.5)), **FIELDS)
    assert (type(job.epochs), job.epochs, type(job.batch_size)) == (int, 3, int)
    assert (type(job.optimizer.learning_rate), job.optimizer.learning_rate) == (float, 0.5)
