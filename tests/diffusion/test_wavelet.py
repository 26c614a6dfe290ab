"""The Haar transform: scales of the released code, and back."""

import torch

from mdm_studio.diffusion.wavelet import haar, haar_bounds, inverse_haar
from mdm_studio.testing import golden_input


def test_coefficients_of_one_square():
    a, b, c, d = 0.1, 0.2, 0.5, 0.9  # of an image in [0, 1]
    z = haar(2 * torch.tensor([[a, b], [c, d]])[None, None] - 1)[0, 0]
    approximation, horizontal = (a + b + c + d) / 2, (a + b - c - d) / 2
    vertical, diagonal = (a - b + c - d) / 2, (a - b - c + d) / 2
    assert torch.allclose(z, torch.tensor([[2 * approximation - 1, horizontal], [vertical, diagonal]]))


def test_there_and_back():
    x = golden_input((2, 3, 8, 6), 2).clamp(-1, 1)
    z = haar(x)
    assert z.shape == x.shape
    assert torch.allclose(inverse_haar(z), x, atol=1e-6)
    low, high = haar_bounds(z)
    assert (z >= low).all()
    assert (z <= high).all()


def test_bounds_are_reached_and_noise_is_not_mixed_up():
    white, black = torch.ones(1, 1, 2, 2), -torch.ones(1, 1, 2, 2)
    for image, bound in ((white, haar_bounds(white)[1]), (black, haar_bounds(black)[0])):
        assert haar(image)[0, 0, 0, 0] == bound[0, 0]
    chequered = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])[None, None]
    assert haar(chequered).flatten().tolist() == [1, 0, 0, 1]
