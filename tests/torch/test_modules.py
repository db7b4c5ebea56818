"""PyTorch modules as JAX functions: PyTorch itself is the oracle, for values and for gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional

from crowdlearn import Data, Job
from crowdlearn.errors import JobError, UnsupportedModelError
from crowdlearn.job.scoring import Scorer
from crowdlearn.program import decode, evaluate, trace
from crowdlearn.torch import from_module, load_weights

ROWS = 6
IMAGES, ODD_IMAGES = torch.randn(ROWS, 2, 12, 12), torch.randn(ROWS, 2, 11, 9)
VECTORS, SERIES = torch.randn(ROWS, 10), torch.randn(ROWS, 7, 5)
WORDS = torch.randint(0, 30, (ROWS, 8), dtype=torch.int32)


class Writer(nn.Module):
    """A transformer with masked attention and tied embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 16, padding_idx=0)
        self.places = nn.Parameter(torch.randn(8, 16) / 10)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.thought = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 30, bias=False)
        self.head.weight = self.words.weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.words(words.long()) + self.places
        mask = nn.Transformer.generate_square_subsequent_mask(8)
        x = x + self.attention(*[self.norm(x)] * 3, attn_mask=mask, need_weights=False)[0]
        return self.head(x + self.thought(self.norm(x)))


