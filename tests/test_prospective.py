"""What prospective configuration is good for: each piece against a computation of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pcsnn import Backprop, InferenceLearning, data, mlp
from pcsnn.experiments import load_record, prospective
from pcsnn.experiments import prospective_associations as associations
from pcsnn.experiments import prospective_streams as streams
from pcsnn.experiments import prospective_updates as updates
from pcsnn.training import evaluate
from tests.toy_experiment import recorded

SMOKE = prospective.EXPERIMENT.configurations["smoke"]
LAPTOP = prospective.EXPERIMENT.configurations["laptop"]
DIGITS = data.load("digits", "train", normalise="unit")
double = torch.float64


# One update


def exact(network, x, e, settled):
    """The change of a linear network's output, by eq-il-exact, with NumPy."""
    W = [layer.linear.weight.detach().numpy() for layer in network.layers]
    P = [np.linalg.multi_dot([*W[:k:-1], np.eye(len(W[k]))]) if k < len(W) - 1
         else np.eye(len(W[-1])) for k in range(len(W))]  # fmt: skip
    M = sum(p @ p.T for p in P)
    e, h = e.numpy().ravel(), x.numpy().ravel()
    top = np.linalg.solve(M, e) if settled else e
    value, change = h, np.zeros_like(e)
    for w, p in zip(W, P, strict=True):
        change = change + (value @ h) * (p @ (p.T @ top))
        h = w @ h
        value = w @ value + p.T @ top if settled else h
    return change


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def linear(depth=4, seed=0, width=6):
    return mlp([width] * (depth + 1), "identity", bias=False, init="glorot-uniform", seed=seed,
               dtype=double)  # fmt: skip


@pytest.mark.parametrize("name", updates.RULES)
@pytest.mark.parametrize("depth", [2, 4])
def test_alignment_is_what_linear_algebra_says(name, depth):
    nets, x, y = updates.drawn([6] * (depth + 1), "identity", "glorot-uniform", 1.0, (3, 4))
    rule = updates.make_rule(name, nets, x, 5000, 1e-12)
    proposal, _ = updates.proposed(nets, rule, x, y)
    found = updates.alignment(nets, proposal, x, y)
    changes = updates.moved(nets, proposal, x)
    for k, seed in enumerate((3, 4)):
        alone, e = linear(depth, seed), (y[k] - nets(x)[k]).detach()
        change = exact(alone, x[k], e, settled=name != "backprop")
        np.testing.assert_allclose(changes[k, 0].numpy(), change, rtol=1e-8, atol=1e-10)
        assert float(found[k]) == pytest.approx(cosine(change, e.numpy().ravel()), rel=1e-9)
        assert abs(float(found[k])) < 0.9999


@pytest.mark.parametrize("activation", ["identity", "tanh", "sigmoid"])
def test_what_moves_is_the_difference_quotient(activation):
    network = mlp([4, 7, 6, 3], activation, bias=False, seed=2, dtype=double)
    generator = torch.Generator().manual_seed(1)
    x, y, other = (torch.randn(1, n, dtype=double, generator=generator) for n in (4, 3, 4))
    proposal, _ = updates.proposed(network, Backprop(), x, y)
    assert all(p.grad is None for p in network.parameters())
    expected = {}
    for name, at in (("x", x), ("other", other)):
        expected[name] = updates.moved(network, proposal, at)

    def shifted(size):
        with torch.no_grad():
            for layer, update in zip(network.layers, proposal, strict=True):
                layer.linear.weight.add_(size * update)
            return network(x), network(other)

    up, down = shifted(1e-5), shifted(-2e-5)
    for (name, change), a, b in zip(expected.items(), up, down, strict=True):
        torch.testing.assert_close(change, (a - b) / 2e-5, rtol=1e-6, atol=1e-8, msg=name)
    assert float((expected["x"] * (y - network(x).detach())).sum()) > 0  # downhill


def test_a_small_error_and_activities_of_one_length_are_moved_straight():
    nets, x, y = updates.drawn([6] * 6, "identity", "glorot-uniform", 1.0, range(4))
    updates.equalised(nets, x)
    lengths = torch.stack([a.norm(dim=-1) for a in updates.forward(nets, x)[0]])
    torch.testing.assert_close(lengths, x.norm(dim=-1).expand_as(lengths))
    before = nets(x).detach()
    y = before + 1e-6 * (y - before)
    found = {}
    for name in updates.RULES:
        rule = updates.make_rule(name, nets, x, 20_000, 1e-15)
        proposal, _ = updates.proposed(nets, rule, x, y)
        found[name] = updates.alignment(nets, proposal, x, y)
    for name in ("il-values", "il-errors"):
        assert float(found[name].min()) > 1 - 1e-8
    assert float(found["backprop"].max()) < 0.99


