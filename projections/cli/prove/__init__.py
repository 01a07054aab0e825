"""`loopledger prove`: writers that are killed on this machine, and a count of what they were told.

SIGKILL takes a process away between any two instructions, and what it wrote stays in the page
cache. What a power cut takes away too is modelled: copies of the log, cut at random places behind
the last acknowledged event, which is all that can be lost where the engine syncs before it
acknowledges and the medium keeps its word. The first is what the project's own tests show, on a
simulated disk; the second can only be found out by cutting the power.
"""