class CausalAttention(nn.Module):
    """The fused attention of PyTorch 2."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(5, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (each.unflatten(-1, (2, 4)).transpose(1, 2) for each in self.qkv(x).chunk(3, -1))
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)


class Residual(nn.Module):
    """Depthwise and dilated convolutions around a sum, then indices, maxima and a variance."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Conv2d(2, 6, 3, padding=1, groups=2)
        self.wide = nn.Conv2d(6, 6, 3, padding="same", dilation=2)
        self.scale = nn.Parameter(torch.ones(6, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.silu(self.deep(x))
        x = x + self.scale * nn.functional.elu(self.wide(x))
        largest, _ = x.max(dim=1)
        return torch.stack([largest.mean((1, 2)), x.var((1, 2, 3)), x[:, 2, 3, 4].clamp(min=0), x.amax((1, 2, 3))], 1)


class Does(nn.Module):
    """A function of a layer's result."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function, self.scale = function, nn.Parameter(torch.tensor(0.7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.scale * x)


RESIZED = {
    "twice as large": {"scale_factor": 2},
    "of another size": {"size": (13, 5)},
    "one and a half times as large, bilinear": {"scale_factor": 1.5, "mode": "bilinear"},
    "half as large, bilinear": {"scale_factor": 0.5, "mode": "bilinear"},
    "of another size, bilinear, by their corners": {"size": (13, 5), "mode": "bilinear", "align_corners": True},
    "bicubic": {"scale_factor": 2, "mode": "bicubic"},
}

CLASSES = torch.tensor([0, 2, 1, 4, 4, 3])

FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "torch.norm": torch.norm,
    "norm of rows": lambda x: torch.linalg.norm(x, dim=1, keepdim=True),
    "norm of order 3": lambda x: torch.linalg.vector_norm(x, 3, dim=0),
    "norm of order 1": lambda x: torch.norm(x, p=1, dim=1),
    "largest norm": lambda x: torch.linalg.vector_norm(x, float("inf"), dim=1),
    "norm of zeros": lambda x: torch.linalg.vector_norm(torch.relu(-x.abs()), dim=1),
    "norm of a matrix": torch.linalg.matrix_norm,
    "normalised": functional.normalize,
    "distances": lambda x: torch.cdist(x, x + 1),
    "topk": lambda x: torch.topk(x, 3, dim=1).values,
    "topk of the smallest": lambda x: torch.topk(x, 2, dim=0, largest=False).values,
    "topk places": lambda x: x.gather(1, torch.topk(x, 3, dim=1).indices),
    "sort": lambda x: torch.sort(x, dim=1, descending=True).values,
    "median": lambda x: x.median(dim=1).values,
    "one_hot": lambda x: functional.one_hot(CLASSES, 10) * x,
    "cat with constants": lambda x: torch.cat(
        [torch.ones(ROWS, 1), x, torch.zeros_like(x), torch.arange(ROWS)[:, None]], 1
    ),
    "stack with a constant": lambda x: torch.stack([x, torch.full_like(x, 0.5)]),
    "scatter": lambda x: torch.zeros(ROWS, 10).scatter(1, CLASSES[:, None], x[:, :1]),
    "scatter_add": lambda x: torch.zeros(5, 10).scatter_add(0, CLASSES[:, None].expand(ROWS, 10), x),
    "index_add": lambda x: torch.zeros(5, 10).index_add(0, CLASSES, x),
    "windows": lambda x: x.unfold(1, 4, 3),
    "cummax": lambda x: x.cummax(1).values,
    "cumprod": lambda x: x.cumprod(1),
    "erfc": torch.erfc,
    "diagonal": torch.diagonal,
}


class Last(nn.Module):
    """A recurrent net's outputs without its state."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)[0]


MODULES = {
    "perceptron": (lambda: nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3)), VECTORS),
    "activations": (
        lambda: nn.Sequential(
            nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 8), nn.LeakyReLU(0.2), nn.Linear(8, 8), nn.Softplus(),
            nn.Linear(8, 8), nn.GELU("tanh"), nn.Linear(8, 8), nn.Hardtanh(), nn.Linear(8, 8), nn.SELU(),
            nn.Linear(8, 8), nn.Mish(), nn.Linear(8, 8), nn.LogSigmoid(), nn.Linear(8, 4), nn.LogSoftmax(-1),
        ),
        VECTORS,
    ),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(24, 3),
        ),
        IMAGES,
    ),
    "pooling with rests": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 2), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(3, 2, 1, ceil_mode=True)
        ),
        ODD_IMAGES,
    ),
    "average without padding": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.AvgPool2d(3, 2, 1, count_include_pad=False)), ODD_IMAGES,
    ),
    "adaptive pooling": (lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.AdaptiveAvgPool2d((3, 5))), ODD_IMAGES),
    "global pooling": (lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()), IMAGES),
    "convolution along time": (
        lambda: nn.Sequential(nn.Conv1d(7, 4, 3, padding=1), nn.BatchNorm1d(4), nn.MaxPool1d(2)), SERIES,
    ),
    "transposed convolution": (
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 4, 3, 2, 1, output_padding=1, groups=2), nn.Sigmoid()), ODD_IMAGES,
    ),
    "batch norm": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()), IMAGES),
    "group norm": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.GroupNorm(2, 4), nn.SiLU()), IMAGES),
    "instance norm": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, affine=True)), IMAGES),
    "transformer": (Writer, WORDS),
    "fused attention": (CausalAttention, SERIES),
    "encoder layer": (lambda: nn.TransformerEncoderLayer(10, 2, 20, 0.0, batch_first=True), torch.randn(ROWS, 4, 10)),
    "lstm": (lambda: Last(nn.LSTM(5, 4, num_layers=2, batch_first=True)), SERIES),
    "gru": (lambda: Last(nn.GRU(5, 4, batch_first=True)), SERIES),
    "rnn": (lambda: Last(nn.RNN(5, 4, batch_first=True, bidirectional=True)), SERIES),
    "residual": (Residual, IMAGES),
    **{
        f"images {name}": (lambda mode=mode: nn.Sequential(nn.Conv2d(2, 3, 2), nn.Upsample(**mode)), ODD_IMAGES)
        for name, mode in RESIZED.items()
    },
    "smaller images": (lambda: Does(lambda x: functional.interpolate(x, size=(5, 4), mode="bilinear", antialias=True)),
                       ODD_IMAGES),
    "bag of words, averaged": (lambda: nn.EmbeddingBag(30, 4, padding_idx=3), WORDS),
    "bag of words, summed": (lambda: nn.EmbeddingBag(30, 4, mode="sum"), WORDS),
    "bag of words, largest": (lambda: nn.EmbeddingBag(30, 4, mode="max"), WORDS),
    "three-dimensional pooling": (
        lambda: nn.Sequential(nn.Conv3d(2, 3, 1), nn.MaxPool3d(2), nn.AvgPool3d(2)), torch.randn(ROWS, 2, 4, 4, 4),
    ),
    "tracked instance norm": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True)),
                              IMAGES),
    "local response norm": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.LocalResponseNorm(2)), IMAGES),
    "root mean square norm": (lambda: nn.Sequential(nn.Linear(10, 4), nn.RMSNorm(4)), VECTORS),
    "layer norm of images": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.LayerNorm((4, 10, 10))), IMAGES),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(10, 3)), VECTORS),
    **{name: (lambda function=function: Does(function), VECTORS) for name, function in FUNCTIONS.items()},
}  # fmt: skip
"""Each module's maker and its input."""


def by_pytorch(module: nn.Module, x: torch.Tensor, weight: torch.Tensor | None) -> tuple[torch.Tensor, dict]:
    """The output, and the gradients of its sum weighed by `weight`."""
    module.zero_grad()
    y = module(x)
    if weight is None:
        weight = torch.randn(y.shape)
    (y * weight).sum().backward()
    return y.detach(), {name: each.grad.numpy() for name, each in module.named_parameters()}, weight


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_a_module_gives_what_pytorch_gives_and_its_program_the_same_gradients(name: str, train: bool) -> None:
    torch.manual_seed(0)
    make, x = MODULES[name]
    module = make()
    params, apply = from_module(module)
    wanted, gradients, weight = by_pytorch(module.train(train), x, None)
    got = apply(params, x.numpy(), train=train)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5)

    def loss(params, batch):
        return jnp.sum(apply(params, batch["x"], train=train) * weight.numpy())

    program = trace(loss, params, {"x": x.numpy()})
    leaves = [params[key] for key in sorted(params)]
    _, got_gradients = evaluate(program, leaves, [x.numpy()])
    for key, gradient in zip(sorted(params), got_gradients, strict=True):
        distance = np.linalg.norm(gradient - gradients[key])
        assert distance <= 1e-4 * max(np.linalg.norm(gradients[key]), 1), key


