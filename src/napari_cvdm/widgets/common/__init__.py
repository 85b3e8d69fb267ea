"""Controls and workers that several docks use."""
