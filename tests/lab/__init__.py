"""A fleet on one kernel: nodes with an SSH server, an engine, limits and a network of their own. docs/lab.md tells how
to use it; `lab.fleet.Lab` is where to begin reading.

Empty on purpose: every node's first process imports from here, fifty at a time.
"""
