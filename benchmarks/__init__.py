"""How fast it is here: one question per module, every answer beside its floor.

    python -m benchmarks.append      appends per second, and how long one is awaited
    python -m benchmarks.ceiling     what no store here can be faster than at that
    python -m benchmarks.rebuild     events folded per second, by a new process
    python -m benchmarks.verify      bytes of a log checked per second
    python -m benchmarks.projector   events taken in by live views, and what a restart costs them
    python -m benchmarks.growth      opening and reading a log that keeps growing; memory, index
    python -m benchmarks.flat        whether an event costs as much in a long log as in a short one
    python -m benchmarks.follow      how soon a subscriber sees it; many processes on one log
    python -m benchmarks.ends        the answers of a new process after a crash
    python -m benchmarks.compare     the same work, by what people use today

`make bench` runs all of them and writes RESULTS.md beside this file (`benchmarks._results`).

A floor is a bare loop, without our code, that does the work nobody can leave out; it is measured
in the same run, in turns with what it is compared to. So the ratio says how good we are, and the
rates say how good the machine is. `--quick` shows that everything works; its figures say little.
"""
