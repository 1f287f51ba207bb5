"""One module per command: a thin shell of options over the Python API, imported when called."""
