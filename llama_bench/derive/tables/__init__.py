"""The study's tables: their columns, and the rows that each record and each forecast gives."""
