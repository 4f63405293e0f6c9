"""The one place that knows bytes, properties and headers: the message contract, version 1. Floor 3: pure, no I/O.

`jobs` reads and writes jobs, `deadletters` the ones given up, `events` the journal's batches, `headers` names every header.
The contract for other languages is `docs/reference/message-contract.md`; its test vectors are in `tests/vectors/`.
"""
