import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import pcsnn
from pcsnn import data
from pcsnn.ensembles import stack
from pcsnn.predictive.alignment import DirectFeedbackAlignment, FeedbackAlignment
from pcsnn.predictive.feedback import Feedback, angle
from pcsnn.predictive.incremental import IncrementalInferenceLearning
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.predictive.zil import ZIL, FaZIL
from tests.strategies import DEVICES

SIZES = (5, 7, 6, 3)


def network(seed=0, activation="tanh", sizes=SIZES, dtype=torch.float64, **options):
    made = pcsnn.mlp(sizes, activation, seed=seed, dtype=dtype, **options)
    generator = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for layer in made.layers:
            if layer.linear.bias is not None:
                layer.linear.bias.copy_(torch.randn(layer.linear.bias.shape, generator=generator))
    return made


def batch(seed=0, size=4, sizes=SIZES, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, sizes[0], generator=generator, dtype=torch.float64)
    y = torch.randn(size, sizes[-1], generator=generator, dtype=torch.float64)
    return x.to(dtype), y.to(dtype)


def gradients(rule, made, x, y):
    made = copy.deepcopy(made)
    made.zero_grad(set_to_none=True)
    rule(made, x, y)
    return [p.grad for p in made.parameters()]


def same(found, expected, tolerance=1e-12):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# Against autograd, told in another way what comes back


class WithItsOwnWayBack(torch.autograd.Function):
    """``a Wᵀ + b``, whose derivative for ``a`` autograd is told to take from ``B``."""

    @staticmethod
    def forward(context, a, W, b, B):
        context.save_for_backward(a, B)
        return a @ W.T + b

    @staticmethod
    def backward(context, error):
        a, B = context.saved_tensors
        return error @ B, error.T @ a, error.sum(0), None


def loss_of(name, prediction, y):
    if name == "squared_error":
        return 0.5 * (prediction - y).square().sum(dim=1).mean()
    return nn.functional.cross_entropy(prediction, y)


def target(name, y):
    return torch.softmax(3 * y, dim=1) if name == "cross_entropy" else y


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "identity"])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_feedback_alignment_is_autograd_with_another_way_back(activation, loss):
    made, (x, y) = network(activation=activation), batch()
    y, feedback = target(loss, y), Feedback.random(made, 3)
    own = copy.deepcopy(made)
    a = x
    for k, layer in enumerate(own.layers):
        B = layer.linear.weight if k == 0 else feedback.weights[k - 1]
        z = WithItsOwnWayBack.apply(a, layer.linear.weight, layer.linear.bias, B)
        a = layer.activation(z)
    loss_of(loss, a, y).backward()
    same(
        gradients(FeedbackAlignment(loss, feedback), made, x, y), [p.grad for p in own.parameters()]
    )


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_direct_feedback_alignment_against_autograd_of_each_layer_alone(activation, loss):
    made, (x, y) = network(activation=activation), batch()
    y, feedback = target(loss, y), Feedback.direct(made, 3)
    prediction = made(x).detach().requires_grad_()
    (error,) = torch.autograd.grad(loss_of(loss, prediction, y), prediction)
    own, a = copy.deepcopy(made), x
    for k, layer in enumerate(own.layers):
        given = layer(a.detach())
        taught = error if k == len(own.layers) - 1 else error @ feedback.weights[k].detach()
        (given * taught).sum().backward()  # the layer is told ∂L/∂a, and hears of no other
        a = given
    found = gradients(DirectFeedbackAlignment(loss, feedback), made, x, y)
    same(found, [p.grad for p in own.parameters()])


@given(
    sizes=st.lists(st.integers(1, 6), min_size=3, max_size=6),
    seed=st.integers(0, 1000),
    size=st.integers(1, 4),
    activation=st.sampled_from(["tanh", "relu", "softplus"]),
)
def test_feedback_alignment_is_the_delta_recursion_with_other_matrices(
    sizes, seed, size, activation
):
    made, (x, y) = network(seed, activation, sizes), batch(seed, size, sizes)
    feedback = Feedback.random(made, seed + 1, std=1.0)
    own = copy.deepcopy(made)
    trace = pcsnn.backprop.forward(own, x)
    with torch.no_grad():  # the weights above the first are read on the way back alone
        for layer, B in zip(own.layers[1:], feedback.weights, strict=True):
            layer.linear.weight.copy_(B)
    errors = pcsnn.backprop.deltas(own, trace, (trace.prediction - y) / size)
    expected = [e.affine.T @ a for e, a in zip(errors, trace.a, strict=False)]
    found = gradients(FeedbackAlignment("squared_error", feedback), made, x, y)[::2]
    same(found, expected)
    same(gradients(ZIL(feedback=feedback, literal=True), made, x, y)[::2], expected)


