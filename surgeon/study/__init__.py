"""Many operations as one study: a grid of cells, a row of results for each."""
