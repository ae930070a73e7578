"""Time series: files, published sets, graphs, and windows to forecast."""
