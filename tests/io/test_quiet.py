"""What decoders warn of is no line on the terminal and no error, whichever thread they run in."""

import struct
import threading
import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn.ensemble import RandomForestClassifier

from mdm_studio.io.images import open_image
from mdm_studio.io.quiet import quiet

EVERYTHING = slice(None)


def _cut_exif(path):
    """A JPEG whose EXIF data promise more bytes than there are."""
    words = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x010F, 2, 100, 26) + b"\0\0\0\0ab"
    Image.fromarray(np.full((8, 9), 100, np.uint8)).save(path, exif=words)


def _old_header(path):
    """An array whose header was written by Python 2."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (8L, 9L), }"
    header = header.ljust(127 - 10) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + b"d" * 72)


@pytest.mark.parametrize(("name", "write"), [("a.jpg", _cut_exif), ("a.npy", _old_header)])
@pytest.mark.parametrize("action", ["always", "error"])
def test_damaged_files_are_read_without_a_warning(tmp_path, name, write, action):
    write(tmp_path / name)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter(action)
        with open_image(tmp_path / name) as image:
            assert image.plane().read(EVERYTHING, EVERYTHING).shape == (1, 8, 9)
    assert not heard


def test_threads_of_the_decoders_are_quiet_and_others_are_heard_again():
    def warn():
        warnings.warn("of a decoder", UserWarning, stacklevel=1)

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with quiet():
            thread = threading.Thread(target=warn)
            thread.start()
            thread.join()
            with quiet():
                warn()
            warn()
        assert not heard
        warn()
        assert len(heard) == 1


def test_libraries_that_copy_filters_into_their_workers_can():
    with quiet():
        pass
    trees = RandomForestClassifier(2, random_state=0).fit(np.arange(8.0).reshape(4, 2), [0, 0, 1, 1])
    assert trees.predict([[7.0, 8.0]]).tolist() == [1]


def test_an_error_ends_the_silence():
    with pytest.raises(ValueError, match="damaged"), quiet():
        raise ValueError("damaged")
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", UserWarning, stacklevel=1)
