"""The perturbations that come with clipsyn: group, name, module and what it does."""

from __future__ import annotations

# group -> name -> (module below clipsyn.images.perturb with a function of that name, description)
BUILT_IN = {
    "imagenet-c": {
        "gaussian_noise": ("noise", "independent normal noise on every channel"),
        "shot_noise": ("noise", "Poisson noise, as of few photons"),
        "impulse_noise": ("noise", "salt and pepper, channel by channel"),
        "defocus_blur": ("blur", "mean over a disc, as out of focus"),
        "glass_blur": ("blur", "pixels take the place of near ones, as behind frosted glass"),
        "motion_blur": ("blur", "the image dragged along a line, as of a moving camera"),
        "zoom_blur": ("blur", "mean of the image and of ever closer views of its centre"),
        "snow": ("weather", "falling flakes on a whitened image"),
        "frost": ("weather", "ice crystals over it; made up, not the published photographs"),
        "fog": ("weather", "a fractal cloud over it"),
        "brightness": ("colour", "more value in HSV"),
        "contrast": ("colour", "values moved towards the mean"),
        "elastic_transform": ("geometry", "an affine map and smooth displacements"),
        "pixelate": ("digital", "coarse pixels"),
        "jpeg": ("digital", "JPEG compression (ImageNet-C's jpeg_compression)"),
    },
    "imagenet-c-extra": {
        "speckle_noise": ("noise", "normal noise in proportion to the value"),
        "gaussian_blur": ("blur", "a Gaussian blur"),
        "spatter": ("weather", "drops of water (1 to 3) or mud (4 and 5) on the lens"),
        "saturate": ("colour", "paler (1 and 2) or stronger colours (3 to 5) in HSV"),
    },
    "geometric": {
        "rotation": ("geometry", "turned by 5 to 45 degrees to either side"),
        "horizontal_flip": ("geometry", "mirrored left and right"),
        "vertical_flip": ("geometry", "upside down, mirrored"),
        "translation": ("geometry", "shifted by 5 to 30 % of its sides"),
        "crop": ("geometry", "a part with sides of 90 to 50 %, enlarged"),
        "perspective": ("geometry", "corners moved inwards, as seen from aside"),
    },
    "photometric": {
        "hue": ("colour", "hue turned by 5 to 50 % of the circle"),
        "saturation": ("colour", "distance from grey times 1.5 to 6"),
        "grayscale": ("colour", "no colour"),
        "posterise": ("colour", "5 to 1 bits a channel"),
        "solarise": ("colour", "values from a threshold on inverted"),
    },
    "occlusion": {
        "random_erase": ("occlusion", "a grey rectangle over 10 to 50 % of it"),
        "patch_shuffle": ("occlusion", "tiles of a 2 x 2 to 8 x 8 grid permuted"),
    },
    "": {
        "augment": (
            "geometry",
            "a random crop, resized, mirrored half of the time; each seed another",
        ),
    },
}

# They have one strength: every severity gives the same image.
EVEN = frozenset({"horizontal_flip", "vertical_flip", "grayscale"})
