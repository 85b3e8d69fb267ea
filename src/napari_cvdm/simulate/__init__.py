"""Simulated image pairs from a description of the microscope.

Phase objects give defocus pairs, and structures give widefield pairs.
"""
