"""What a node pays for holding ``x`` where ``u`` was predicted (thesis 3.5; Pinchetti et al. 2022).

An :class:`Energy` prices a node, hidden or output alike. It has a value ``E(u, x)`` and two
slopes: ``−∂E/∂u``, what the error node holds, goes down and teaches; and ``−∂E/∂x``, what moves
the node itself. It also says what the node hands on to the stages above, and what parameters of
its own learn. Both ``u`` and ``x`` are parameters of a distribution, unconstrained.

- :class:`Gaussian`, eq. 41: ``½ε²`` with ``ε = x − u``, over a variance: 1, fixed or learned.
- :class:`Categorical`: values are logits, the node hands on their softmax and pays the divergence
  of what it says from what was predicted.
- :class:`Divergence` and :class:`NegativeLogLikelihood`: any family of
  :mod:`torch.distributions`.
- :class:`OutputEnergy`: the output, clamped to a target, pays a loss of :mod:`pcsnn.likelihood`
  after a read-out. For the squared error the error is ``y − u``, as in Song's equation 8; for
  softmax and cross-entropy ``y − softmax(u)``, which answers the question of section 3.5.2.

An energy of one's own needs only ``value``: autograd finds its slopes.

**Digits.** Inference knows ``x − u`` with more digits than ``x`` and ``u`` have (see
:mod:`pcsnn.predictive.inference`), and hands it over as ``delta``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence
from torch.nn import functional as F

from pcsnn import validate
from pcsnn.activations import Activation
from pcsnn.likelihood import LOSSES, Loss


class Energy:
    """``E(u, x)`` of one node; ``u`` and ``x`` have one shape, batch first, ``(…, B, …)``.

    An energy with parameters of its own is an :class:`torch.nn.Module` as well.
    """

    name = "energy"
    #: Whether both slopes are zero where ``x = u``: the node rests until something reaches it.
    rests = False

    @abstractmethod
    def value(self, u: Tensor, x: Tensor) -> Tensor:
        """``E``: one number for each sample, or several that are to be summed, ``(…, B, …)``."""

    def error(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """``ε = −∂E/∂u``, of the shape of ``u``: what the error node holds.

        Args:
            u: the prediction.
            x: the value.
            delta: ``x − u``, where it is known with more digits.
        """
        return self._slope(0, u, x)

    def pull(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """``−∂E/∂x``: what the energy moves the node by, arguments as for :meth:`error`."""
        return self._slope(1, u, x)

    def hand_on(self, x: Tensor) -> Tensor:
        """What the stages above read of the value; the value itself, unless a node says else."""
        return x

    def hand_back(self, x: Tensor, gradient: Tensor) -> Tensor:
        """An error on what was handed on, carried back to the value."""
        return gradient

    def own(
        self, u: Tensor, x: Tensor, delta: Tensor | None = None
    ) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """``−∂E/∂θ`` of each parameter of the energy's own, summed over the batch."""
        held = self.parameters() if isinstance(self, nn.Module) else ()
        parameters = [p for p in held if p.requires_grad]
        if parameters:
            with torch.enable_grad():
                total = self.value(u.detach(), x.detach()).sum()
            for p, g in zip(parameters, torch.autograd.grad(total, parameters), strict=True):
                yield p, -g

    def change(self, u: Tensor, origin: Tensor) -> Tensor:
        """``u − u₀``, by how much a prediction has moved."""
        return u - origin

    def admit(self, name: str, u: Tensor, samples: int = 1) -> None:
        """Refuse a node whose predictions this energy cannot price.

        Args:
            name: of the node, for the sentence.
            u: a prediction.
            samples: how many axes lie before those of one sample.

        Raises:
            TypeError, ValueError: in a sentence that names the node and the energy.
        """
        try:
            price = self.value(u, u)
        except Exception as error:  # whatever a family may raise
            said = (str(error) or repr(error)).splitlines()[0]
            raise ValueError(
                f"{name} has the energy {self.name!r}, which cannot price a prediction of shape "
                f"{tuple(u.shape)}: {said}"
            ) from error
        if price.shape[:samples] != u.shape[:samples]:
            raise ValueError(
                f"{name} has the energy {self.name!r}, whose value for a prediction of shape "
                f"{tuple(u.shape)} has shape {tuple(price.shape)}: one price for each sample, or "
                "several, must be its first axes"
            )
        if price.dtype != u.dtype:
            raise TypeError(
                f"{name} is predicted in {u.dtype}, but its energy {self.name!r} is in "
                f"{price.dtype}"
            )

    @property
    def is_unit(self) -> bool:
        """Whether this is ``½ε²``, whose error is ``x − u`` and whose pull is the opposite."""
        return False

    def _slope(self, which: int, *at: Tensor) -> Tensor:
        with torch.enable_grad():
            leaves = [a.detach().requires_grad_(k == which) for k, a in enumerate(at)]
            total = self.value(*leaves).sum()
            (slope,) = torch.autograd.grad(total, leaves[which])
        return -slope


