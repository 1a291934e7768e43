"""Laws, one family per module: formula, units, paper; a function and its bounds. No data, no fits.

families.py knows them by name.
"""
