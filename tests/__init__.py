"""The promises of loopledger, one per test: reading the docstrings is reading the specification."""
