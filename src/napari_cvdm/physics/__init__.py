"""Image formation in torch, where device and dtype follow the input tensors.

The conventions are stated only here. Lengths are in micrometres, and spatial frequencies are in
cycles/um. The field of an object of phase phi is exp(+i phi), and a delay is positive. z grows away
from the source, toward the objective. Phase is in radians for the vacuum wavelength. Transforms are
periodic, and sizes may be rectangular and odd.
"""
