"""How a model was probed: by which engine, in which precision, and at what batch and context.

Where a figure or a sentence has room for one way only, it is the first in the order below; for
one cell only, that of one reader.
"""

from __future__ import annotations

ENGINES = ("transformers", "static", "vllm")
PRECISIONS = ("float32", "bfloat16", "int8", "int4")
COLUMNS = ["engine", "precision"]

Way = tuple[str, str]  # (engine, precision)


def found(table) -> list[Way]:
    """Every way that the rows of a table of probed cells were measured in, in order."""
    pairs = table[COLUMNS].drop_duplicates().itertuples(index=False, name=None)
    return sorted(pairs, key=lambda pair: (_place(ENGINES, pair[0]), _place(PRECISIONS, pair[1])))


def _place(order: tuple[str, ...], name: str) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order)), name


def name(way: Way) -> str:
    return ", ".join(way)


def of(table, way: Way):
    """The rows that were measured in one way."""
    return table[(table["engine"] == way[0]) & (table["precision"] == way[1])]


def first(table):
    ways = found(table)
    return of(table, ways[0]) if ways else table


def corner(table, phase: str = "decode"):
    """The rows of one phase at the least batch and the longest context."""
    rows = table[table["phase"] == phase]
    rows = rows[rows["batch"] == rows["batch"].min()]
    return rows[rows["context"] == rows["context"].max()]


def one_reader(table):
    """The rows of the cell that one reader waits for: decoding, least batch, longest context."""
    return corner(first(table))


def timed(cells):
    """The cells that have a speed."""
    return cells.dropna(subset=["tokens_per_second"])


def busy(table) -> bool:
    """Whether any of the rows was timed while other programs ran on the device."""
    return bool(table["busy"].fillna(False).astype(bool).any())


def cell_name(table) -> str:
    """What `one_reader` shows; the way is said where there are several."""
    rows = one_reader(table)
    if not len(rows):
        return ""
    place = f"batch {rows['batch'].iloc[0]:.0f}, context {rows['context'].iloc[0]:.0f}"
    ways = found(table)
    return f"{place}, {name(ways[0])}" if len(ways) > 1 else place