def test_the_smell_of_the_bear():
    """1-1-2, all weights 1, from (1, 1) to (0, 1): half of the way goes wrong, or a seventh."""
    bear = mlp([1, 1, 2], "identity", bias=False, dtype=double)
    for p in bear.parameters():
        p.data.fill_(1.0)
    x, y = torch.ones(1, 1, dtype=double), torch.tensor([[0.0, 1.0]], dtype=double)
    for rule, expected in (
        (Backprop(), 1 / 2),
        (InferenceLearning(steps=400, step_size=0.3), 1 / 7),
    ):
        change = updates.moved(bear, updates.proposed(bear, rule, x, y)[0], x)
        assert float(updates.beside(change, y - bear(x).detach())) == pytest.approx(expected)


def test_what_moves_beside_is_across_over_along():
    wanted = torch.tensor([[0.0, 2.0, 0.0]])
    change = torch.tensor([[3.0, 10.0, -4.0]])
    assert float(updates.beside(change, wanted)) == pytest.approx(0.5)
    assert float(updates.beside(-change, wanted)) == pytest.approx(-0.5)  # the wrong way


def test_curvature_is_that_of_m():
    nets, x, _ = updates.drawn([5, 7, 6, 4], "tanh", "glorot-uniform", 5 / 3, (0, 1))
    found = updates.curvature(nets, x)
    for k in (0, 1):
        alone = mlp([5, 7, 6, 4], "tanh", bias=False, init="glorot-uniform", init_scale=5 / 3,
                    seed=k, dtype=double)  # fmt: skip
        layers = alone.layers

        def above(start, u, layers=layers):
            for before, layer in zip(layers[start - 1 :], layers[start:], strict=False):
                u = layer.linear(before.activation(u))
            return u

        first = layers[0].linear(x[k])
        second = layers[1].linear(torch.tanh(first))
        Ps = [torch.autograd.functional.jacobian(lambda u, s=s: above(s, u), u)[0, :, 0]
              for s, u in ((1, first), (2, second))]  # fmt: skip
        M = torch.eye(4, dtype=double) + sum(P @ P.T for P in Ps)
        torch.testing.assert_close(found[k], torch.linalg.eigvalsh(M)[-1])


def test_a_network_a_target_and_an_input_for_each_seed():
    nets, x, y = updates.drawn([5, 6, 5], "tanh", "orthogonal", 1.0, (3, 8))
    alone, x_8, y_8 = updates.drawn([5, 6, 5], "tanh", "orthogonal", 1.0, (8,))
    assert torch.equal(nets.layers[0].linear.weight[1], alone.layers[0].linear.weight[0])
    assert torch.equal(x[1], x_8[0])
    assert torch.equal(y[1], y_8[0])
    assert not torch.equal(x[0], x[1])
    assert not torch.equal(y[0], y[1])
    assert not torch.equal(x, y)


# One association after another


@pytest.mark.parametrize("name", ["backprop", "il-errors"])
def test_a_second_association_in_much_smaller_steps_does_the_same(name):
    """An explicit loop for one seed: the share that moves on nine tenths of the way."""
    found = associations.interference("output", name, (3, 6, 4), "tanh", (5,), most=4000,
                                      steps=500, tolerance=1e-9)  # fmt: skip
    nets, x, y = updates.drawn((3, 6, 4), "tanh", "glorot-uniform", 1.0, (5,))

    def descend(target, rate, until):
        for _ in range(200_000):
            if until():
                return
            rule = updates.make_rule(name, nets, x, 500, 1e-9)
            nets.zero_grad(set_to_none=True)
            rule(nets, x, target)
            with torch.no_grad():
                for p in nets.parameters():
                    p -= rate * p.grad

    descend(y, 0.02, lambda: float((y - nets(x)).detach().norm()) < 1e-4)
    start = nets(x).detach().clone()
    target = start.clone()
    target[..., 0] += 1
    most = 0.0

    def gone():
        nonlocal most
        change = (nets(x) - start).detach()[0, 0]
        most = max(most, float(change[1:].norm()))
        return float(change[0]) >= 0.9

    descend(target, 0.002, gone)
    assert found["known"][0] < 2e-3
    assert found["whole"][0] == pytest.approx(most, rel=0.1)


