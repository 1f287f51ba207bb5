"""Data to measure on: labelled tables and plain texts, from files or the Hub."""

from surgeon.scoring.data.columns import Columns
from surgeon.scoring.data.read import read_data, read_texts_of
from surgeon.scoring.data.table import Table

__all__ = ["Columns", "Table", "read_data", "read_texts_of"]
