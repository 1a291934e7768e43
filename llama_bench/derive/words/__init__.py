"""What the report says: sentences and tables as shown text. What it draws is in figures/."""
