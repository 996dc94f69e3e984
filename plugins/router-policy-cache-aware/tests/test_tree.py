import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_policy_cache_aware.tree import PrefixTree, common_prefix


def learn(tree, text, key, namespace=None):
    return tree.learn(tree.match(namespace, text), tree.holder(key))


def known(tree, text, among=("a", "b", "c"), namespace=None):
    """How many characters the best of `among` hold, and who they are."""
    chars, holders = tree.deepest(tree.match(namespace, text), {tree.holder(key) for key in among})
    return chars, sorted(holder.key for holder in holders)


def chars_of(tree):
    return {key: holder.chars for key, holder in tree.holders.items() if holder.chars}


def nodes_of(tree):
    """Every node with its namespace and whole text; roots left out."""
    found = []
    for namespace, root in tree._roots.items():
        stack = [("", root)]
        while stack:
            above, node = stack.pop()
            for first, child in (node.children or {}).items():
                assert child.parent is node
                assert child.label[0] == first
                found.append((namespace, above + child.label, child))
                stack.append((above + child.label, child))
    return found


def check_invariants(tree):
    by_holder, ends = {}, set()
    assert all(root.children for root in tree._roots.values())
    for _, _, node in nodes_of(tree):
        assert node.holdings(), "a node nobody holds is gone"
        for holding in node.holdings():
            assert holding.node is node
            holder = holding.holder
            by_holder[holder] = by_holder.get(holder, 0) + len(node.label)
            assert node.parent.parent is None or node.parent.held_by(holder), "who holds a node holds its parent"
            children = (node.children or {}).values()
            assert holding.branches == sum(child.held_by(holder) is not None for child in children)
            if not holding.branches:
                ends.add(holding)
                assert holding in tree._recency
    for holder in {*by_holder, *tree.holders.values(), *tree._removed}:
        assert holder.chars == by_holder.get(holder, 0)
        assert holder.ends == {end for end in ends if end.holder is holder}
    assert tree.chars == sum(by_holder.values())
    assert all(holding.node is not None for holding in tree._recency)


# --- examples ---


def test_unknown_text_matches_nothing():
    tree = PrefixTree()
    assert known(tree, "hello") == (0, [])
    learn(tree, "hello", "a")
    assert known(tree, "yellow") == (0, [])
    assert known(tree, "hello", namespace="other") == (0, [])


def test_match_may_end_inside_a_node():
    tree = PrefixTree()
    learn(tree, "hello world", "a")
    assert known(tree, "hello there") == (6, ["a"])
    assert known(tree, "hell") == (4, ["a"])


def test_splitting_conserves_characters():
    tree = PrefixTree()
    learn(tree, "hello world", "a")
    learn(tree, "hello there", "b")
    assert chars_of(tree) == {"a": 11, "b": 11}
    assert known(tree, "hello world") == (11, ["a"])
    assert known(tree, "hello") == (5, ["a", "b"])
    check_invariants(tree)


def test_repeating_a_start_of_a_known_text_splits_nothing():
    tree = PrefixTree()
    learn(tree, "hello world", "a")
    learn(tree, "hello", "a")
    assert len(nodes_of(tree)) == 1


def test_deepest_counts_only_who_is_asked_for():
    tree = PrefixTree()
    learn(tree, "abcdef", "a")
    learn(tree, "abc", "b")
    assert known(tree, "abcdefg") == (6, ["a"])
    assert known(tree, "abcdefg", among=("b", "c")) == (3, ["b"])
    assert known(tree, "abcdefg", among=("c",)) == (0, [])


def test_characters_are_counted_not_bytes():
    tree = PrefixTree()
    learn(tree, "深圳市", "a")
    learn(tree, "深圪", "b")  # these fork inside a UTF-8 sequence
    assert chars_of(tree) == {"a": 3, "b": 2}
    assert known(tree, "深圳") == (2, ["a"])
    assert known(tree, "深x") == (1, ["a", "b"])


