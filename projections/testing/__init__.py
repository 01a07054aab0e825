"""For tests of programs that use loopledger: decisions, projections, crashes, backends.

A decision, told as a sentence::

    from projections.testing import given

    given(pj.REGISTRY).when(begin).then(es.LoopStarted(prompt="make the tests pass"))
    given(pj.REGISTRY, es.LoopStarted(prompt="...")).when(begin).then(
        es.LoopResumed(from_iteration=1)
    )
    given(pj.REGISTRY, es.LoopDiscarded(reason="...")).when(begin).then_nothing()

A projection of yours, against the laws that `load`, saved states and followers rely on::

    check_projection(PAID, [Paid(amount=3), Paid(amount=4)])

A log for one test, in memory or on disk, with a clock that ticks (`tmp_log` as a pytest fixture is
both, and opens the same log again)::

    async with tmp_store(types=MINE) as store:
        ...

A program that must survive: it is crashed at every change it makes to its log, started again, and
then judged::

    crashes = await survive_crashes(my_program, judge)

A backend of your own keeps the contract if the tests of `StoreConformance` pass over it.

Nothing here imports pytest, except the plugin that brings the fixture.
"""

from projections.testing._conformance import StoreConformance
from projections.testing._crashes import CrashFiles, survive_crashes
from projections.testing._laws import check_projection
from projections.testing._logs import TmpLog, tmp_store
from projections.testing._promises import OpenLog
from projections.testing._scenario import Given, Scenario, When

__all__ = [
    "CrashFiles",
    "Given",
    "OpenLog",
    "Scenario",
    "StoreConformance",
    "TmpLog",
    "When",
    "check_projection",
    "survive_crashes",
    "tmp_store",
]