class Gaussian(nn.Module, Energy):
    """``½ (x − u)² / σ²`` for each unit, eq. 41; with a learned variance also ``½ log σ²``.

    Args:
        variance: σ²: a number, a tensor that fits the node's last axis, or ``"learned"``: a
            parameter ``log_variance`` for each unit, which starts at a variance of 1.
        units: the node's last axis, where the variance is learned.
        floor: what a learned variance cannot fall below: ``σ² = floor + exp(log_variance)``. A
            node that is predicted perfectly would pay −∞ without one.
    """

    name = "gaussian"
    rests = True

    def __init__(
        self,
        variance: float | Tensor | str = 1.0,
        *,
        units: int | None = None,
        floor: float = 1e-3,
    ) -> None:
        super().__init__()
        self.floor = validate.positive("floor", floor)
        self.log_variance: nn.Parameter | None = None
        self.fixed: float = 1.0
        if isinstance(variance, str):
            validate.one_of("variance", variance, ("learned",))
            if units is None:
                raise ValueError("units is needed where the variance is learned")
            start = math.log1p(-floor) if floor < 1 else 0.0
            self.log_variance = nn.Parameter(
                torch.full((validate.positive_int("units", units),), start)
            )
        elif torch.is_tensor(variance):
            validate.finite("variance", variance)
            if not bool((variance > 0).all()):
                raise ValueError("variance must be positive everywhere")
            self.register_buffer("given", variance.detach().clone())
        else:
            self.fixed = validate.positive("variance", variance)

    @property
    def is_unit(self) -> bool:
        """Whether the variance is 1."""
        return self.log_variance is None and "given" not in self._buffers and self.fixed == 1

    @property
    def variance(self) -> float | Tensor:
        """σ²."""
        if self.log_variance is not None:
            return self.floor + self.log_variance.exp()
        return self._buffers.get("given", self.fixed)  # type: ignore[return-value]

    def admit(self, name: str, u: Tensor, samples: int = 1) -> None:
        """Refuse a node that has other units than the variance."""
        if self.log_variance is not None and len(self.log_variance) != u.shape[-1]:
            raise ValueError(
                f"{name} has {u.shape[-1]} units, but the learned variance of its energy "
                f"{len(self.log_variance)}"
            )
        super().admit(name, u, samples)

    def value(self, u: Tensor, x: Tensor) -> Tensor:
        """``½ Σ ε²/σ²`` over the last axis."""
        price = 0.5 * (x - u).square() / self.variance
        if self.log_variance is not None:
            price = price + 0.5 * torch.log(self.variance)  # type: ignore[arg-type]
        return price.sum(dim=-1)

    def error(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """``(x − u)/σ²``."""
        delta = x - u if delta is None else delta
        return delta if self.is_unit else delta / self.variance

    def pull(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """``−(x − u)/σ²``."""
        return -self.error(u, x, delta)

    def own(
        self, u: Tensor, x: Tensor, delta: Tensor | None = None
    ) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """``½ (δ²/σ² − 1) e^ρ/σ²`` for ``ρ``, the logarithm of the variance above its floor."""
        rho = self.log_variance
        if rho is not None and rho.requires_grad:
            delta = x - u if delta is None else delta
            share = rho.exp() / self.variance
            gradient = 0.5 * (delta.square() / self.variance - 1) * share
            yield rho, gradient.detach().flatten(0, -2).sum(dim=0)

    def extra_repr(self) -> str:
        """The variance, unless it is 1."""
        if self.log_variance is not None:
            return f"variance='learned', units={len(self.log_variance)}"
        return "" if self.is_unit else f"variance={self.variance}"


class Categorical(nn.Module, Energy):
    """Logits: the node hands on ``softmax(x)`` and pays ``D(softmax x ‖ softmax u)``.

    The divergence of Pinchetti's equation 10, over the last axis. Logits of −∞ are masked: they
    have no share in either distribution, and get no error.
    """

    name = "categorical"
    rests = True

    def admit(self, name: str, u: Tensor, samples: int = 1) -> None:
        """Refuse a node of one unit, and logits that are all masked."""
        if u.shape[-1] < 2:
            raise ValueError(f"{name} has one unit, but a categorical node needs at least 2")
        if bool(torch.isneginf(u).all(dim=-1).any()):
            raise ValueError(f"{name} is given logits of which a whole row is masked with −∞")
        super().admit(name, u, samples)

    def value(self, u: Tensor, x: Tensor) -> Tensor:
        """``Σ p_x (log p_x − log p_u)`` over the last axis."""
        return torch.sum(torch.softmax(x, -1) * self._ratio(u, x), dim=-1)

    def error(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """``softmax(x) − softmax(u)``, from their ratio: ``p_u (e^(δ − log Σ p_u e^δ) − 1)``.

        The difference of two softmaxes that are nearly the same would keep none of its digits.
        """
        p = torch.softmax(u, -1)
        if delta is None:
            delta = self.change(x, u)
        # log Σ p e^δ, which is small where δ is.
        top = delta.amax(dim=-1, keepdim=True)
        mean = top + torch.log1p((p * torch.expm1(delta - top)).sum(dim=-1, keepdim=True))
        return p * torch.expm1(delta - mean)

    def pull(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """``−p_x ⊙ (r − Σ p_x r)`` with ``r = log p_x − log p_u``, or ``δ``: constants cancel."""
        r = self.change(x, u) if delta is None else delta
        return -self.hand_back(x, r)

    def hand_on(self, x: Tensor) -> Tensor:
        """``softmax(x)``."""
        return torch.softmax(x, -1)

    def hand_back(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The product with the softmax's Jacobian, eq. 16."""
        p = torch.softmax(x, -1)
        return p * (gradient - (p * gradient).sum(dim=-1, keepdim=True))

    def change(self, u: Tensor, origin: Tensor) -> Tensor:
        """``u − u₀``, and 0 where both are −∞."""
        return torch.where(u == origin, torch.zeros_like(u), u - origin)

    def _ratio(self, u: Tensor, x: Tensor) -> Tensor:
        return self.change(torch.log_softmax(x, -1), torch.log_softmax(u, -1))


Family = Callable[[Tensor], Distribution]


class Divergence(nn.Module, Energy):
    """``D(family(x) ‖ family(u))``: the node's distribution against the one predicted.

    Args:
        family: makes a distribution of :mod:`torch.distributions` from a tensor of parameters.
    """

    name = "divergence"
    rests = True

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.family = _admit_family(family)

    def value(self, u: Tensor, x: Tensor) -> Tensor:
        """``D``, of the shape that the family's batches have."""
        return kl_divergence(self.family(x), self.family(u))


class NegativeLogLikelihood(nn.Module, Energy):
    """``−log p(x)`` under ``family(u)``: the node's value as a sample of what was predicted.

    Args:
        family: makes a distribution of :mod:`torch.distributions` from a tensor of parameters.
    """

    name = "negative log likelihood"

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.family = _admit_family(family)

    def value(self, u: Tensor, x: Tensor) -> Tensor:
        """``−log p``, of the shape that the family's samples have."""
        return -self.family(u).log_prob(x)


def _admit_family(family: Family) -> Family:
    if not callable(family):
        raise TypeError(
            "family must be a function from a tensor to a torch.distributions.Distribution, "
            f"not {type(family).__name__}"
        )
    return family


ENERGIES: dict[str, Callable[[], Energy]] = {"gaussian": Gaussian, "categorical": Categorical}


def as_energy(energy: str | Energy) -> Energy:
    """An energy by its name in :data:`ENERGIES`, or the energy itself."""
    if isinstance(energy, Energy):
        return energy
    if isinstance(energy, type):
        raise TypeError(f"energy is the class {energy.__name__}: write {energy.__name__}()")
    return ENERGIES[validate.one_of("energy", energy, ENERGIES)]()


def gaussian_energy(error: Tensor) -> Tensor:
    """``½ Σ ε²`` for each sample (eq. 41): ``(…, B, n)`` to ``(…, B)``."""
    return 0.5 * error.square().sum(dim=-1)


class OutputEnergy(Energy):
    """The energy of a clamped output: a loss after a read-out. Its value ``x`` is the target.

    Args:
        loss: of the prediction ``ŷ = r(u)`` and the target.
        read_out: ``r``, what turns the last value node into the prediction.
    """

    name = "output"

    def __init__(self, loss: Loss, read_out: Activation) -> None:
        self.loss, self.read_out = loss, read_out
        plain = read_out.name == "identity"
        # The two commonest in one line each: inference asks for them at every step.
        self._squares = plain and loss is LOSSES["squared_error"]
        self._softmax = plain and loss is LOSSES["cross_entropy"]

    def value(self, u: Tensor, x: Tensor) -> Tensor:
        """The loss of each sample: ``(…, B, n)`` to ``(…, B)``."""
        if self._softmax:  # of numbers that may not be finite, too
            return -(x * torch.log_softmax(u, dim=-1)).sum(dim=-1)
        return self.loss.value(self.read_out(u), x)

    def mean(self, u: Tensor, x: Tensor) -> Tensor:
        """The mean over the batch: ``(…, B, n)`` to ``(…)``."""
        if self._squares and u.dim() == 2:
            return F.mse_loss(u, x, reduction="sum") * (0.5 / len(u))
        return self.value(u, x).mean(dim=-1)

    def error(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """What the output error node holds, ``ε = −∂E/∂u``, of shape ``(…, B, n)``."""
        if self._squares:
            return x - u
        if self._softmax:
            return x - torch.softmax(u, dim=-1) * x.sum(dim=-1, keepdim=True)
        prediction = self.read_out(u)
        return -self.read_out.backward(u, self.loss.gradient(prediction, x), prediction)