def test_empty_text_leaves_no_trace():
    tree = PrefixTree()
    assert learn(tree, "", "a") is None
    assert tree.chars == 0
    assert not tree._roots


def test_least_recently_used_text_goes_first():
    tree = PrefixTree(10)
    learn(tree, "aaaa", "a")
    learn(tree, "bbbb", "b")
    learn(tree, "aaaa", "a")
    learn(tree, "cccc", "c")
    assert known(tree, "bbbb") == (0, [])
    assert known(tree, "aaaa") == (4, ["a"])
    assert tree.chars == 8


def test_text_used_by_itself_outlives_its_older_continuation():
    tree = PrefixTree(12)
    learn(tree, "abcd", "a")
    learn(tree, "abcdefgh", "a")
    learn(tree, "abcd", "a")
    learn(tree, "xyzw", "a")
    learn(tree, "uvts", "a")
    assert known(tree, "abcdefgh") == (4, ["a"])
    assert known(tree, "xyzw") == (4, ["a"])
    check_invariants(tree)


def test_text_larger_than_the_budget_is_not_learned():
    tree = PrefixTree(10)
    learn(tree, "abc", "a")
    assert learn(tree, "x" * 11, "a") is None
    assert known(tree, "abc") == (3, ["a"])


def test_removed_holder_is_gone_at_once_and_its_texts_little_by_little():
    tree = PrefixTree()
    for index in range(100):
        learn(tree, f"text {index}", "a")
    learn(tree, "text 7 and more", "b")
    tree.remove_holder("a")
    assert known(tree, "text 55") == (5, ["b"])
    held = tree.chars
    tree.sweep(10)
    assert 0 < tree.chars < held
    check_invariants(tree)
    for _ in range(60):
        tree.sweep(10)
    assert tree.chars == chars_of(tree)["b"] == 15
    check_invariants(tree)


def test_holder_that_comes_back_starts_with_nothing():
    tree = PrefixTree()
    learn(tree, "hello", "a")
    tree.remove_holder("a")
    learn(tree, "yes", "a")
    assert known(tree, "hello") == (0, [])
    assert chars_of(tree) == {"a": 3}


def test_removed_holders_texts_are_evicted_before_others():
    tree = PrefixTree(12)
    learn(tree, "aaaa", "a")
    learn(tree, "bbbb", "b")
    tree.remove_holder("b")
    learn(tree, "cccccccc", "c")
    assert known(tree, "aaaa") == (4, ["a"])


def test_retracting_takes_back_only_what_the_lesson_added():
    tree = PrefixTree()
    tree.confirm(learn(tree, "first turn", "a"))
    tree.retract(learn(tree, "first turn, second turn", "a"))
    assert known(tree, "first turn, second turn") == (10, ["a"])
    check_invariants(tree)


def test_retracting_spares_what_another_lesson_confirmed():
    tree = PrefixTree()
    lesson, same = learn(tree, "hello", "a"), learn(tree, "hello", "a")
    tree.confirm(same)
    tree.retract(lesson)
    assert known(tree, "hello") == (5, ["a"])


def test_retracting_twice_or_after_eviction_does_nothing():
    tree = PrefixTree()
    lesson = learn(tree, "hello", "a")
    tree.retract(lesson)
    tree.retract(lesson)
    tree.confirm(lesson)
    assert tree.chars == 0
    assert not tree._roots


def test_eviction_is_bounded_work():
    tree = PrefixTree()
    for index in range(100):
        learn(tree, f"{index:03}", "a")
    assert not tree.evict(0, limit=5)
    assert len(tree.holder("a").ends) >= 95
    assert tree.evict(0)
    assert tree.chars == 0


def test_namespaces_that_hold_nothing_leave_nothing():
    tree = PrefixTree(100)
    for index in range(1000):
        learn(tree, "ten chars!", "a", namespace=index)
    assert len(tree._roots) == 10


