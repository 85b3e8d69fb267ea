"""What can be learned from a result: schedule maps, intervals, correlations, measures, plans."""
