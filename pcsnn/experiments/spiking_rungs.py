"""The rungs between back-propagation and spikes: which rule each is, and what its neurons send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from pcsnn.backprop import Backprop
from pcsnn.experiments.fading import Fading
from pcsnn.experiments.spiking_messages import Drawn, Late, Rates
from pcsnn.predictive.feedback import Feedback
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.predictive.zil import ZIL, FaZIL
from pcsnn.spiking import Graded, Pairs, SigmaDelta, SpikingPredictiveCoding
from pcsnn.spiking.errors import Messages

LOSS = "cross_entropy"


@dataclass(frozen=True)
class Rung:
    """What is taken away; where nothing is, it is as in back-propagation.

    Attributes:
        rule: ``"backprop"``, ``"il"``, ``"z-il"``, ``"fa-z-il"`` or ``"circuit"``.
        values: ``"graded"`` or ``"spikes"``, in the circuit.
        messages: how errors are told; for Z-IL ``"sigma-delta"`` codes them in events. ``"rates"``,
            ``"drawn"`` and ``"late"`` are :mod:`~pcsnn.experiments.spiking_messages`, ``"kept"``
            are pairs that keep what they have not told.
        derivative: what stands for the slope.
        feedback: ``"exact"``, ``"fixed"`` or ``"learned"`` matrices on the way back.
        input: ``"constant"`` or ``"poisson"``.
        hidden_learns: whether the layers below the output do.
        always: whether synapses are plastic at all times, and nothing is reset between samples.
        coupling: how much of its error a neuron is driven by.
        layers: hidden ones.
        online: whether samples come one at a time, and each once.
        finer: by how much the threshold of its events, or its pairs' dead zone, is smaller than the
            others'.
        teacher: when it speaks, as :class:`~pcsnn.spiking.SpikingPredictiveCoding` has it.
        gate: whether synapses are plastic at the end only, although nothing is reset.
        rest: whether each sample begins at rest, although synapses are always plastic.
        longer: by how much a presentation is longer than the others'.
        before: of back-propagation, what its images come out of, as in
            :mod:`~pcsnn.experiments.fading`: ``"image"`` or ``"black"``.
    """

    rule: str = "circuit"
    values: str = "spikes"
    messages: str = "graded"
    derivative: str = "boxcar"
    feedback: str = "exact"
    input: str = "constant"
    hidden_learns: bool = True
    always: bool = False
    coupling: float = 0.0
    layers: int = 1
    online: bool = False
    finer: float = 1.0
    teacher: str = "after"
    gate: bool = False
    rest: bool = False
    longer: float = 1.0
    before: str = ""

    def __post_init__(self) -> None:
        """Refuse what only the circuit has, where the rule is another."""
        only = {"z-il": ("messages", "feedback"), "backprop": ("before",)}.get(self.rule, ())
        own = ("rule", "hidden_learns", "layers", "online", "finer", *only)
        plain = {f.name: f.default for f in fields(self)}
        odd = [n for n in plain if n not in own and getattr(self, n) != plain[n]]
        if self.rule != "circuit" and odd:
            raise ValueError(f"a rung by {self.rule!r} has no {odd[0]}: that is the circuit's")
        if self.rule == "circuit" and self.before:
            raise ValueError("a rung by 'circuit' has no before: its own filters mix its images")
        if self.before not in ("", "image", "black"):
            raise ValueError(f"before must be 'image', 'black' or nothing, not {self.before!r}")
        if self.rule == "z-il" and self.messages not in ("graded", "sigma-delta"):
            raise ValueError(f"messages of Z-IL are at once, and {self.messages!r} take time")


_STRICT = Rung(messages="pairs", feedback="learned", input="poisson", always=True)

#: The ladder by name, from the top down; what stands beside a rung comes after it.
RUNGS: Mapping[str, Rung] = {
    "control": Rung("backprop", hidden_learns=False),
    "backprop": Rung("backprop"),
    "il": Rung("il"),
    "z-il": Rung("z-il"),
    "feedback-alignment": Rung("z-il", feedback="fixed"),
    "graded": Rung(values="graded", derivative="exact"),
    "value-spikes": Rung(derivative="exact"),
    "boxcar": Rung(),
    "pairs": Rung(messages="pairs"),
    "pairs-weakly-coupled": Rung(messages="pairs", coupling=0.1),
    "pairs-coupled": Rung(messages="pairs", coupling=1.0),
    "sigma-delta": Rung(messages="sigma-delta"),
    "learned-feedback": Rung(messages="pairs", feedback="learned"),
    "fixed-feedback": Rung(messages="pairs", feedback="fixed"),
    "poisson": Rung(messages="pairs", feedback="learned", input="poisson"),
    "always-plastic": _STRICT,
    "always-plastic-coupled": replace(_STRICT, coupling=1.0),
    "always-plastic-fixed": replace(_STRICT, feedback="fixed"),
    "two-layers": replace(_STRICT, layers=2),
    "online": replace(_STRICT, online=True),
    "event-z-il": Rung("z-il", messages="sigma-delta"),
    "event-z-il-fine": Rung("z-il", messages="sigma-delta", finer=100.0),
    "event-z-il-learned": Rung("z-il", messages="sigma-delta", feedback="learned"),
}

#: What the ladder's last rungs are read against: not rungs of it themselves.
BESIDE: Mapping[str, Rung] = {
    "backprop-two-layers": Rung("backprop", layers=2),
    "control-two-layers": Rung("backprop", layers=2, hidden_learns=False),
    "backprop-online": Rung("backprop", online=True),
    "control-online": Rung("backprop", online=True, hidden_learns=False),
    "two-layers": RUNGS["two-layers"],
    "online": RUNGS["online"],
}

#: The strict network with two hidden layers, and the same with one constraint less, or with pairs
#: that tell smaller errors.
GIVEN_BACK: Mapping[str, Rung] = {
    "two-layers": RUNGS["two-layers"],
    "two-layers-gated": replace(RUNGS["two-layers"], always=False),
    "two-layers-constant": replace(RUNGS["two-layers"], input="constant"),
    "two-layers-exact-feedback": replace(RUNGS["two-layers"], feedback="exact"),
    "two-layers-graded": replace(RUNGS["two-layers"], messages="graded"),
    "two-layers-finer": replace(RUNGS["two-layers"], finer=3.0),
    "two-layers-exact-slope": replace(RUNGS["two-layers"], derivative="exact"),
}

_DEEP = RUNGS["two-layers"]

#: The same, with errors that have one property of spikes and not the others; and with graded errors
#: and one more constraint less.
TOLD: Mapping[str, Rung] = {
    "told-events": replace(_DEEP, messages="sigma-delta"),
    "graded-constant": replace(_DEEP, messages="graded", input="constant"),
    "graded-gated": replace(_DEEP, messages="graded", always=False),
    "graded-exact-feedback": replace(_DEEP, messages="graded", feedback="exact"),
    "told-drawn": replace(_DEEP, messages="drawn"),
    "told-rates": replace(_DEEP, messages="rates"),
    "told-late": replace(_DEEP, messages="late"),
    "told-kept": replace(_DEEP, messages="kept"),
}

#: Between two rungs of the ladder: events of a third, and Z-IL whose neurons find their own time.
BETWEEN: Mapping[str, Rung] = {
    "event-z-il-third": replace(RUNGS["event-z-il"], finer=3.0),
    "fa-z-il": Rung("fa-z-il"),
}

_NO_PHASES = replace(_STRICT, teacher="throughout")

#: The strict network with phases, without, and without but for one other thing that is changed.
PHASES: Mapping[str, Rung] = {
    "always-plastic": _STRICT,
    "throughout": _NO_PHASES,
    "throughout-gated": replace(_NO_PHASES, gate=True),
    "throughout-rest": replace(_NO_PHASES, rest=True),
    "throughout-longer": replace(_NO_PHASES, longer=4.0),
    "in-step": replace(_NO_PHASES, teacher="in-step"),
}

_IN_STEP = PHASES["in-step"]

#: Why the network without phases bears noise: it with one thing changed, and back-propagation of
#: images that come out of what was before.
NOISE: Mapping[str, Rung] = {
    "always-plastic": _STRICT,
    "in-step": _IN_STEP,
    "in-step-rest": replace(_IN_STEP, rest=True),
    "in-step-gated": replace(_IN_STEP, gate=True),
    "in-step-constant": replace(_IN_STEP, input="constant"),
    "in-step-graded": replace(_IN_STEP, messages="graded"),
    "backprop": RUNGS["backprop"],
    "backprop-fading": Rung("backprop", before="image"),
    "backprop-from-black": Rung("backprop", before="black"),
}

#: Every one of them by its name.
NAMED: Mapping[str, Rung] = {
    **RUNGS, **BESIDE, **GIVEN_BACK, **TOLD, **BETWEEN, **PHASES, **NOISE,
}  # fmt: skip

#: Those that are compared on fewer samples too.
COMPARED = (
    "backprop", "il", "z-il", "feedback-alignment", "pairs", "always-plastic", "event-z-il",
)  # fmt: skip


def kind_of(name: str) -> str:
    """Of which kind a rung's learning rates are: ``"rules"``, ``"circuit"`` or ``"online"``."""
    rung = RUNGS[name]
    return "online" if rung.online else "circuit" if rung.rule == "circuit" else "rules"


