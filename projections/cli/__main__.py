"""`python -m projections.cli`: the same as `loopledger`."""

from projections.cli import main

main()
