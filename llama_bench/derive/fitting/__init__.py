"""How a law is fitted to a table of runs: from the table, over the search, to intervals."""
