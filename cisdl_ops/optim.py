"""Optimisers with the signatures, the semantics and the ``state_dict`` of ``torch.optim``'s.

A step of all parameters is one call into C++: on the CPU one pass over memory a parameter, on a GPU a kernel
for every two dozen. Whatever that call does not take (sparse or complex gradients, ``differentiable``,
``capturable``, a learning rate on a GPU, loss scaling) is done by torch's own functions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.optim import adam as torch_adam
from torch.optim import optimizer as torch_optimizer
from torch.optim import sgd as torch_sgd

from cisdl_ops._load import _C

__all__ = ["SGD", "Adam", "AdamW"]

Group = dict[str, Any]


def _framed_if_watched(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step`` inside what torch puts around it, hooks and a record for the profiler, where either is there.

    That frame costs as much as the arithmetic of a small network's step.
    """
    framed = torch.optim.Optimizer.profile_hook_step(step)

    @wraps(step)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (
            torch._C._autograd._profiler_enabled()
            or self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
        ):
            return framed(self, *args, **kwargs)
        result = step(self, *args, **kwargs)
        self._optimizer_step_code()
        return result

    wrapper.hooked = True  # type: ignore[attr-defined]  # so that torch leaves it as it is
    return wrapper


class _GroupByGroup(torch.optim.Optimizer):
    """A step of torch's optimisers, of which each group is done by ``_step_group``."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Resets all gradients; see ``torch.optim.Optimizer.zero_grad``."""
        if not set_to_none or torch._C._autograd._profiler_enabled() or torch.compiler.is_compiling():
            super().zero_grad(set_to_none)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @_framed_if_watched
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Performs one step; ``closure`` computes the loss anew, which is returned."""
        loss = None
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            for group in self.param_groups:
                self._step_group(group)
        return loss

    def _step_group(self, group: Group) -> None:
        raise NotImplementedError

    def _scaled(self) -> bool:
        """Whether ``torch.amp.GradScaler`` leaves the division by its scale to the step."""
        return any(getattr(self, name, None) is not None for name in ("grad_scale", "found_inf"))


def _on_gpu(number: float | Tensor) -> bool:
    """Whether one would have to wait for a GPU to know it."""
    return isinstance(number, Tensor) and number.is_cuda


def _check_graph_capture(optimizer: Any) -> None:
    """Torch's refusal of a step in a CUDA graph that would replay one step's numbers for ever."""
    name = "_accelerator_graph_capture_health_check"
    (getattr(optimizer, name, None) or optimizer._cuda_graph_capture_health_check)()


def _init_group(optimizer: Any) -> Callable[..., bool]:
    """What torch's optimisers begin a group with: lists of its tensors, new state where there is none."""
    function: Callable[..., bool] = optimizer._init_group
    return function


class Adam(_GroupByGroup, torch.optim.Adam):
    """Adam; see ``torch.optim.Adam``."""

    def _step_group(self, group: Group) -> None:
        params: list[Tensor] = []
        grads: list[Tensor] = []
        means: list[Tensor] = []
        squares: list[Tensor] = []
        largest: list[Tensor] = []
        steps: list[Tensor] = []
        complicated = _init_group(self)(group, params, grads, means, squares, largest, steps)
        beta1, beta2 = group["betas"]
        if params and params[0].is_cuda:
            _check_graph_capture(self)
        plain = not (complicated or group["differentiable"] or group["capturable"] or self._scaled())
        plain = plain and not any(map(_on_gpu, (group["lr"], beta1, beta2)))
        if plain and _C.adam_step(
            params,
            grads,
            means,
            squares,
            largest,
            steps,
            float(group["lr"]),
            float(beta1),
            float(beta2),
            group["eps"],
            group["weight_decay"],
            group["amsgrad"],
            group["maximize"],
            group["decoupled_weight_decay"],
        ):
            return
        torch_adam.adam(
            params,
            grads,
            means,
            squares,
            largest,
            steps,
            foreach=group["foreach"],
            capturable=group["capturable"],
            differentiable=group["differentiable"],
            fused=group["fused"],
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
            has_complex=complicated,
            decoupled_weight_decay=group["decoupled_weight_decay"],
            amsgrad=group["amsgrad"],
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
        )


class AdamW(Adam, torch.optim.AdamW):
    """Adam with decoupled weight decay; see ``torch.optim.AdamW``."""


class SGD(_GroupByGroup, torch.optim.SGD):
    """Gradient descent with momentum; see ``torch.optim.SGD``."""

    def _step_group(self, group: Group) -> None:
        params: list[Tensor] = []
        grads: list[Tensor] = []
        found: list[Tensor | None] = []
        sparse = _init_group(self)(group, params, grads, found)
        buffers: list[Any] = list(found)
        first = group["momentum"] != 0 and all(one is None for one in buffers)
        plain = first or group["momentum"] == 0 or all(one is not None for one in buffers)
        plain = plain and not _on_gpu(group["lr"])
        if plain and not (sparse or group["differentiable"] or self._scaled()):
            if first:
                buffers = [torch.empty_like(param) for param in params]
            if group["momentum"] == 0:
                buffers = []
            if _C.sgd_step(
                params,
                grads,
                buffers,
                float(group["lr"]),
                group["momentum"],
                group["dampening"],
                group["weight_decay"],
                group["nesterov"],
                group["maximize"],
                first,
            ):
                if first:
                    for param, buffer in zip(params, buffers, strict=True):
                        self.state[param]["momentum_buffer"] = buffer
                return
        torch_sgd.sgd(
            params,
            grads,
            found,
            foreach=group["foreach"],
            fused=group["fused"],
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
            has_sparse_grad=sparse,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
        )
        if group["momentum"] != 0:
            for param, buffer in zip(params, found, strict=True):
                self.state[param]["momentum_buffer"] = buffer
