"""What the fields of the form are for, by request name; shown when the mouse rests on one."""

HELP = {
    "image": (
        "The measured image: a layer of the viewer. Time, z and channel axes are looped over.\n"
        "The planes of a phase may also be one layer: with an axis of length 2, or with an axis "
        "named plane or z."
    ),
    "image2": (
        "The image at the other focus: same field, same camera.\n"
        "More than two planes must be one layer."
    ),
    "model": "What to reconstruct, and with which trained network.",
    "pixel_um": (
        "Pixel size in the sample [µm]: camera pixel × binning / magnification. 65 nm is 0.065."
    ),
    "wavelength_um": (
        "Vacuum wavelength [µm]: of the illumination for phase, of the emission for fluorescence. "
        "520 nm is 0.52."
    ),
    "defocus_um": (
        "Position of each plane [µm], in their order, with sign:\n"
        "positive is away from the light source, toward the objective.\n"
        "0 and 2.5 (one plane in focus) works, too.\n"
        "Several numbers in one field, with spaces between them, are the positions of as many "
        "planes."
    ),
    "medium_index": (
        "Refractive index of the medium between the planes: air 1.0, water 1.333, oil 1.518."
    ),
    "na": (
        "Numerical aperture of the detection.\n"
        "A fluorescence image is deconvolved with it; without it, its cut-off frequency is "
        "estimated."
    ),
    "condenser_na": (
        "Numerical aperture of the illumination, at most the refractive index.\n"
        "Empty: the light is taken for coherent."
    ),
    "samples": (
        "Draws from the posterior. Their mean is the reconstruction, their variance the spread;\n"
        "one draw has no spread. 8 is a good start, 16 for reports."
    ),
    "steps": (
        "Evaluations of the network for each sample. 6 are enough for sde-2m;\n"
        "with 1 all samples are alike, and there is no spread."
    ),
    "seed": "Chooses the noise. The same seed gives the same pixels, in one precision.",
    "sampler": (
        "How the diffusion is reversed: sde-2m is the most exact for few steps,\n"
        "ancestral (the paper's) wants 200."
    ),
    "device": "Where to compute; auto takes the fastest that is there.",
    "precision": (
        "Of the network. bf16 moves the samples by a few per cent of the spread;\n"
        "it is faster on most GPUs and on some processors.\n"
        "auto takes bf16 where the device has arithmetic for it; the result says which it was."
    ),
    "tile": "Side of a square tile [px]. It changes memory and time; the pixels only by rounding.",
    "keep_samples": (
        "Also show every sample, along an axis of its own: for the histogram at a pixel and the "
        "error of a dry mass.\n"
        "It takes as much memory as the samples need."
    ),
    "align": (
        "auto: look for a shift between the outermost planes and report it. Nothing is moved."
    ),
    "psf": (
        "The image of a bead, one plane or a stack: it decides over NA and wavelength.\n"
        "The file must say its pixel size."
    ),
    "background": (
        "auto: estimate the blank-field intensity (phase) or the dark level (fluorescence).\n"
        "none: it is already divided out (phase) or zero (fluorescence).\n"
        "A layer: an image of an empty, lit field (phase) or a dark image of the camera "
        "(fluorescence), of the same size.\n"
        "auto is a guess: counts and phases may be quantified only where it was not needed."
    ),
}
