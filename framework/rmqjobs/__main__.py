"""`python -m rmqjobs`: the command line."""

from rmqjobs.cli import main

main()
