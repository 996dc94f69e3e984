"""The proof that a policy keeps its side of the contract. In a policy's tests:

    from router_core.testing.conformance import PolicyConformance

    class TestConformance(PolicyConformance):
        policy_class = MyPolicy

Each check is a plain function too: `check_survives_churn(Subject(MyPolicy))`.
"""

# ruff: noqa: D102  what a test asks is said at its check

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import ClassVar

from router_core.contract.worker import WorkerRole
from router_core.testing.builders import ALL_NEEDS, FakePool, make_request, make_worker, make_workers
from router_core.testing.checks import (
    check_copes_with_anonymous_requests,
    check_copes_with_odd_prompts,
    check_copes_without_telemetry,
    check_has_no_contract_slips,
    check_instances_share_nothing,
    check_legs_share_no_state,
    check_load_returns_to_zero,
    check_memory_stays_bounded,
    check_never_picks_a_departed_worker,
    check_options_are_documented,
    check_picks_only_candidates,
    check_reads_only_declared_needs,
    check_recovered_worker_serves_again,
    check_repeats_under_equal_seed,
    check_stops_cleanly,
    check_survives_a_thousand_workers,
    check_survives_churn,
    check_takes_the_only_candidate,
)
from router_core.testing.harness import Attempt, PolicyFaultError, PolicyHarness
from router_core.testing.regressions import (
    check_affinity_holds_while_idle,
    check_affinity_survives_a_blip,
    check_affinity_survives_a_hot_worker,
    check_blip_does_not_make_idle,
    check_fresh_worker_is_not_flooded,
    check_orphans_are_spread,
    check_spreads_a_burst,
    check_spreads_when_idle,
    check_unknown_load_is_not_idle,
)
from router_core.testing.subject import PAIR_POOL, REGULAR_POOL, RequestMaker, Subject, traffic

__all__ = [
    "ALL_NEEDS",
    "Attempt",
    "FakePool",
    "PAIR_POOL",
    "PolicyConformance",
    "PolicyFaultError",
    "PolicyHarness",
    "REGULAR_POOL",
    "RequestMaker",
    "Subject",
    "check_affinity_holds_while_idle",
    "check_affinity_survives_a_blip",
    "check_affinity_survives_a_hot_worker",
    "check_blip_does_not_make_idle",
    "check_copes_with_anonymous_requests",
    "check_copes_with_odd_prompts",
    "check_copes_without_telemetry",
    "check_fresh_worker_is_not_flooded",
    "check_has_no_contract_slips",
    "check_instances_share_nothing",
    "check_legs_share_no_state",
    "check_load_returns_to_zero",
    "check_memory_stays_bounded",
    "check_never_picks_a_departed_worker",
    "check_options_are_documented",
    "check_orphans_are_spread",
    "check_picks_only_candidates",
    "check_reads_only_declared_needs",
    "check_recovered_worker_serves_again",
    "check_repeats_under_equal_seed",
    "check_spreads_a_burst",
    "check_spreads_when_idle",
    "check_stops_cleanly",
    "check_survives_a_thousand_workers",
    "check_survives_churn",
    "check_takes_the_only_candidate",
    "check_unknown_load_is_not_idle",
    "make_request",
    "make_worker",
    "make_workers",
    "traffic",
]

Check = Callable[[Subject], None]

EXEMPTIBLE = frozenset(
    {
        "check_affinity_survives_a_blip",
        "check_affinity_survives_a_hot_worker",
        "check_blip_does_not_make_idle",
        "check_copes_with_anonymous_requests",
        "check_fresh_worker_is_not_flooded",
        "check_legs_share_no_state",
        "check_options_are_documented",
        "check_orphans_are_spread",
        "check_recovered_worker_serves_again",
        "check_spreads_a_burst",
        "check_spreads_when_idle",
        "check_takes_the_only_candidate",
        "check_unknown_load_is_not_idle",
    }
)
"""Checks a policy may fail by design. All others hold for every policy."""


