"""What the worker costs, beside its peers: every number is a ratio in one run, and void unless each job ran exactly once."""
