"""Masks over heads, neurons and features that stand in for removal while a model still trains.

A mask of zeros and ones multiplies what a head or neuron passes on, so that a masked model computes what the
cut one will. The gradient of the loss by the mask says what each unit is worth (first-order Taylor; Molchanov et
al., arXiv 1906.10771, section 3; Michel et al., arXiv 1905.10650, section 4).
"""

from collections.abc import Mapping
from typing import Any

import torch

from kfp_bonsai.shared.core import parallel, ranks
from kfp_bonsai.shared.models.configuration import family_of
from kfp_bonsai.shared.models.shapes import layers_of, module_at, reader, shape_of, unit_width

DECAY = 0.95


class Masks:
    """Masks on a model's heads and neurons, and on its hidden features if asked.

    Attributes:
        named: the masks, over the features of a layer's units (heads.0: shape (heads * head_dim,); ffn.0:
            (neurons,)), or over the residual stream (hidden: (hidden,)).
        scores: running mean of each unit's importance, by the mask's name; heads count by the key-value head that
            they share.
    """

    def __init__(self, model: Any, with_hidden: bool) -> None:
        shape, device = shape_of(model), model.device
        self.named: dict[str, torch.Tensor] = {}
        self._widths: dict[str, int] = {}
        self._hooks = []
        for index, ((stack, layer), now) in enumerate(zip(layers_of(model), shape.layers, strict=True)):
            for unit, count in shape.units(now).items():
                module = reader(stack, layer, unit)
                if module is None:
                    continue
                name, width = f"{unit}.{index}", unit_width(unit, shape)[unit]
                self._widths[name] = width
                self.named[name] = torch.ones(count * width, device=device, requires_grad=True)
                self._hooks.append(module.register_forward_pre_hook(_masking_input(self.named[name])))
        if with_hidden:
            self._widths["hidden"] = 1
            self.named["hidden"] = torch.ones(shape.hidden, device=device, requires_grad=True)
            for norm in _norms(model):
                self._hooks.append(norm.register_forward_hook(_masking_output(self.named["hidden"])))
        self.scores = {name: self._units(name, torch.zeros_like(mask)) for name, mask in self.named.items()}

    def observe(self) -> None:
        """Take the last backward pass's gradients into the running scores."""
        for name, mask in self.named.items():
            if mask.grad is not None:
                gradient = parallel.total(mask.grad) / ranks.processes()
                self.scores[name].lerp_(self._units(name, gradient.abs()), 1 - DECAY)
                mask.grad = None

    def zero_grad(self) -> None:
        """Forget the last backward pass."""
        for mask in self.named.values():
            mask.grad = None

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return masks and scores, for an attempt that goes on with them."""
        masks = {f"mask.{name}": mask for name, mask in self.named.items()}
        return masks | {f"score.{name}": score for name, score in self.scores.items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on with masks and scores."""
        with torch.no_grad():
            for name, own in self.state_dict().items():
                own.copy_(state[name])

    def set(self, name: str, kept: torch.Tensor) -> None:
        """Set one mask to 1 at the kept indices and 0 elsewhere."""
        with torch.no_grad():
            mask = self.named[name].view(-1, self._widths[name])
            mask.zero_()
            mask[kept] = 1.0

    def _units(self, name: str, features: torch.Tensor) -> torch.Tensor:
        """Sum over the features of each unit, so that a head's worth compares with that of as many neurons."""
        return features.view(-1, self._widths[name]).sum(1)

    def remove(self) -> None:
        """Take the masks off the model."""
        for hook in self._hooks:
            hook.remove()


def _norms(model: Any) -> list[torch.nn.Module]:
    family = family_of(model.config)
    found = [module_at(model, path) for path, axes in family.tokens.items() if axes == ("hidden",)]
    for stack, layer in layers_of(model):
        found += [module_at(layer, path) for path, axes in stack.layer.items() if axes == ("hidden",)]
    return [module for module in found if module is not None]


def _masking_input(mask: torch.Tensor) -> Any:
    def hook(_module: torch.nn.Module, inputs: tuple) -> tuple:
        return (inputs[0] * mask.to(inputs[0].dtype), *inputs[1:])

    return hook


def _masking_output(mask: torch.Tensor) -> Any:
    def hook(_module: torch.nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        return output * mask.to(output.dtype)

    return hook
