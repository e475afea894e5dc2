"""The computer on board: what it is, what it lacks, how hot it runs, and whether all is fit to dive."""