# A copy of the weights


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_copied_weights_are_back_propagation(activation, loss):
    made, (x, y) = network(activation=activation), batch()
    y, feedback = target(loss, y), Feedback.copy(made)
    expected = gradients(ZIL(loss), made, x, y)
    same(gradients(FeedbackAlignment(loss, feedback), made, x, y), expected)
    same(gradients(pcsnn.Backprop(loss), made, x, y), expected)
    other = Feedback.random(made, 1)
    changed = gradients(FeedbackAlignment(loss, other), made, x, y)
    assert not torch.allclose(changed[0], expected[0], rtol=0.1)
    same(changed[-2:], expected[-2:])  # the output needs no way back


@pytest.mark.parametrize(
    "make",
    [
        lambda f: ZIL(feedback=f),
        lambda f: ZIL(feedback=f, literal=True),
        lambda f: FaZIL(feedback=f),
        lambda f: InferenceLearning(feedback=f),
        lambda f: IncrementalInferenceLearning(feedback=f, learning_rate=1e-3),
    ],
)
def test_every_rule_reads_its_matrices(make):
    made, (x, y) = network(), batch()
    plain = gradients(make(None), made, x, y)
    same(gradients(make(Feedback.copy(made, learn=True)), made, x, y), plain)
    changed = gradients(make(Feedback.random(made, 1)), made, x, y)
    assert not torch.allclose(changed[0], plain[0], rtol=0.01)


def test_inference_reads_its_matrices():
    made, (x, y) = network(), batch()
    copied = [w.detach() for w in Feedback.copy(made).weights]
    runs = [
        list(pcsnn.infer(made, x, y, steps=3, step_size=0.1, feedback=feedback))
        for feedback in (None, copied, [2 * w for w in copied])
    ]
    same(runs[0][3].errors, runs[1][3].errors, 0.0)
    torch.testing.assert_close(2 * runs[0][1].errors[1], runs[2][1].errors[1])


def test_inference_with_other_matrices_may_climb():
    # The energy is then no Lyapunov function: rising is no fault of the step size.
    made, (x, y) = network(), batch()
    feedback = Feedback([-layer.linear.weight for layer in made.layers[1:]])
    report = InferenceLearning(feedback=feedback, steps=5)(made, x, y)
    assert report.energy > report.loss
    with pytest.raises(pcsnn.DivergenceError, match="layer"):
        InferenceLearning(feedback=feedback, steps=2000, step_size=5.0)(made, x, y)
    rule = IncrementalInferenceLearning(feedback=feedback, steps=5, learning_rate=1e-4)
    assert rule(made, x, y).energy > report.loss


# Learning


def trained(rule, made, feedback, steps=20, **options):
    optimiser = torch.optim.SGD([*made.parameters(), *feedback.parameters()], **options)
    for seed in range(steps):
        optimiser.zero_grad(set_to_none=True)
        rule(made, *batch(seed))
        optimiser.step()
    return made, feedback


def gaps(made, feedback):
    return [
        B.detach() - layer.linear.weight.detach()
        for B, layer in zip(feedback.weights, made.layers[1:], strict=True)
    ]


