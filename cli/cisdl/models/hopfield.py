"""A Hopfield network: an associative memory. N neurons of state +1 or -1, each connected with all others.

    patterns   x_1 ... x_P, P x N           what is to be remembered
    W          N x N, symmetric, W_ii = 0   the synapses
    h          = W s                        the field that the state s makes at each neuron
    E(s)       = -1/2 s . W s               the energy; an asynchronous step never raises it

Learning, one step with no gradient (--rule)

    hebb        W = 1/N sum_p x_p x_p^T               neurons that agree are tied: it holds about 0.138 N
                                                      random patterns
    projection  W = 1/N sum_pq x_p (C^-1)_pq x_q^T    C_pq = x_p . x_q / N: patterns that resemble each
                                                      other, like digits, are told apart

Recall (--update), until nothing changes or --sweeps have passed

    asynchronous   one neuron after another, in random order:  s_i <- sign(h_i)
    synchronous    all neurons at once:                        s   <- sign(h)       may end in a cycle of two

A neuron of field 0 keeps its state. All products with W go through a linear layer.

Sources: Hopfield, "Neural networks and physical systems with emergent collective computational abilities",
PNAS 79, 1982; Amit, Gutfreund, Sompolinsky, "Storing infinite numbers of patterns in a spin-glass model of
neural networks", Phys. Rev. Lett. 55, 1985 (0.138); Personnaz, Guyon, Dreyfus, "Information storage and
retrieval in spin-glass like neural networks", J. Physique Lett. 46, 1985 (projection).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from cisdl.backend import Backend

ZERO = 1e-5
"""A field below that is none but for rounding: the next ones are 1 / N and more by Hebb's rule."""


class Hopfield(nn.Module):
    """States (batch, neurons) of +1 and -1 to fields (batch, neurons)."""

    patterns: Tensor
    """What was learnt, (stored, neurons): recall is held against it."""

    def __init__(self, ops: Backend, neurons: int, stored: int) -> None:
        super().__init__()
        self.ops = ops
        self.neurons = neurons
        self.synapses = ops.Linear(neurons, neurons, bias=False)
        self.synapses.weight.requires_grad_(False).zero_()
        self.register_buffer("patterns", torch.zeros(stored, neurons))

    def forward(self, states: Tensor) -> Tensor:
        fields: Tensor = self.synapses(states)
        return fields

    @torch.no_grad()
    def learn(self, patterns: Tensor, rule: str) -> None:
        """Remember the patterns (stored, neurons), and forget all before."""
        count, neurons = patterns.shape
        product = self.ops.Linear(count, neurons, bias=False).to(patterns.device)
        product.weight.copy_(patterns.T)  # product(A) = A X with X the patterns, for A (neurons, count)
        if rule == "hebb":
            weights = product(patterns.T.contiguous()) / neurons
        else:
            alike = patterns.double() @ patterns.double().T / neurons
            apart = torch.linalg.pinv(alike, hermitian=True).to(patterns.dtype)
            weights = product((apart @ patterns).T.contiguous()) / neurons
        self.synapses.weight.copy_((weights + weights.T) / 2).fill_diagonal_(0)
        self.patterns.copy_(patterns)

    def energy(self, states: Tensor) -> Tensor:
        """(batch,)"""
        energy: Tensor = -(states * self(states)).sum(1) / 2
        return energy

    @torch.no_grad()
    def recall(
        self,
        states: Tensor,
        update: str,
        sweeps: int,
        generator: np.random.Generator,
        every: int | None = None,
    ) -> list[Tensor]:
        """The states on their way to rest: the first ones, those in between, and the last.

        In between are those after every sweep, in which each neuron is asked once; with `every`, those after
        so many neurons of an asynchronous sweep. The generator decides the neurons' order.
        """
        path = [states]
        for _ in range(sweeps):
            if update == "synchronous":
                fields = self(states)
                following = [torch.where(fields.abs() < ZERO, states, fields.sign())]
            else:
                following = self.sweep(states, generator.permutation(self.neurons), every or self.neurons)
            rests = torch.equal(following[-1], states)
            states = following[-1]
            path += following
            if rests:
                break
        return path

    def sweep(self, states: Tensor, order: np.ndarray, every: int) -> list[Tensor]:
        """Ask the neurons one after another; the states after each `every` and after the last one.

        The fields come from the linear layer once; a neuron that turns changes them by its row of W.
        """
        s, h = states.cpu().numpy().copy(), self(states).cpu().numpy().copy()
        rows = self.synapses.weight.cpu().numpy()
        snapshots = []
        for number, neuron in enumerate(order, start=1):
            field = h[:, neuron]
            turning = np.flatnonzero(field * s[:, neuron] < -ZERO)
            if len(turning):
                s[turning, neuron] *= -1
                h[turning] += np.outer(2 * s[turning, neuron], rows[neuron])
            if number % every == 0 or number == len(order):
                snapshots.append(torch.from_numpy(s.copy()).to(states.device))
        return snapshots


def build(ops: Backend, neurons: int, stored: int) -> Hopfield:
    return Hopfield(ops, neurons, stored)