def test_what_is_learnt_second():
    nets, x, _ = updates.drawn((3, 6, 4), "tanh", "glorot-uniform", 1.0, (0, 1))
    same, y = associations.second("output", nets, x, (3, 6, 4), (0, 1))
    assert torch.equal(same, x)
    expected = torch.tensor([1.0, 0, 0, 0], dtype=double).expand(2, 1, 4)
    torch.testing.assert_close(y - nets(x).detach(), expected)
    other, y = associations.second("input", nets, x, (3, 6, 4), (0, 1))
    assert (other.shape, y.shape) == ((2, 1, 3), (2, 1, 4))
    assert not bool((other == x).any())


def test_what_it_does_to_the_first():
    at_b, at_a = torch.tensor([[2.0, 5.0]]), torch.tensor([[3.0, 4.0]])
    wanted = torch.tensor([[0.5, 0.0]])
    assert float(associations.aside("output", at_b, at_a, wanted)) == pytest.approx(2.5)
    assert float(associations.aside("input", at_b, at_a, wanted)) == pytest.approx(2.5)
    assert float(associations.aside("input", at_b, 2 * at_a, wanted)) == pytest.approx(5.0)


# Streams


def test_half_of_the_names_change_hands():
    labels = torch.randint(10, (400,), generator=torch.Generator().manual_seed(7))
    found = streams.drifted(labels, 100, 10, seed=0)
    assert torch.equal(found[:100], labels[:100])
    deals = []
    for block in range(4):
        part = slice(100 * block, 100 * (block + 1))
        names = [found[part][labels[part] == k].unique() for k in range(10)]
        assert all(len(own) == 1 for own in names)
        deals.append([int(own) for own in names])
        assert deals[-1][:5] == [0, 1, 2, 3, 4]
        assert sorted(deals[-1][5:]) == [5, 6, 7, 8, 9]
    assert len({tuple(deal) for deal in deals}) == 4  # of this seed
    assert torch.equal(found, streams.drifted(labels, 100, 10, seed=0))
    assert not torch.equal(found, streams.drifted(labels, 100, 10, seed=1))


def test_a_stream_is_of_the_pool_and_shows_nothing_twice():
    pool = streams.parts(DIGITS)[0]
    marked = data.Dataset(**{**vars(pool), "inputs": torch.arange(len(pool)).float()[:, None]})
    stream = streams.draw(marked, (4, 7), 50)
    seen = stream.inputs[..., 0].long()
    assert all(len(row.unique()) == 50 for row in seen)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(stream.labels, pool.labels[seen])
    drifting = streams.draw(marked, (4, 7), 50, every=20)
    assert torch.equal(drifting.inputs, stream.inputs)
    assert torch.equal(drifting.labels[:, :20], stream.labels[:, :20])
    assert not torch.equal(drifting.labels, stream.labels)
    hot = drifting.targets(30)
    assert torch.equal(hot.argmax(1), drifting.labels[:, 30])
    assert torch.equal(hot.sum(1), torch.ones(2))
    with pytest.raises(ValueError, match="at most"):
        streams.draw(pool, (0,), len(pool) + 1)


def test_no_image_is_in_two_parts():
    marked = data.Dataset(**{**vars(DIGITS), "inputs": torch.arange(len(DIGITS)).float()[:, None]})
    learn, choose, held_out = (set(p.inputs[:, 0].tolist()) for p in streams.parts(marked))
    assert not (learn & choose)
    assert not (learn & held_out)
    assert not (choose & held_out)
    assert len(learn) == len(choose) == 2 * len(held_out)


def test_a_pixel_is_the_mean_of_four():
    found = streams.pooled(DIGITS, 2).inputs[3].view(4, 4)
    image = DIGITS.inputs[3].view(8, 8)
    torch.testing.assert_close(found[1, 2], image[2:4, 4:6].mean())
    assert streams.pooled(DIGITS, 1) is DIGITS
    with pytest.raises(ValueError, match="divide the side"):
        streams.pooled(DIGITS, 3)


