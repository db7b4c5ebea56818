"""Jobs whose model is an ES module: what is refused before anything is stored, and that Node computes what JAX does."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdlearn import Data, Job, Normal, Stream
from crowdlearn.chunks import in_order
from crowdlearn.dataset import read
from crowdlearn.errors import JobError
from crowdlearn.job import scoring
from crowdlearn.job.parameters import initialise
from crowdlearn.job_file import load
from crowdlearn.module import read as read_module
from crowdlearn.module.process import ModuleProcess
from crowdlearn.module.scorer import RunningModule, key_words
from crowdlearn.spec import decode_spec, encode_spec

ROOT = Path(__file__).parent.parent.parent
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (50, 12), np.uint8)
LABELS = RNG.integers(0, 4, 50).astype(np.uint8)
ROWS = {"image": IMAGES, "label": LABELS}
PARAMETERS = {"W1": Normal((12, 9)), "b1": Normal(9), "out": [{"W": Normal((9, 4))}, {"b": Normal(4)}]}

MODEL = """\
function logits(params, { image }, { np, nn }) {
  const hidden = nn.relu(np.dot(image, params.W1).add(params.b1));
  return np.dot(hidden, params.out[0].W).add(params.out[1].b);
}
export const preprocess = ({ image, label }, { np }) => ({ image: image.astype(np.float32).div(255), label });
export function loss(params, batch, context) {
  const { np, nn } = context;
  return np.mean(np.sum(nn.logSoftmax(logits(params, batch, context)).mul(nn.oneHot(batch.label, 4)), 1)).neg();
}
export function metrics(params, batch, context) {
  const { np } = context;
  const scores = logits(params, batch, context);
  return { accuracy: np.mean(np.argmax(scores.ref, 1).equal(batch.label).astype(np.float32)), top: np.max(scores) };
}
"""


def logits_by_jax(params, batch):
    image = batch["image"].astype(jnp.float32) / 255
    hidden = jax.nn.relu(image @ params["W1"] + params["b1"])
    return hidden @ params["out"][0]["W"] + params["out"][1]["b"]


def loss_by_jax(params, batch):
    log_p = jax.nn.log_softmax(logits_by_jax(params, batch))
    return -jnp.mean(jnp.sum(log_p * jax.nn.one_hot(batch["label"], 4), axis=1))


def metrics_by_jax(params, batch):
    logits = logits_by_jax(params, batch)
    return {"accuracy": jnp.mean(jnp.argmax(logits, axis=1) == batch["label"]), "top": jnp.max(logits)}


def job(folder: Path, text: str | bytes, **changes) -> Job:
    file = folder / "model.js"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    fields = {"params": PARAMETERS, "data": Data(ROWS, ROWS), "batch_size": 10}
    return Job(name="module", model=file, **{**fields, **changes})


def refusal(folder: Path, text: str | bytes, **changes) -> str:
    with pytest.raises(JobError) as refused:
        job(folder, text, **changes).compile()
    return str(refused.value).replace(f"{folder}/", "")


def test_a_gradient_of_a_module_is_that_of_the_same_model_in_jax(tmp_path: Path) -> None:
    compiled = job(tmp_path, MODEL).compile()
    rows = compiled.spec.batch.rows
    module = RunningModule(read_module(tmp_path / "model.js"), compiled.spec.parameters, compiled.spec.batch.arrays)
    table = in_order(read(ROWS, "training"), rows)
    loss, gradient = module.step(compiled.parameters, rows, table.first(rows), 0)
    module.close()
    parameters = initialise(PARAMETERS, 0)
    batch = {"image": IMAGES[:rows], "label": LABELS[:rows]}
    expected, tree = jax.value_and_grad(loss_by_jax)(parameters.cut(parameters.flat), batch)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    assert loss == pytest.approx(float(expected), rel=1e-5)
    assert np.linalg.norm(gradient - flat) <= 1e-5 * np.linalg.norm(flat)
    assert np.linalg.norm(flat) > 0.1


def test_a_module_scores_held_out_data_as_jax_does(tmp_path: Path) -> None:
    compiled = job(tmp_path, MODEL, until="accuracy >= 0.5").compile()
    assert compiled.metrics is not None
    spec = decode_spec(encode_spec(compiled.spec))
    assert (spec.model, spec.metrics) == ("module", ("loss", "accuracy", "top"))
    scorer = scoring.read(compiled.metrics, spec, compiled.program)
    (chunk,) = compiled.held_out
    rows, values = scorer.score_chunk(compiled.parameters, chunk)
    by_jax = scoring.export(
        loss_by_jax, metrics_by_jax, initialise(PARAMETERS, 0), read(ROWS, "held-out").layout, {rows}
    )
    expected = scoring.Scorer(by_jax.data).score_chunk(compiled.parameters, chunk)
    assert rows == expected[0] == 50
    np.testing.assert_allclose(values, expected[1], rtol=1e-5)


STREAM = Stream(schema={"image": ("uint8", (12,)), "label": ("uint8", ())})


@pytest.mark.parametrize("metrics", [None, metrics_by_jax], ids=["its own", "in Python"])
def test_a_module_trains_on_a_stream_and_is_scored_on_any_number_of_its_rows(tmp_path: Path, metrics) -> None:
    compiled = job(tmp_path, MODEL, data=STREAM, preprocess=lambda raw: raw, metrics=metrics).compile()
    assert compiled.metrics is not None
    assert (compiled.spec.train_rows, compiled.spec.initial_loss) == (0, None)
    assert [array.shape for array in compiled.spec.batch.arrays] == [(12,), ()]
    scorer = scoring.read(compiled.metrics, compiled.spec, compiled.program)
    rows, values = scorer.score_rows(compiled.parameters, IMAGES[:21].tobytes() + LABELS[:21].tobytes())
    batch = {"image": IMAGES[:21], "label": LABELS[:21]}
    expected = metrics_by_jax(initialise(PARAMETERS, 0).cut(compiled.parameters), batch)
    assert rows == 21
    assert values[-2] == pytest.approx(float(expected["accuracy"]), rel=1e-5)


def test_a_noisy_loss_can_be_measured_without_its_noise(tmp_path: Path) -> None:
    noisy = "export const loss = ({ b1 }, b, { np, random, key }) => np.sum(b1).mul(0).add(random.uniform(key, []));\n"
    (chunk,), flat = (compiled := job(tmp_path, noisy).compile()).held_out, np.zeros(157, np.float32)
    source, layout = read_module(tmp_path / "model.js"), compiled.spec.batch.arrays
    module = RunningModule(source, compiled.spec.parameters, layout)
    drawn = [module.scores(flat, 50, chunk, seed)["loss"] for seed in (0, 0, 1)]
    module.close()
    by_jax = [float(jax.random.uniform(jax.random.key(seed))) for seed in (0, 0, 1)]
    assert drawn == pytest.approx(by_jax)
    quiet = job(tmp_path, f"{noisy}export const metrics = () => ({{ loss: 3 }});\n").compile()
    assert quiet.metrics is not None
    assert quiet.spec.metrics == ("loss",)
    scorer = scoring.read(quiet.metrics, quiet.spec, quiet.program)
    assert scorer.score_chunk(flat, chunk)[1].tolist() == [3.0]


def test_metrics_in_python_score_a_module_without_its_loss(tmp_path: Path) -> None:
    compiled = job(tmp_path, MODEL, metrics=metrics_by_jax, until="accuracy >= 0.5").compile()
    assert compiled.metrics is not None
    assert compiled.spec.metrics == ("accuracy", "top")
    scorer = scoring.read(compiled.metrics, compiled.spec, b"not needed")
    assert isinstance(scorer, scoring.Scorer)
    expected = metrics_by_jax(initialise(PARAMETERS, 0).cut(compiled.parameters), ROWS)
    assert scorer.score(compiled.parameters, compiled.held_out) == pytest.approx(
        {name: float(value) for name, value in expected.items()}, rel=1e-5
    )


def test_a_model_lies_beside_its_job_file(tmp_path: Path) -> None:
    (tmp_path / "net.js").write_text(MODEL)
    (tmp_path / "job.py").write_text(
        "import numpy as np\nfrom crowdlearn import Data, Job\n"
        "rows = {'x': np.zeros((4, 2))}\n"
        "job = Job(name='beside', model='net.js', params={'w': np.zeros(2)}, data=Data(rows), batch_size=2)\n"
    )
    assert load(tmp_path / "job.py").model == tmp_path / "net.js"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("export function loss(params) {\n  return params +;\n}\n", "SyntaxError at model.js:2: Unexpected token ';'"),
        ("export const cost = () => 1;\n", "model.js expects `export function loss(params, batch, { np, nn })`, got"),
        ("export function loss(params, { image }, { np }) {\n  return image.sum(1).astype(np.float32);\n}\n",
         "loss of model.js returns one float32, the mean loss of a minibatch, got float32[10]"),
        ("export function loss(params, batch, { np }) {\n\n  return np.dott(params.W1);\n}\n",
         "loss of model.js raised TypeError at model.js:3: np.dott is not a function"),
        ("const x = missing;\nexport const loss = 1;\n", "model.js raised ReferenceError at model.js:1: missing is"),
        ("import { sum } from './sum.js';\nexport const loss = sum;\n", 'model.js imports "./sum.js"; a model imports'),
        ("export const loss = (p, b, { np }) => np.log(np.sum(p.W1).mul(0).sub(1));\n",
         "loss of model.js expects a finite number for the first minibatch, got nan"),
        ("export const loss = (p, b, { np }) => np.sum(np.sqrt(p.b1.sub(p.b1)));\n",
         "got 9 of 9 in b1 that are not"),
        ("export const loss = (p, b, { np }) => np.sum(p.W1);\nexport const metrics = () => ({ 'top 5': 1 });\n",
         'a metric expects a name of letters, digits and _, got "top 5" from model.js'),
        ("export const loss = (p, b, { np }) => np.sum(p.W1);\nexport const metrics = (p) => ({ wide: p.b1 });\n",
         "metric wide of model.js expects a scalar, got float32[9]"),
        ("", "expects 1 to 1,048,576 bytes of JavaScript, got 0"),
        (b"export const loss = 1; // \xff\n", "expects UTF-8, got byte 0xff at 26"),
        (f"//{'x' * (1 << 20)}", "expects 1 to 1,048,576 bytes of JavaScript, got 1,048,578"),
    ],
)  # fmt: skip
def test_a_wrong_module_is_refused_with_its_line(text: str | bytes, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, text)


@pytest.mark.parametrize("code", ["process.exit()", "await import('node:fs')", "require('fs')", "Buffer.alloc(1)"])
def test_a_module_gets_nothing_of_the_machine(code: str, tmp_path: Path) -> None:
    assert "raised" in refusal(tmp_path, f"{code};\n{MODEL}")


def test_what_a_module_logs_is_in_nobodys_way(tmp_path: Path) -> None:
    assert job(tmp_path, f"console.log('loaded');\n{MODEL}").compile().spec.metrics == ("loss", "accuracy", "top")


def test_a_module_that_loops_for_ever_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crowdlearn.module.process.TIMEOUT_SECONDS", 1.0)
    assert "answer within 1 s, got none" in refusal(tmp_path, "for (;;) {}\nexport const loss = 1;\n")


def test_node_gets_no_variable_but_those_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROWDLEARN_REDIS_URL", "redis://:secret@localhost")
    # A Node that heeded this would not start.
    monkeypatch.setenv("NODE_OPTIONS", "--require /nowhere.js")
    process = ModuleProcess()
    given = Path(f"/proc/{process._process.pid}/environ")
    names = {pair.partition(b"=")[0].decode() for pair in given.read_bytes().split(b"\0") if pair}
    process.close()
    assert names <= {"PATH", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT"}
    assert job(tmp_path, MODEL).compile().metrics is not None


def test_until_names_a_metric_of_the_module(tmp_path: Path) -> None:
    message = refusal(tmp_path, MODEL, until="recall >= 0.5")
    assert message == "until expects one of loss, accuracy, top, got 'recall' in 'recall >= 0.5'"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=re.escape("none.js: No such file or directory")):
        Job(name="module", model=tmp_path / "none.js", params=PARAMETERS, data=Data(ROWS), batch_size=5).compile()


@pytest.mark.parametrize(("changes", "got"), [({"model": None}, "neither"), ({"loss": loss_by_jax}, "both")])
def test_a_job_has_a_loss_or_a_module(changes: dict[str, object], got: str) -> None:
    with pytest.raises(JobError, match=f"expects either loss .* or model .*, got {got}"):
        Job(name="module", params=PARAMETERS, data=Data(ROWS), **{"model": "model.js", **changes})


def test_without_node_a_module_is_stored_with_a_note_and_no_scoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    compiled = job(tmp_path, MODEL).compile()
    assert compiled.metrics is None
    checked, scored = compiled.warnings
    assert "model.js is checked by browsers only: " in checked
    assert "Node 20 or newer is expected, got none: install it from https://nodejs.org" in checked
    assert scored == "held-out data is not scored: give `metrics` in Python, or install Node here"
    assert "until 'loss <= 1' expects that somebody scores held-out data" in refusal(tmp_path, MODEL, until="loss <= 1")
    by_python = job(tmp_path, MODEL, metrics=metrics_by_jax, until="accuracy >= 0.5").compile()
    assert by_python.spec.metrics == ("accuracy", "top")


def test_the_key_of_a_seed_is_that_of_jax() -> None:
    for seed in (0, 7, 2**31 + 5, 2**32 - 1):
        assert key_words(seed) == tuple(np.asarray(jax.random.key_data(jax.random.key(seed))).tolist())
