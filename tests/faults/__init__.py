"""The fault campaign: real commands on the micro tier, a fault at a random moment, and the same command again.

`python -m tests.faults 200` runs so many seeded faults and prints a table by kind (`make faults`); continuous integration
runs a few of them. docs/reliability.md says what is promised and what a person's runs found.
"""
