"""Studies: experiments without training, one a file."""
