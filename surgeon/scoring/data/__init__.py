"""Data to measure on: labelled tables and plain texts, from files or the Hub."""

from surgeon.scoring.data.columns import Columns, Names
from surgeon.scoring.data.read import read_data, read_texts_of
from surgeon.scoring.data.table import Table, spelled_out

__all__ = ["Columns", "Names", "Table", "read_data", "read_texts_of", "spelled_out"]