@pytest.mark.parametrize(
    "rule", [Backprop(), InferenceLearning(steps=6, step_size=0.2, variables="errors")]
)
def test_a_crowd_learns_what_each_would_learn_alone(rule):
    rates, seeds = (0.05, 0.4), (2, 3, 5)
    stream = streams.draw(DIGITS, seeds, 25, every=10)
    crowd = streams.crowd([64, 8, 10], "sigmoid", seeds, 2)
    right = streams.follow(crowd, rule, torch.tensor(rates), stream)
    scores = streams.accuracies(crowd, DIGITS, 2)
    for r, rate in enumerate(rates):
        for s, seed in enumerate(seeds):
            alone = mlp([64, 8, 10], "sigmoid", bias=False, init="glorot-uniform", seed=seed)
            optimiser = torch.optim.SGD(alone.parameters(), lr=rate)
            for t in range(25):
                x, label = stream.inputs[s, t : t + 1], stream.labels[s, t]
                assert bool(right[t, r, s]) == bool(alone(x).argmax() == label)
                optimiser.zero_grad()
                rule(alone, x, torch.eye(10)[label][None])
                optimiser.step()
            weights = crowd.layers[0].linear.weight[r * len(seeds) + s]
            torch.testing.assert_close(weights, alone.layers[0].linear.weight)
            own = evaluate(alone, DIGITS, loss=None)["accuracy"]
            assert float(scores[r, s]) == pytest.approx(own, abs=2e-3)


def test_what_has_diverged_recognises_nothing():
    crowd = streams.crowd([64, 8, 10], "tanh", (0,), 2)
    stream = streams.draw(DIGITS, (0,), 60)
    rule = Backprop(on_divergence="allow")
    right = streams.follow(crowd, rule, torch.tensor([0.01, 1e6]), stream)
    assert float(streams.accuracies(crowd, DIGITS, 2)[1]) == 0
    assert not bool(right[-20:, 1].any())
    assert float(streams.accuracies(crowd, DIGITS, 2)[0]) > 0


def test_how_far_from_rest():
    crowd = streams.crowd([64, 8, 8, 10], "sigmoid", (0, 1), 1)
    stream = streams.draw(DIGITS, (0, 1), 5)
    (near,) = prospective.from_rest(InferenceLearning(steps=300, step_size=0.2), crowd, stream, 1)
    (away,) = prospective.from_rest(InferenceLearning(steps=3, step_size=0.1), crowd, stream, 1)
    assert near < 1e-4 < 0.1 < away < 1
    assert prospective.from_rest(Backprop(), crowd, stream, 1) is None


# The record


def test_a_smoke_run_is_recorded(tmp_path):
    recorded(tmp_path, prospective.EXPERIMENT)
    record = load_record("prospective", "smoke", tmp_path)
    assert [run.setting for run in record.runs] == prospective.settings(SMOKE)
    for run in record.runs:
        part, values = run.setting.values["part"], run.values
        if part == "alignment":
            depths = {str(d) for d in SMOKE.depths[str(run.setting.values["network"])]}
            assert set(values["alignment"]) == depths
            assert all(len(row) == 2 for row in values["alignment"].values())
        elif part == "interference":
            assert {len(values[key]) for key in ("first", "whole", "known")} == {2}
        else:
            keys = {"choosing_held_out", "test"} if part == "online" else {"blocks"}
            assert set(values) == {"rates", "choosing_seen", "seen", "from_rest"} | keys
            assert np.shape(values["seen"]) == np.shape(values["choosing_seen"]) == (3, 2)
    (drift,) = record.select(part="drift", network="tanh", rule="backprop")
    blocks = np.array(drift.values["blocks"], dtype=float)
    np.testing.assert_allclose(blocks.mean(0), drift.values["seen"], rtol=1e-4)


def doctored(record, **values):
    """The record, with other tables in one of its runs."""
    runs = []
    for run in record.runs:
        v = run.setting.values
        mine = (v["part"], v["network"], v["rule"]) in (
            ("online", "tanh", "backprop"), ("drift", "tanh", "backprop"),
        )  # fmt: skip
        runs.append(run.model_copy(update={"values": run.values | values}) if mine else run)
    return record.model_copy(update={"runs": runs})