@pytest.mark.parametrize("size", [1, 2, 3, 64, 1000, 65_536])
def test_common_prefix_finds_every_difference(size):
    rng = random.Random(size)
    label = "".join(rng.choices("ab", k=size))
    for place in {1, size // 2, size - 1, size} - {0}:
        other = "  " + label[:place] + ("" if place == size else "#" + label[place + 1 :])
        assert common_prefix(label, other, 2) == place


# --- against a plain dictionary ---

TEXTS = st.text(alphabet="ab深", max_size=7)
KEYS = st.sampled_from(("a", "b", "c"))
SPACES = st.sampled_from((None, "other"))


def shared(one, two):
    return next((i for i, (x, y) in enumerate(zip(one, two, strict=False)) if x != y), min(len(one), len(two)))


class Oracle:
    """The prefixes each holder holds, one by one."""

    def __init__(self):
        self.held = {}

    def learn(self, space, text, key):
        self.held.setdefault(key, set()).update((space, text[: n + 1]) for n in range(len(text)))

    def known(self, space, text, among):
        best = {
            key: max((n for n in range(1, len(text) + 1) if (space, text[:n]) in self.held.get(key, ())), default=0)
            for key in among
        }
        most = max(best.values(), default=0)
        return most, sorted(key for key in best if most and best[key] == most)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(SPACES, TEXTS, KEYS), max_size=25), st.lists(st.tuples(SPACES, TEXTS), max_size=6))
def test_tree_agrees_with_a_dictionary_of_prefixes(lessons, questions):
    tree, oracle = PrefixTree(), Oracle()
    for space, text, key in lessons:
        before = tree.match(space, text).chars
        assert before == oracle.known(space, text, "abc")[0]
        learn(tree, text, key, space)
        oracle.learn(space, text, key)
        check_invariants(tree)
    assert chars_of(tree) == {key: len(held) for key, held in oracle.held.items() if held}
    for space, text in questions:
        for among in ("abc", "ab", "c"):
            assert known(tree, text, among, space) == oracle.known(space, text, among)


STEPS = st.one_of(
    st.tuples(st.just("learn"), SPACES, TEXTS, KEYS),
    st.tuples(st.just("remove"), KEYS),
    st.tuples(st.just("sweep"), st.integers(1, 3)),
    st.tuples(st.just("evict"), st.integers(0, 20), st.integers(1, 4)),
    st.tuples(st.just("confirm"), st.integers(0, 30)),
    st.tuples(st.just("retract"), st.integers(0, 30)),
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.integers(5, 30), st.lists(STEPS, max_size=40))
def test_nothing_breaks_the_invariants_or_the_budget(budget, steps):
    tree, oracle, lessons = PrefixTree(budget), Oracle(), []
    for step in steps:
        match step:
            case "learn", space, text, key:
                lesson = learn(tree, text, key, space)
                oracle.learn(space, text, key)
                if lesson is not None:
                    lessons.append(lesson)
                    assert key in known(tree, text, "abc", space)[1], "what was just learned is never evicted for it"
                    assert known(tree, text, key, space)[0] == len(text)
            case "remove", key:
                tree.remove_holder(key)
                oracle.held.pop(key, None)
            case "sweep", limit:
                tree.sweep(limit)
            case "evict", target, limit:
                tree.evict(target, limit=limit)
            case "confirm", index if lessons:
                tree.confirm(lessons[index % len(lessons)])
            case "retract", index if lessons:
                tree.retract(lessons[index % len(lessons)])
        check_invariants(tree)
        assert tree.chars <= budget
    for _, text, node in nodes_of(tree):  # it may have forgotten, but it made nothing up
        for holding in node.holdings():
            if tree.holders.get(holding.holder.key) is holding.holder:
                assert any((space, text) in oracle.held[holding.holder.key] for space in (None, "other"))
    tree.evict(0)
    assert tree.chars == 0
    assert not tree._roots
    assert not tree._recency
