"""`python -m rov` is `rov`."""

from rov.cli.app import main

main()
