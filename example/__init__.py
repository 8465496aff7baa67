"""The example: a shop whose button's colour and text are two bandits. Start: python -m example."""
