"""Making models: recipes, pairs on the fly, the loop."""
