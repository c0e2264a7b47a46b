"""The report for people: what the data are, what the model does, for whom it fails, as one HTML file."""
