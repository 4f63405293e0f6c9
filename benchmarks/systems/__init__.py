"""The systems that do the same work side by side; each is a program of a few commands, described in `program`."""
