"""Reading and planning experiments. Pure: no I/O, no clock, and no Flask."""
