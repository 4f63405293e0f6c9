"""What an operator does to running workers, to queues and to jobs, other than dead letters. Floor 6.

`operator` says things to workers, `queues` looks at queues and moves what is in them. Every action is recorded in the journal.
"""
