"""Following a microscope: the newest frame is reconstructed in few steps.

Older frames are dropped and counted.

``mailbox`` and ``folder`` are where frames come from and load no torch; ``live`` reconstructs.
"""
