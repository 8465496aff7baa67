"""Tests of what reads and plans experiments."""