RECIPES = [
    {"lr": 0.05},
    {"lr": 0.05, "momentum": 0.9},
    {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
]


@pytest.mark.parametrize("options", RECIPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_at_the_start_is_equal_to_the_bit_ever_after(options, dtype):
    made = network(dtype=torch.float64).to(dtype)
    feedback = Feedback.copy(made, learn=True)
    rule = ZIL(feedback=feedback)
    optimiser = torch.optim.SGD([*made.parameters(), *feedback.parameters()], **options)
    for seed in range(20):
        optimiser.zero_grad(set_to_none=True)
        rule(made, *batch(seed, dtype=dtype))
        optimiser.step()
    assert all(not gap.any() for gap in gaps(made, feedback))
    assert feedback.angles(made) == [0.0, 0.0]


def test_equal_weights_with_adam():
    made = network()
    feedback = Feedback.copy(made, learn=True)
    start = feedback.weights[0].detach().clone()
    optimiser = torch.optim.Adam([*made.parameters(), *feedback.parameters()], lr=0.01)
    for seed in range(10):
        optimiser.zero_grad(set_to_none=True)
        InferenceLearning(feedback=feedback)(made, *batch(seed))
        optimiser.step()
    assert all(not gap.any() for gap in gaps(made, feedback))
    assert not torch.equal(start, feedback.weights[0])


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_the_difference_shrinks_by_the_decay_alone(decay):
    made = network()
    feedback = Feedback.random(made, 5, learn=True)
    before = gaps(made, feedback)
    trained(ZIL(feedback=feedback), made, feedback, lr=0.05, weight_decay=decay)
    factor = (1 - 0.05 * decay) ** 20
    same(gaps(made, feedback), [factor * gap for gap in before], 1e-12)


def test_the_fused_step_teaches_the_matrices_too():
    one, two = network(), network()
    for made, fused in ((one, True), (two, False)):
        feedback = Feedback.random(made, 5, learn=True)
        rule = ZIL(feedback=feedback)
        if fused:
            for seed in range(5):
                rule.step(made, *batch(seed), 0.05)
            kept = feedback
        else:
            trained(rule, made, feedback, steps=5, lr=0.05)
    same(one.parameters(), two.parameters())
    same(kept.parameters(), feedback.parameters())


def test_matrices_that_learn_have_gradients_of_their_own():
    """Called twice without zeroing: both have twice the gradient, and neither is the other's."""
    made, (x, y) = network(), batch()
    feedback = Feedback.copy(made, learn=True)
    rule = ZIL(feedback=feedback)
    rule(made, x, y)
    once = [layer.linear.weight.grad.clone() for layer in made.layers[1:]]
    rule(made, x, y)
    same([layer.linear.weight.grad for layer in made.layers[1:]], [2 * g for g in once])
    same([B.grad for B in feedback.weights], [2 * g for g in once])


def test_incremental_learning_teaches_the_matrices_at_every_step():
    made, (x, y) = network(), batch()
    feedback = Feedback.copy(made, learn=True)
    rule = IncrementalInferenceLearning(feedback=feedback, steps=4, learning_rate=1e-3)
    rule.step(made, x, y, 1e-3)
    assert all(not gap.any() for gap in gaps(made, feedback))
    before = [p.clone() for p in (*made.parameters(), *feedback.parameters())]
    rule(made, x, y)  # proposes, and puts everything back
    same((*made.parameters(), *feedback.parameters()), before, 0.0)
    for B, layer in zip(feedback.weights, made.layers[1:], strict=True):
        assert B.grad.any()
        assert torch.equal(B.grad, layer.linear.weight.grad)


def test_matrices_that_do_not_learn_stay_as_they_are():
    made, (x, y) = network(), batch()
    for rule in (FeedbackAlignment, DirectFeedbackAlignment):
        direct = rule is DirectFeedbackAlignment
        feedback = Feedback.direct(made, 2) if direct else Feedback.random(made, 2)
        before = copy.deepcopy(feedback.state_dict())
        rule("squared_error", feedback)(made, x, y)
        rule("squared_error", feedback).step(made, x, y, 0.1)
        assert all(torch.equal(before[name], w) for name, w in feedback.state_dict().items())
        assert all(w.grad is None for w in feedback.parameters())


def test_feedback_alignment_learns_and_aligns():
    digits = data.load("digits", "train")
    made = pcsnn.mlp([64, 32, 10], "tanh", init="lecun", seed=1)
    feedback = Feedback.random(made, 2)
    before = feedback.angles(made)[0]
    optimiser = torch.optim.SGD(made.parameters(), lr=0.1, momentum=0.9)
    rule = FeedbackAlignment("cross_entropy", feedback)
    history = pcsnn.train(
        made, rule, optimiser, digits, epochs=8, batch_size=50, seed=1,
        validation=data.load("digits", "test"), progress=False,
    )  # fmt: skip
    assert history.curves["test_accuracy"][-1] > 0.9
    assert feedback.angles(made)[0] < before - 20


def test_a_run_with_matrices_that_learn_continues_from_its_checkpoint(tmp_path):
    digits = data.load("digits", "train").take(200)

    def run(epochs, checkpoint):
        made = pcsnn.mlp([64, 8, 10], "tanh", seed=1)
        feedback = Feedback.random(made, 2, learn=True)
        parameters = [*made.parameters(), *feedback.parameters()]
        optimiser = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01)
        pcsnn.train(
            made, ZIL("cross_entropy", feedback), optimiser, digits, epochs=epochs, batch_size=50,
            seed=1, progress=False, checkpoint=checkpoint,
        )  # fmt: skip
        return parameters

    whole = run(2, None)
    run(1, tmp_path / "c.pt")
    same(run(2, tmp_path / "c.pt"), whole, 0.0)


# A module like any other


def test_state_dict_and_devices():
    made = network()
    one, two = Feedback.random(made, 1, learn=True), Feedback.random(made, 2)
    two.load_state_dict(one.state_dict())
    same(two.weights, one.weights, 0.0)
    assert [name for name, _ in one.named_parameters()] == ["weights.0", "weights.1"]
    assert [w.requires_grad for w in two.weights] == [False, False]
    assert one.float().weights[0].dtype == torch.float32


@pytest.mark.parametrize("device", DEVICES)
def test_one_seed_is_one_set_of_matrices_on_every_device(device):
    made = network(dtype=torch.float32)
    here, there = Feedback.random(made, 1), Feedback.random(made.to(device), 1)
    same([w.cpu() for w in there.weights], here.weights, 1e-6)
    x, y = (t.to(device) for t in batch(dtype=torch.float32))
    FeedbackAlignment("squared_error", there)(made, x, y)
    assert all(torch.isfinite(p.grad).all() for p in made.parameters())


def test_random_matrices_have_the_spread_of_the_weights():
    made = network(sizes=(50, 60, 70, 80), init="lecun")
    for B, layer in zip(Feedback.random(made, 4).weights, made.layers[1:], strict=True):
        assert B.std() == pytest.approx(layer.linear.weight.std().item(), rel=0.05)
        assert angle(B, layer.linear.weight) == pytest.approx(90, abs=5)
    assert Feedback.random(made, 4, std=3.0).weights[1].std() == pytest.approx(3, rel=0.05)
    shapes = [tuple(w.shape) for w in Feedback.direct(made).weights]
    assert shapes == [(80, 60), (80, 70)]
    generator = torch.Generator().manual_seed(4)
    same(Feedback.random(made, generator).weights, Feedback.random(made, 4).weights, 0.0)


def test_angles():
    a = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert angle(a, 3 * a) == 0.0
    assert angle(a, -a) == pytest.approx(180)
    assert angle(a, a.T.flip(1)) == pytest.approx(90)
    tilted = a + torch.tensor([[0.0, 1e-9], [0.0, 0.0]], dtype=torch.float64)
    assert angle(a, tilted) == pytest.approx(torch.rad2deg(torch.tensor(1e-9)).item(), rel=1e-6)
    made = network()
    product = made.layers[2].linear.weight @ made.layers[1].linear.weight
    direct = Feedback([product, -made.layers[2].linear.weight])
    assert direct.angles(made, direct=True) == pytest.approx([0.0, 180.0], abs=1e-6)


def test_direct_feedback_is_watched():
    made, (x, y) = network(), batch()
    rule = DirectFeedbackAlignment("squared_error", Feedback.direct(made, 1))
    (state,) = rule.watch(made, x, y)
    assert (state.t, state.changed, state.residual) == (0, (0, 1, 2), 0.0)
    expected = gradients(rule, made, x, y)
    torch.testing.assert_close(-state.errors[0].T @ x / 4, expected[0])
    assert state.energy == pytest.approx(rule(made, x, y).loss.item())


def test_feedback_alignment_is_watched():
    made, (x, y) = network(), batch()
    rule = FeedbackAlignment("squared_error", Feedback.random(made, 1))
    states = list(rule.watch(made, x, y))
    assert [state.changed for state in states] == [(2,), (1,), (0,)]
    torch.testing.assert_close(-states[2].errors[0].T @ x / 4, gradients(rule, made, x, y)[0])


# Many networks as one


@pytest.mark.parametrize(
    ("make", "draw"),
    [
        (lambda f: FeedbackAlignment("squared_error", f), Feedback.random),
        (lambda f: ZIL(feedback=f), lambda n, s: Feedback.random(n, s, learn=True)),
        (lambda f: DirectFeedbackAlignment("squared_error", f), Feedback.direct),
        (lambda f: InferenceLearning(feedback=f, steps=5), Feedback.random),
    ],
)
def test_networks_as_one_learn_what_each_would(make, draw):
    networks = [network(seed) for seed in range(3)]
    feedbacks = [draw(made, 10 + k) for k, made in enumerate(networks)]
    x, y = batch()
    together, matrices = stack(networks), Feedback.stack(feedbacks)
    make(matrices)(together, x, y)
    for k, (made, feedback) in enumerate(zip(networks, feedbacks, strict=True)):
        make(feedback)(made, x, y)
        for mine, whole in zip(made.parameters(), together.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, whole.grad[k], rtol=1e-12, atol=1e-13)
        for mine, whole in zip(feedback.weights, matrices.weights, strict=True):
            if mine.requires_grad:
                torch.testing.assert_close(mine.grad, whole.grad[k], rtol=1e-12, atol=1e-13)


def test_matrices_drawn_for_a_stack_have_the_spread_of_each_copy():
    small = [
        network(seed, sizes=(4, 40, 50), init_scale=scale) for seed, scale in ((0, 1), (1, 100))
    ]
    drawn = Feedback.random(stack(small), 3).weights[0]
    for k, made in enumerate(small):
        assert drawn[k].std() == pytest.approx(made.layers[1].linear.weight.std().item(), rel=0.1)


# Refusals


def test_what_does_not_fit_is_refused_in_a_sentence():
    made, (x, y) = network(), batch()
    other = network(sizes=(5, 7, 3))
    with pytest.raises(ValueError, match="feedback holds 1 matrices, but the network needs 2"):
        ZIL(feedback=Feedback.random(other))(made, x, y)
    wider = network(sizes=(5, 7, 8, 3))
    with pytest.raises(ValueError, match=r"feedback.weights\[0\] must have shape \(6, 7\), not"):
        InferenceLearning(feedback=Feedback.random(wider))(made, x, y)
    with pytest.raises(ValueError, match=r"feedback.weights\[0\] must have shape \(6, 7\), not"):
        FeedbackAlignment("squared_error", Feedback.direct(made))(made, x, y)
    with pytest.raises(ValueError, match=r"feedback.weights\[0\] must have shape \(3, 7\), not"):
        DirectFeedbackAlignment("squared_error", Feedback.random(made))(made, x, y)
    with pytest.raises((TypeError, ValueError), match=r"feedback.weights\[0\]"):
        ZIL(feedback=Feedback.random(made).float())(made, x, y)
    assert all(p.grad is None for p in made.parameters())


def test_mistakes_at_the_door():
    made = network()
    for rule in (FeedbackAlignment, DirectFeedbackAlignment):
        with pytest.raises(ValueError, match="feedback is needed: Feedback"):
            rule()
    learning = Feedback(list(Feedback.direct(made).weights), learn=True)
    with pytest.raises(ValueError, match="cannot learn"):
        DirectFeedbackAlignment("squared_error", learning)
    with pytest.raises(TypeError, match=r"weights\[1\] must be a tensor"):
        Feedback([torch.ones(2, 2), 3.0])
    with pytest.raises(TypeError, match="seed must be a whole number"):
        Feedback.random(made, "one")
    with pytest.raises(ValueError, match="std must be"):
        Feedback.random(made, std=0.0)
    with pytest.raises(ValueError, match="weights are all the same: give feedback a std"):
        Feedback.random(network(init="zeros"))
    assert Feedback.random(network(init="zeros"), std=1.0).weights[0].any()
    with pytest.raises(ValueError, match="feedbacks is empty"):
        Feedback.stack([])
    with pytest.raises(ValueError, match="same shapes"):
        Feedback.stack([Feedback.random(made), Feedback.direct(made)])


def test_networks_without_a_weight_for_each_stage_are_refused():
    chain = pcsnn.Chain([nn.Linear(5, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 3))], outputs=3)
    with pytest.raises(TypeError, match=r"feedback needs a pcsnn.Network"):
        Feedback.random(chain)
    x, y = batch(dtype=torch.float32)
    plain = Feedback([torch.ones(3, 4)])
    with pytest.raises(TypeError, match=r"feedback needs a pcsnn.Network"):
        ZIL(feedback=plain)(chain, x, y)
    normed = pcsnn.mlp(SIZES, batch_norm=True)
    with pytest.raises(ValueError, match="feedback needs stages with one weight matrix each"):
        ZIL(feedback=Feedback.random(normed))(normed, x, y)
