from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from clipsyn.perturb.digital import jpeg


@pytest.mark.parametrize(("severity", "quality"), [(1, 25), (2, 18), (3, 15), (4, 10), (5, 7)])
def test_it_is_a_round_trip_at_imagenet_cs_quality(severity, quality):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (37, 50, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    expected = np.asarray(Image.open(file).convert("RGB"))
    np.testing.assert_array_equal(jpeg(image, severity, rng), expected)