def test_a_rate_is_chosen_by_what_was_held_out_from_the_seeds_that_choose(tmp_path):
    recorded(tmp_path, prospective.EXPERIMENT)
    record = load_record("prospective", "smoke", tmp_path)
    tables = {
        "choosing_held_out": [[0.1, 0.5], [0.4, 0.3], [0.2, 0.1]],
        "choosing_seen": [[0.0, 0.0], [0.0, 0.0], [0.9, 0.9]],
        "seen": [[0.9, 0.9], [0.0, 0.0], [0.0, 0.0]],
        "test": [[0.8, 0.9], [0.3, 0.2], [0.1, 0.1]],
    }
    own = doctored(record, **tables)
    assert prospective.chosen(own, "online", "tanh", "backprop") == 1
    assert prospective.judged(own, "online", "tanh", "backprop").tolist() == [0.3, 0.2]
    assert prospective.chosen(own, "drift", "tanh", "backprop") == 2
    assert prospective.judged(own, "drift", "tanh", "backprop").tolist() == [0.0, 0.0]
    equal = doctored(record, **tables | {"choosing_held_out": [[0.2, 0.2]] * 3})
    assert prospective.chosen(equal, "online", "tanh", "backprop") == 0


def test_seeds_that_choose_are_not_judged_and_all_rules_have_as_many_rates():
    for c in prospective.EXPERIMENT.configurations.values():
        assert not set(c.judged) & set(c.choosing)
        assert len({len(r) for own in c.rates.values() for r in own.values()}) == 1
    assert len(LAPTOP.judged) >= 5
    assert len(LAPTOP.seeds) >= 5


def choices_are_interior(record):
    for part in ("online", "drift"):
        for network in LAPTOP.rates:
            for rule in updates.RULES:
                (run,) = record.select(part=part, network=network, rule=rule)
                index = prospective.chosen(record, part, network, rule)
                assert 0 < index < len(run.values["rates"]) - 1, (part, network, rule)


#: Learning rates that the book's record chose.
CHOSEN: dict[tuple[str, str], dict[str, float]] = {
    ("online", "sigmoid"): {"backprop": 0.2, "il-values": 0.4, "il-errors": 0.4},
    ("online", "tanh"): {"backprop": 0.02, "il-values": 0.02, "il-errors": 0.02},
    ("drift", "sigmoid"): {"backprop": 0.2, "il-values": 0.2, "il-errors": 0.2},
    ("drift", "tanh"): {"backprop": 0.04, "il-values": 0.16, "il-errors": 0.16},
}


def test_the_book_has_a_record_and_every_choice_in_it_is_interior():
    record = load_record("prospective")
    choices_are_interior(record)
    for (part, network), rates in CHOSEN.items():
        for rule, rate in rates.items():
            (run,) = record.select(part=part, network=network, rule=rule)
            by = run.values["choosing_held_out" if part == "online" else "choosing_seen"]
            means = [sum(row) / len(row) for row in by]
            assert [len(row) for row in by] == [len(LAPTOP.choosing)] * len(rates_of(rule, network))
            best = rates_of(rule, network)[means.index(max(means))]
            index = prospective.chosen(record, part, network, rule)
            assert rate == best == pytest.approx(run.values["rates"][index])
            table = run.values["test" if part == "online" else "seen"]
            assert prospective.judged(record, part, network, rule).tolist() == table[index]
            assert len(table[index]) == len(LAPTOP.judged)
    assert len(CHOSEN) == 4


def rates_of(rule, network):
    return LAPTOP.rates[network]["backprop" if rule == "backprop" else "il"]


def test_what_the_book_says_of_alignment_is_in_its_record():
    record = load_record("prospective")

    def mean(network, rule, error="whole", lengths="drawn"):
        (run,) = record.select(
            part="alignment", network=network, rule=rule, error=error, lengths=lengths
        )
        return {int(d): float(np.mean(row)) for d, row in run.values["alignment"].items()}

    whole, brief, small = (
        mean("linear", "il-errors"),
        mean("linear", "il-brief"),
        mean("linear", "il-errors", "small"),
    )
    assert all(whole[d] > value for d, value in mean("linear", "backprop").items())
    assert min(small.values()) > 0.97 > 0.8 > whole[15]
    assert brief[15] > whole[15]
    assert min(mean("linear", "il-errors", "small", "equal").values()) > 1 - 1e-5
    assert mean("linear", "il-errors", "whole", "equal")[15] < 0.9
    assert min(mean("tanh", "il-errors", "small").values()) > 0.97
    deep = mean("tanh", "il-errors")
    assert deep[10] < mean("tanh", "backprop")[10] < mean("tanh", "il-brief")[10]
