"""The sections of config.yaml as types: what may be written there, and its defaults.

What is wrong within one section is refused here, by key; what does not hold together between them,
in config.py. The docstrings are the help that an editor shows.
"""