class PolicyConformance:
    """Subclass this with a name pytest collects, and set `policy_class`.

    A test that does not apply is not overridden but exempted, with a reason the report shows:
    `exempt = {"check_spreads_when_idle": "fills one worker before the next by design"}`.

    Attributes:
        policy_class: The class the entry point names.
        options: Its options as they would stand in the config.
        roles: Which workers it places on; by its select hooks when not given.
        memory_options: Laid over `options` where memory is measured: a small capacity, so that it is reached.
        affinity: What it keeps together, `session`, `user` or `prompt`; None for nothing.
        exempt: Reasons by the names of checks that do not hold by design.
    """

    policy_class: ClassVar[type]
    options: ClassVar[Mapping[str, object]] = MappingProxyType({})
    roles: ClassVar[Iterable[WorkerRole] | None] = None
    memory_options: ClassVar[Mapping[str, object]] = MappingProxyType({})
    affinity: ClassVar[str | None] = None
    exempt: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        for name, test in vars(PolicyConformance).items():
            if name.startswith(("test_", "run_check", "subjects")) and getattr(cls, name, None) is not test:
                raise TypeError(
                    f"{cls.__name__}.{name} may not be overridden: name the check in `exempt`, with a reason"
                )
        for name, reason in cls.exempt.items():
            if name not in EXEMPTIBLE:
                known = ", ".join(sorted(EXEMPTIBLE))
                raise TypeError(f"{cls.__name__}.exempt: {name!r} is no check that may be exempted; those are {known}")
            if not reason.strip():
                raise TypeError(f"{cls.__name__}.exempt[{name!r}]: say why it does not hold")
        if cls.affinity not in (None, "session", "user", "prompt"):
            raise TypeError(f"{cls.__name__}.affinity is {cls.affinity!r}: write 'session', 'user', 'prompt' or None")

    def subjects(self) -> tuple[Subject, ...]:
        """Return the policy once for each kind of pool it works in."""
        cls = type(self)
        if not hasattr(cls, "policy_class"):
            raise TypeError(f"{cls.__name__}: set policy_class to the class that is to be checked")
        if cls.roles is not None:
            roles = frozenset(cls.roles)
        else:
            roles = frozenset(WorkerRole if hasattr(cls.policy_class, "select_single") else PAIR_POOL)
        kinds = [REGULAR_POOL] if WorkerRole.REGULAR in roles else []
        legs = tuple(role for role in PAIR_POOL if role in roles)
        return tuple(
            Subject(cls.policy_class, cls.options, kind, cls.memory_options, cls.affinity)
            for kind in (*kinds, *([legs] if legs else []))
        )

    def run_check(self, check: Check) -> None:
        """Run one check in every kind of pool the policy works in."""
        reason = self.exempt.get(check.__name__)
        if reason is not None:
            raise unittest.SkipTest(f"exempt: {reason}")
        if check.__name__.startswith("check_affinity_") and self.affinity is None:
            raise unittest.SkipTest("the policy keeps nothing together")
        for subject in self.subjects():
            try:
                check(subject)
            except Exception as error:
                error.add_note(f"{check.__name__} of {subject}")
                raise

    # --- what every policy must do ---

    def test_has_no_contract_slips(self) -> None:
        self.run_check(check_has_no_contract_slips)

    def test_options_are_documented(self) -> None:
        self.run_check(check_options_are_documented)

    def test_reads_only_declared_needs(self) -> None:
        self.run_check(check_reads_only_declared_needs)

    def test_picks_only_candidates(self) -> None:
        self.run_check(check_picks_only_candidates)

    def test_takes_the_only_candidate(self) -> None:
        self.run_check(check_takes_the_only_candidate)

    def test_survives_a_thousand_workers(self) -> None:
        self.run_check(check_survives_a_thousand_workers)

    def test_never_picks_a_departed_worker(self) -> None:
        self.run_check(check_never_picks_a_departed_worker)

    def test_survives_churn(self) -> None:
        self.run_check(check_survives_churn)

    def test_recovered_worker_serves_again(self) -> None:
        self.run_check(check_recovered_worker_serves_again)

    def test_repeats_under_equal_seed(self) -> None:
        self.run_check(check_repeats_under_equal_seed)

    def test_instances_share_nothing(self) -> None:
        self.run_check(check_instances_share_nothing)

    def test_legs_share_no_state(self) -> None:
        self.run_check(check_legs_share_no_state)

    def test_load_returns_to_zero(self) -> None:
        self.run_check(check_load_returns_to_zero)

    def test_copes_without_telemetry(self) -> None:
        self.run_check(check_copes_without_telemetry)

    def test_copes_with_odd_prompts(self) -> None:
        self.run_check(check_copes_with_odd_prompts)

    def test_copes_with_anonymous_requests(self) -> None:
        self.run_check(check_copes_with_anonymous_requests)

    def test_memory_stays_bounded(self) -> None:
        self.run_check(check_memory_stays_bounded)

    def test_stops_cleanly(self) -> None:
        self.run_check(check_stops_cleanly)

    # --- what went wrong elsewhere ---

    def test_spreads_when_idle(self) -> None:
        self.run_check(check_spreads_when_idle)

    def test_spreads_a_burst(self) -> None:
        self.run_check(check_spreads_a_burst)

    def test_fresh_worker_is_not_flooded(self) -> None:
        self.run_check(check_fresh_worker_is_not_flooded)

    def test_blip_does_not_make_idle(self) -> None:
        self.run_check(check_blip_does_not_make_idle)

    def test_unknown_load_is_not_idle(self) -> None:
        self.run_check(check_unknown_load_is_not_idle)

    def test_orphans_are_spread(self) -> None:
        self.run_check(check_orphans_are_spread)

    def test_affinity_holds_while_idle(self) -> None:
        self.run_check(check_affinity_holds_while_idle)

    def test_affinity_survives_a_hot_worker(self) -> None:
        self.run_check(check_affinity_survives_a_hot_worker)

    def test_affinity_survives_a_blip(self) -> None:
        self.run_check(check_affinity_survives_a_blip)
