"""The systems that suffer the same faults side by side; each is a program of three commands, described in `program`."""
