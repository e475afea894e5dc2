"""`python -m rov` is `rov`."""

from rov.cli import main

main()
