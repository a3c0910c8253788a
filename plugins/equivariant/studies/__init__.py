"""Studies without training: exactness and speed."""
