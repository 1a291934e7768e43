"""What `limits` and `probe` are made of: work to time, and instruments."""
