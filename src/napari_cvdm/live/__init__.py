"""Following a microscope: the newest frame is reconstructed in few steps.

Older frames are dropped and counted. Frames come from ``sources``; ``follow`` reconstructs them.
"""
