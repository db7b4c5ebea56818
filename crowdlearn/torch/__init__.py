"""PyTorch models as jobs: turns a `torch.nn.Module` into parameters and a JAX function. docs/models.md shows how.

Needs `pip install crowdlearn[torch]`. Nothing else of CrowdLearn imports this.
"""

from crowdlearn.torch.module import Apply, from_module, load_weights

__all__ = ["Apply", "from_module", "load_weights"]
