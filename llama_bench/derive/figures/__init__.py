"""What the report draws, by theme. Each module yields the figures that the study has data for."""