def test_dropout_needs_a_key_drops_its_share_and_keeps_the_mean() -> None:
    module = nn.Sequential(nn.Linear(10, 1000), nn.Dropout(0.25))
    params, apply = from_module(module)
    x = np.ones((4, 10), np.float32)
    with pytest.raises(JobError, match="dropout expects a key"):
        apply(params, x, train=True)
    plain, dropped = apply(params, x), apply(params, x, train=True, key=jax.random.key(0))
    gone = np.mean(np.asarray(dropped) == 0)
    assert 0.22 < gone < 0.28
    np.testing.assert_allclose(dropped[dropped != 0], (plain / 0.75)[dropped != 0], rtol=1e-5)


def test_dropped_channels_are_whole_and_need_a_key() -> None:
    _, apply = from_module(nn.Sequential(nn.Conv2d(2, 40, 1), nn.Dropout2d(0.5)))
    params = {"0.weight": np.zeros((40, 2, 1, 1), np.float32), "0.bias": np.ones(40, np.float32)}
    with pytest.raises(JobError, match="dropout expects a key, got none"):
        apply(params, IMAGES.numpy(), train=True)
    kept = np.asarray(apply(params, IMAGES.numpy(), train=True, key=jax.random.key(0)))
    assert set(np.unique(kept)) == {0.0, 2.0}
    assert (kept == kept[:, :, :1, :1]).all()
    assert 0.4 < (kept > 0).mean() < 0.6


def test_bags_of_unequal_length_begin_where_they_are_told_to() -> None:
    bags = nn.EmbeddingBag(5, 3)
    params, apply = from_module(bags)
    words, starts = torch.tensor([0, 1, 2, 3, 4, 1]), torch.tensor([0, 2, 2])
    got = apply(params, words.int().numpy(), starts.int().numpy())
    np.testing.assert_allclose(got, bags(words, starts).detach(), rtol=1e-5, atol=1e-6)


def test_one_hot_without_its_number_of_classes_says_what_to_give() -> None:
    _, apply = from_module(Does(lambda x: functional.one_hot((x > 0).long()) * x[..., None]))
    with pytest.raises(JobError, match=r"give F\.one_hot its num_classes"):
        apply({"scale": np.float32(1)}, VECTORS.numpy())


def test_a_job_with_dropout_compiles_and_its_held_out_loss_is_repeatable() -> None:
    module = nn.Sequential(nn.Linear(10, 8), nn.Dropout(0.25), nn.Linear(8, 1))
    params, apply = from_module(module)

    def loss(params, batch, key):
        return jnp.mean((apply(params, batch["x"], train=True, key=key) - 1) ** 2)

    x = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    job = Job(name="dropout", params=params, loss=loss, data=Data({"x": x}, {"x": x}), batch_size=16)
    compiled = job.compile()
    assert decode(compiled.program).key is not None
    scorer = Scorer(compiled.metrics)
    first, second = (scorer.score(compiled.parameters, compiled.held_out)["loss"] for _ in range(2))
    assert first == second


def test_parameters_have_the_names_of_state_dict_and_frozen_ones_are_constants() -> None:
    module = nn.Sequential(nn.Linear(10, 8), nn.Linear(8, 3))
    module[0].requires_grad_(False)
    params, apply = from_module(module)
    assert {name: each.shape for name, each in params.items()} == {"1.weight": (3, 8), "1.bias": (3,)}
    np.testing.assert_allclose(apply(params, VECTORS.numpy()), module(VECTORS).detach(), rtol=1e-5, atol=1e-6)


def test_an_unknown_operator_is_refused_with_its_line() -> None:
    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.qr(x * self.w)[0]

    params, apply = from_module(Sorted())
    with pytest.raises(UnsupportedModelError, match=r"`aten.linalg_qr.default` at .*test_modules.py:\d+"):
        apply(params, VECTORS.numpy())


def test_a_module_that_torch_export_cannot_read_is_a_job_error() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.w if x.sum() > 0 else x

    params, apply = from_module(Branching())
    with pytest.raises(JobError, match=r"torch.export cannot read Branching"):
        apply(params, VECTORS.numpy())


def test_weights_of_another_module_are_not_loaded(tmp_path: Path) -> None:
    params, _ = from_module(nn.Linear(4, 2))
    save_file(params, tmp_path / "weights.safetensors")
    module = nn.Linear(4, 2)
    load_weights(module, tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(module.weight.detach().numpy(), params["weight"])
    with pytest.raises(JobError, match="does not fit the model: weight expects shape"):
        load_weights(nn.Linear(5, 2), tmp_path / "weights.safetensors")
