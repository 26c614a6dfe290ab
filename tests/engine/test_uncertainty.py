import numpy as np
import pytest

from mdm_studio.engine.uncertainty import top_uncertainty
from mdm_studio.errors import UsageError


def test_top_uncertainty():
    assert top_uncertainty(np.arange(40.0).reshape(5, 8)) == 37.5
    assert top_uncertainty([1.0, 3.0]) == 2.0
    with pytest.raises(UsageError, match="no pixel"):
        top_uncertainty([])