Rule = Backprop | Fading | InferenceLearning | ZIL | FaZIL | SpikingPredictiveCoding


def make_rule(
    rung: Rung,
    feedback: Feedback | None,
    seed: int,
    *,
    gain: float,
    threshold: float,
    free: float,
    taught: float,
    inference: tuple[int, float],
) -> Rule:
    """The rule of a rung.

    Args:
        rung: what it has.
        feedback: its matrices on the way back, where they are its own.
        seed: of the input's spikes.
        gain: of pairs.
        threshold: of events.
        free: seconds before the teacher speaks.
        taught: seconds that it speaks, all of them plastic, in a presentation of usual length.
        inference: steps of inference learning, and their size.

    Raises:
        ValueError: where the rung's way back is its own and there is none, or the other way round.
    """
    if (feedback is None) != (rung.feedback == "exact"):
        has = "none is" if feedback is None else "matrices are"
        raise ValueError(f"the feedback of the rung is {rung.feedback!r}, and {has} given")
    if rung.rule == "backprop":
        rule = Backprop(LOSS)
        return fading(rule, free + taught, rung.before) if rung.before else rule
    if rung.rule == "fa-z-il":
        return FaZIL(LOSS)
    if rung.rule == "il":
        steps, step_size = inference
        return InferenceLearning(LOSS, steps=steps, step_size=step_size)
    events = SigmaDelta(threshold / rung.finer)
    if rung.rule == "z-il":
        return ZIL(LOSS, feedback, messages=events if rung.messages == "sigma-delta" else None)
    taught += (rung.longer - 1) * (free + taught)
    return SpikingPredictiveCoding(
        LOSS,
        messages=messages_of(rung, gain, events, seed),
        derivative=rung.derivative,
        feedback=feedback,
        coupling=rung.coupling,
        values=rung.values,
        input=rung.input,
        free=free,
        taught=taught,
        window=free + taught if rung.always and not rung.gate else taught,
        teacher=rung.teacher,
        reset=not rung.always or rung.rest,
        seed=seed,
    )


def fading(rule: Backprop, seconds: float, before: str) -> Fading:
    """Images pass the two synapses that they pass in the circuit."""
    circuit = SpikingPredictiveCoding(LOSS)
    filters = circuit.synapse.tau, circuit.output_synapse.tau
    return Fading(rule, seconds, filters, black=before == "black")


def messages_of(rung: Rung, gain: float, events: SigmaDelta, seed: int) -> Messages:
    """How a circuit's errors are told."""
    told: dict[str, Messages] = {
        "graded": Graded(),
        "pairs": Pairs(gain * rung.finer),
        "sigma-delta": events,
        "rates": Rates(gain),
        "drawn": Drawn(gain, seed=seed),
        "late": Late(),
        "kept": Pairs.keeping(gain),
    }
    return told[rung.messages]
