"""Image formation in torch: tensors in, tensors out; device and dtype follow the input.

Conventions (stated once, here): lengths in micrometres; spatial frequencies in cycles/um; the field of an object of phase
phi is exp(+i phi), a delay is positive; z grows away from the source, toward the objective; phase is in radians for the
vacuum wavelength. Transforms are periodic; rectangular and odd sizes are as good as any.
"""
