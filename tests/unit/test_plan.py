"""A plan is data: complete, the same for the same seed, and different where it should be."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldstart.errors import UsageError
from coldstart.model import Load, Node, Playbook, Ready, Target
from coldstart.plan import allowed_runtimes, estimate_ns, expand, remaining


def playbook(targets=2, starts=("warm", "page-cold"), boots=4, order="interleaved", **load):
    made = tuple(Target(f"t{n}", f"r{n}", {"": "hello"}, Ready()) for n in range(targets))
    return Playbook("p", made, starts, Load(boots=boots, **load), order)


def nodes(*names, **variables):
    return tuple(Node(name, vars=variables) for name in names)


plans = st.builds(
    lambda count, targets, starts, boots, order, seed: expand(
        nodes(*(f"n{n}" for n in range(count))), playbook(targets, starts, boots, order), seed
    ),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([("warm",), ("warm", "page-cold")]),
    st.integers(1, 6),
    st.sampled_from(["interleaved", "blocked"]),
    st.integers(),
)


@given(plans)
@settings(max_examples=40)
def test_every_boot_is_ordered_once(plan):
    expected = {(trial.id, index) for trial in plan.trials for index in range(trial.load.boots)}
    ordered = [(order.trial, order.index) for orders in plan.orders.values() for order in orders]
    assert Counter(ordered) == Counter(expected)


@given(plans)
@settings(max_examples=40)
def test_a_boot_is_ordered_on_its_trials_node(plan):
    for node, orders in plan.orders.items():
        for order in orders:
            trial = plan.trials[order.trial]
            assert (trial.id, trial.node, trial.target, trial.start) == (order.trial, node, order.target, order.start)


@given(st.integers(), st.integers(1, 4), st.integers(1, 6))
@settings(max_examples=40)
def test_blocks_are_complete(seed, targets, boots):
    """Each block holds one boot of every trial, so that drift hits all alike."""
    orders = expand(nodes("n"), playbook(targets, boots=boots), seed).orders["n"]
    size = targets * 2
    for index in range(boots):
        block = orders[index * size : (index + 1) * size]
        assert {order.index for order in block} == {index}
        assert {order.trial for order in block} == set(range(size))


def test_trials_are_node_by_target_by_start():
    plan = expand(nodes("b", "a"), playbook(), 0)
    assert [(trial.id, trial.node, trial.target, trial.start) for trial in plan.trials] == [
        (number, node, target, start)
        for number, (node, target, start) in enumerate(
            (node, target, start) for node in "ba" for target in ("t0", "t1") for start in ("warm", "page-cold")
        )
    ]


def test_a_seed_makes_the_same_plan_in_every_version():
    """Written down: a change of these numbers breaks `--resume` and `--seed` of every earlier run."""
    order = [order.trial for order in expand(nodes("n"), playbook(boots=3), 42).orders["n"]]
    assert order == GOLDEN


GOLDEN = [3, 2, 0, 1, 2, 3, 1, 0, 1, 2, 0, 3]


def test_seeds_and_nodes_differ():
    many = playbook(boots=10)
    one, two = (expand(nodes("a", "b"), many, seed).orders for seed in (1, 2))
    assert one == expand(nodes("a", "b"), many, 1).orders
    assert one["a"] != two["a"]
    assert [order.trial for order in one["a"]] != [order.trial - 4 for order in one["b"]]


def test_a_nodes_order_does_not_depend_on_other_nodes():
    alone, both = expand(nodes("a"), playbook(), 7), expand(nodes("a", "b"), playbook(), 7)
    assert alone.orders["a"] == both.orders["a"]


def test_blocked_goes_trial_by_trial():
    orders = expand(nodes("n"), playbook(boots=2, order="blocked"), 1).orders["n"]
    assert [(order.trial, order.index) for order in orders] == [(t, i) for t in range(4) for i in range(2)]


@pytest.mark.parametrize(
    ("given", "targets"),
    [({}, ["t0", "t1"]), ({"coldstart_runtimes": ("r1",)}, ["t1"]), ({"coldstart_runtimes": "r1, r9"}, ["t1"])],
)
def test_a_node_may_restrict_its_runtimes(given, targets):
    plan = expand(nodes("n", **given), playbook(starts=("warm",)), 0)
    assert [trial.target for trial in plan.trials] == targets


def test_a_node_without_targets_is_left_out():
    both = (*nodes("out", coldstart_runtimes="r9"), *nodes("in"))
    plan = expand(both, playbook(), 0)
    assert list(plan.orders) == ["in"]
    assert plan.trials[0].id == 0


@pytest.mark.parametrize("there", [(), nodes("n", coldstart_runtimes=("r9",))])
def test_a_plan_without_trials_is_an_error(there):
    with pytest.raises(UsageError) as error:
        expand(there, playbook(), 0, allowed_runtimes)
    assert str(error.value).startswith("nothing to measure: no node may run any target")


def test_estimates_each_node():
    wanted = playbook(starts=("warm",), boots=2, gap_ns=10, hold_ns=5)
    plan = expand(nodes("a", "b"), wanted, 0)
    assert estimate_ns(plan, wanted, {"t0": 100, "t1": 1000}) == dict.fromkeys("ab", 2 * (115 + 1015))


def test_a_target_may_have_fewer_boots():
    """Of its own; or only where its processor is emulated, which the estimate takes for granted."""
    wanted = playbook(starts=("warm",), boots=5, gap_ns=0, hold_ns=0)
    few, slow = replace(wanted.targets[0], boots=2), replace(wanted.targets[1], boots_emulated=1)
    wanted = replace(wanted, targets=(few, slow))
    plan = expand(nodes("a"), wanted, 0)
    assert Counter(order.target for order in plan.orders["a"]) == {"t0": 2, "t1": 5}
    assert [trial.load.boots for trial in plan.trials] == [2, 5]
    assert estimate_ns(plan, wanted, {"t0": 10, "t1": 1000}) == {"a": 2 * 10 + 1 * 1000}


@given(plans, st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_what_is_done_is_not_done_again(plan, chance):
    """The rest keeps its order and its trials' numbers; a node with nothing left is not visited."""
    every = [(order.trial, order.index) for orders in plan.orders.values() for order in orders]
    done = {key for key in every if chance.random() < 0.7}
    rest = remaining(plan, done)
    assert rest.trials == plan.trials
    assert all(rest.orders.values())
    left = [(order.trial, order.index) for orders in rest.orders.values() for order in orders]
    assert left == [key for key in every if key not in done]
