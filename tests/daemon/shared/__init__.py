"""Tests of one running daemon, which each of them leaves whole."""
