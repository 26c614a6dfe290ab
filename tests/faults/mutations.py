"""Ways to spoil a file: what disks, networks, editors, other programs and hostile people do to it.

Each takes a random generator and what is there, and gives what takes its place. `spoil` picks one that fits the file.
"""

import io
import json
import pickle
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CANARY = "CANARY"  # made by code that a file brings along, in its working directory

_DEEP = 100_000
_NUMBERS = (0, -1, 1, 255, 2**31 - 1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"), True, False, None)
_WORDS = (
    "",
    "x",
    "../../x",
    "/",
    "a" * 5000,
    "\0",
    "\ud800",
    "Ω\u202e",
    "=HYPERLINK(1)",
    "nan",
    "1",
    "%s%n",
    "C:\\x",
    "\r\n",
    "[red]",
)


# ---------------------------------------------------------------------------------------------------------- any bytes


def flip(rng: random.Random, data: bytes) -> bytes:
    """Some bits are others."""
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if spoilt:
            where = rng.randrange(min(len(spoilt), rng.choice((64, 512, len(spoilt)))))
            spoilt[where] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def truncate(rng: random.Random, data: bytes) -> bytes:
    """The end is not there."""
    return data[: rng.choice((0, 1, 8, len(data) // 2, max(0, len(data) - 1), rng.randrange(len(data) + 1)))]


def splice(rng: random.Random, data: bytes) -> bytes:
    """A piece is missing, twice there, zero, or of another place."""
    if len(data) < 4:
        return data + b"\0"
    a, b = sorted(rng.sample(range(len(data)), 2))
    kind = rng.randrange(5)
    if kind == 0:
        return data[:a] + data[b:]
    if kind == 1:
        return data[:b] + data[a:]
    if kind == 2:
        return data[:a] + bytes(b - a) + data[b:]
    if kind == 3:
        return data[:a] + rng.randbytes(min(b - a, 4096)) + data[b:]
    return data + rng.randbytes(100)


def foreign(rng: random.Random, data: bytes) -> bytes:
    """Something else altogether."""
    web = b"<!DOCTYPE html><html>404 Not Found</html>"
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    pointless = (b"", b"\0" * 4096, web, lfs, pickle.dumps(Payload()), b"PK\5\6" + bytes(18), b"\x89HDF\r\n\x1a\n" + bytes(90))
    return rng.choice((*pointless, rng.randbytes(300), gzip_like(data)))


def gzip_like(data: bytes) -> bytes:
    """As a browser or a tape leaves it."""
    return zlib.compress(data, wbits=31)


class Payload:
    """Code that a pickle brings along."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return open, (CANARY, "w")


BYTES = (flip, flip, truncate, splice, foreign)


# --------------------------------------------------------------------------------------------------------------- text


def encode(rng: random.Random, data: bytes) -> bytes:
    """Another encoding, other ends of lines."""
    text = data.decode("utf-8", "replace")
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: text.encode("utf-16"), lambda: b"\xef\xbb\xbf" + text.encode("utf-8"), lambda: text.encode("utf-32"),
        lambda: text.replace("\n", "\r").encode(), lambda: text.replace("\n", "\r\n").encode(),
        lambda: data.replace(b"e", b"\xe9"), lambda: data + b"\0\0", lambda: data.replace(b"\n", b"\n\n"),
        lambda: data.replace(b",", b";"), lambda: data.replace(b'"', b"'"), lambda: data[:-1] + b',"' + data[-1:],
    )  # fmt: skip
    return rng.choice(ways)()


def table(rng: random.Random, data: bytes) -> bytes:
    """A table with a field that is something else."""
    rows = [line.split(",") for line in data.decode("utf-8", "replace").splitlines()] or [[""]]
    row = rng.choice(rows)
    row[rng.randrange(len(row))] = rng.choice(
        (*_WORDS, '"', '"a', "1e5", "-1", "256", "1.0", "\u0661", "#12345g", "@SUM(A1)", "x" * 200_000)
    )
    if rng.random() < 0.3:
        row.append("more")
    return "\n".join(",".join(each) for each in rows).encode("utf-8", "surrogatepass")


# --------------------------------------------------------------------------------------------------------------- JSON


def odd_value(rng: random.Random) -> Any:
    """A value that nobody expects."""
    kind = rng.randrange(6)
    if kind < 2:
        return rng.choice(_NUMBERS)
    if kind == 2:
        return rng.choice(_WORDS)
    if kind == 3:
        return rng.choice(([], {}, [[]], [None], {"": None}, {"a": {"a": 1}}, [1, "a", None], list(range(3000))))
    nested: Any = 0
    for _ in range(rng.choice((3, 200))):
        nested = [nested] if kind == 4 else {"a": nested}
    return nested


def swap(rng: random.Random, data: bytes) -> bytes:
    """A value somewhere in a document is another, or gone; or the document is something else as a whole."""
    try:
        document = json.loads(data)
    except ValueError:
        return encode(rng, data)
    chance = rng.random()
    if chance < 0.05:
        return rng.choice(
            (b"[" * _DEEP + b"]" * _DEEP, b'{"a":' * _DEEP + b"1" + b"}" * _DEEP, b"1" * 5000, b"[1e999]", b"NaN")
        )
    if chance < 0.12:
        return _dumped(odd_value(rng))
    for _ in range(rng.choice((1, 1, 1, 3))):
        parent, key = _place(rng, document)
        if parent is None:
            return _dumped(odd_value(rng))
        change = rng.random()
        if change < 0.2 and isinstance(parent, dict):
            del parent[key]
        elif change < 0.3 and isinstance(parent, dict):
            parent[rng.choice(_WORDS)] = parent.pop(key)
        elif change < 0.4 and isinstance(parent[key], int | float):
            parent[key] = parent[key] * rng.choice((-1, 2, 0.5, 1e6, 1 << 40)) + rng.choice((0, 1))
        else:
            parent[key] = odd_value(rng)
    return _dumped(document)


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _place(rng: random.Random, document: Any) -> tuple[Any, Any]:
    places: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        each = waiting.pop()
        items = each.items() if isinstance(each, dict) else enumerate(each) if isinstance(each, list) else ()
        for key, value in items:
            places.append((each, key))
            waiting.append(value)
    return rng.choice(places) if places else (None, None)


# ---------------------------------------------------------------------------------------------------------------- zip


def rezip(rng: random.Random, data: bytes) -> bytes:
    """An archive whose entries are packed otherwise, doubled, missing, renamed, huge or spoilt one by one."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [(name, archive.read(name)) for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError):
        return flip(rng, data)
    method, kind, which = zipfile.ZIP_STORED, rng.randrange(9), rng.randrange(len(entries))
    name, held = entries[which]
    if kind == 0:
        method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    elif kind == 1:
        if rng.random() < 0.5:
            return _bomb(entries, which)
        entries[which], method = (name, bytes(10**6)), zipfile.ZIP_DEFLATED
    elif kind == 2:
        del entries[which]
    elif kind == 3:
        entries[which] = (rng.choice((f"../{name}", f"/{name}", name.upper(), name + "/", "")), held)
    elif kind == 4:
        entries.insert(rng.randrange(len(entries) + 1), (name, rng.choice((held, b"", b"[]"))))
    elif kind == 5:
        entries.append((rng.choice(("data.pkl", "evil.py", "__init__.py")), pickle.dumps(Payload())))
    else:
        entries[which] = (name, spoil_bytes(rng, name, held))
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each, content in entries:
            archive.writestr(zipfile.ZipInfo(each or "x"), content, method)  # a moment of its own would not come again
    return written.getvalue()


def _bomb(entries: list[tuple[str, bytes]], which: int) -> bytes:
    """An archive of which one entry is 3 GB of zeros in 3 MB; its checksum is wrong, which is found after all is unpacked."""
    packer, size = zlib.compressobj(9, zlib.DEFLATED, -15), 3 * 10**9
    block = packer.compress(bytes(10**7)) + packer.flush(zlib.Z_FULL_FLUSH)  # which may be repeated
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for number, (name, held) in enumerate(entries):
            archive.writestr(zipfile.ZipInfo(name), block * (size // 10**7) + b"\3\0" if number == which else held)
        places = archive.infolist()[which].header_offset, archive.start_dir
    data = bytearray(written.getvalue())
    central = _found(bytes(data[places[1] :]), b"PK\1\2")[which] + places[1]
    for at, method, length in ((places[0], 8, 22), (central, 10, 24)):
        struct.pack_into("<H", data, at + method, zipfile.ZIP_DEFLATED)
        struct.pack_into("<I", data, at + length, size)
    return bytes(data)


def zip_header(rng: random.Random, data: bytes) -> bytes:
    """An entry whose method, flags, sizes or offset are others."""
    spoilt, places = bytearray(data), _found(data, b"PK\1\2") + _found(data, b"PK\3\4")
    if not places:
        return flip(rng, data)
    at = rng.choice(places)
    central = data[at : at + 4] == b"PK\1\2"
    field = rng.choice(
        ((8, "<H"), (10, "<H"), (20, "<I"), (24, "<I"), (42, "<I"))
        if central
        else ((6, "<H"), (8, "<H"), (18, "<I"), (22, "<I"))
    )
    odd = (
        rng.choice((0, 1, 6, 8, 12, 14, 93, 95, 99, 0x8001, 0xFFFF))
        if field[1] == "<H"
        else rng.choice((0, 1, 2**31, 2**32 - 1, 10**9))
    )
    if at + field[0] + struct.calcsize(field[1]) <= len(spoilt):
        struct.pack_into(field[1], spoilt, at + field[0], odd)
    return bytes(spoilt)


def _found(data: bytes, what: bytes) -> list[int]:
    places, at = [], data.find(what)
    while at >= 0:
        places.append(at)
        at = data.find(what, at + 1)
    return places


# ------------------------------------------------------------------------------------------------------- safetensors


def tensors(rng: random.Random, data: bytes) -> bytes:
    """A header that says something else of the tensors."""
    size = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    if not 2 <= size <= len(data) - 8:
        return flip(rng, data)
    if rng.random() < 0.2:
        return struct.pack("<Q", rng.choice((0, 1, size + 1, 2**40, 2**64 - 1, 10**8))) + data[8:]
    header, rest = data[8 : 8 + size], data[8 + size :]
    facts = json.loads(header)
    names = [name for name in facts if name != "__metadata__"]
    kind = rng.randrange(6)
    if kind == 0 or not names:
        header = swap(rng, header)
    else:
        entry = facts[rng.choice(names)]
        if kind == 1:
            entry["dtype"] = rng.choice(("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "X"))
        elif kind == 2:
            entry["shape"] = rng.choice(([], [0], [2**40], entry["shape"][::-1], [*entry["shape"], 1], [-1]))
        elif kind == 3:
            entry["data_offsets"] = rng.choice(([0, 4], [4, 0], [0, 2**60], [len(rest), len(rest) + 4]))
        elif kind == 4:
            del facts[rng.choice(names)]
        else:
            facts[rng.choice(_WORDS[1:5])] = facts.pop(rng.choice(names))
        header = _dumped(facts)
    return struct.pack("<Q", len(header)) + header + rest


def poisoned(rng: random.Random, data: bytes) -> bytes:
    """Tensors of the same shapes that are no numbers, or far too large ones; the file is sound."""
    size = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    body = bytearray(data)
    for _ in range(rng.choice((1, 5, 50))):
        if len(data) - 12 > 8 + size:
            at = rng.randrange(8 + size, len(data) - 4) // 4 * 4
            struct.pack_into("<f", body, at, rng.choice((float("nan"), float("inf"), 3e38, 0.0)))
    return bytes(body)


# --------------------------------------------------------------------------------------------------------------- TIFF


def tiff_tag(rng: random.Random, data: bytes) -> bytes:
    """A tag whose number, type, count or value is another."""
    if len(data) < 16 or data[:2] not in (b"II", b"MM"):
        return flip(rng, data)
    order, big = "<" if data[:2] == b"II" else ">", data[2] in (0x2B,) or data[3] == 0x2B
    place, count, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    (at,) = struct.unpack_from(order + place, data, 8 if big else 4)
    wide, spoilt, directories = struct.calcsize(order + count), bytearray(data), []
    while 0 < at <= len(data) - wide and at not in directories and len(directories) < 9:
        directories.append(at)
        number = struct.unpack_from(order + count, data, at)[0]
        end = at + wide + number * entry
        if end + struct.calcsize(order + place) > len(data):
            break
        (at,) = struct.unpack_from(order + place, data, end)
    if not directories:
        return flip(rng, data)
    at = rng.choice(directories)
    number = struct.unpack_from(order + count, data, at)[0]
    if rng.random() < 0.15:  # the directory itself: how many tags, and which directory comes next
        offset, form = rng.choice(((at, count), (at + wide + number * entry, place)))
        return _packed(spoilt, order + form, offset, rng.choice((0, 1, number + 1, 60000, directories[0], len(data) + 9)))
    tag = at + wide + rng.randrange(max(1, number)) * entry
    offset, form = rng.choice(((0, "H"), (2, "H"), (4, "Q" if big else "I"), (12 if big else 8, "H"), (12 if big else 8, "I")))
    known = (254, 256, 257, 258, 259, 262, 270, 273, 277, 278, 279, 282, 284, 296, 317, 320, 322, 338, 339, 347, 42112, 42113)
    odd = (
        known
        if offset == 0
        else range(14)
        if offset == 2
        else (0, 1, 2, 3, 5, 7, 8, 16, 64, 255, 65535, 34712, 50000, 2**31, 2**32 - 1)
    )
    return _packed(spoilt, order + form, tag + offset, rng.choice(odd))


def _packed(data: bytearray, form: str, at: int, value: int) -> bytes:
    size = struct.calcsize(form)
    if at + size <= len(data):
        struct.pack_into(form, data, at, value % (1 << 8 * size))
    return bytes(data)


_ENTITIES = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{"&" + a + ";" * 1}{("&" + a + ";") * 9}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><OME>&i;</OME>",
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><OME>&x;</OME>',
)


def tiff_description(rng: random.Random, data: bytes) -> bytes:
    """Metadata that is spoilt, foreign or hostile, of pixels that are sound."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            text = file.pages[0].description
            pixels = [page.asarray() for page in file.pages]
    except Exception:  # noqa: BLE001 - what is spoilt already is spoilt another way
        return flip(rng, data)
    if rng.random() < 0.5 and text:
        spoilt = flip(rng, text.encode()).decode("latin-1")
        for old, new in rng.sample(_METADATA, 2):
            spoilt = spoilt.replace(old, new)
    else:
        spoilt = rng.choice(
            (*_ENTITIES, "ImageJ=1.0\nimages=20\nslices=20\n", "ImageJ=1.0\nimages=-1\n", '{"shape": [9, 9]}', "x" * 10**6)
        )
    written = io.BytesIO()
    with tifffile.TiffWriter(written) as writer:
        for number, page in enumerate(pixels):
            description = spoilt.encode("latin-1", "replace") if number == 0 else None
            writer.write(page, description=description, metadata=None, contiguous=False)
    return written.getvalue()


_METADATA = (
    ('SizeC="3"', 'SizeC="30"'), ('SizeC="3"', 'SizeC="-3"'), ('PhysicalSizeX="0.5"', 'PhysicalSizeX="0,5"'),
    ('"µm"', '"parsec"'), ("</OME>", ""), ("images=3", "images=2000000000"), ("slices=3", "slices=0"),
    ('Type="uint8"', 'Type="int8"'), ('DimensionOrder="XYCZT"', 'DimensionOrder="XXXXX"'), ("unit=um", "unit=\\u0000"),
    ("uuid:", "file:"), ('IFD="0"', 'IFD="77"'),
)  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- NPY


def npy(rng: random.Random, data: bytes) -> bytes:
    """A header of another type, shape or order, or objects with code in them."""
    kind = rng.randrange(5)
    if kind == 0:
        held = io.BytesIO()
        np.save(held, np.array([Payload()], object), allow_pickle=True)
        return held.getvalue()
    shapes = ("(48, 56)", "(56, 48)", "(999999999, 9999)", "(-1, 5)", "()", "(0, 5)", "(5,)", "(2, 3, 4, 5, 6)", "(48, 56.0)")
    types = ("'|u1'", "'<f8'", "'>u2'", "'|O'", "'<c16'", "'<M8[s]'", "[('a','|u1')]", "'|S1'", "'<f2'", "'|b1'", "'|V4'")
    shape, dtype = rng.choice(shapes), rng.choice(types)
    header = f"{{'descr': {dtype}, 'fortran_order': {rng.choice(('True', 'False', '7'))}, 'shape': {shape}, }}\n".encode()
    if kind == 1:
        header = rng.choice((b"__import__('os')\n", b"(" * 5000 + b"\n", b"{}\n", header[:-4]))
    return b"\x93NUMPY" + bytes((rng.choice((1, 1, 2, 9)), 0)) + struct.pack("<H", len(header)) + header + data[128:]


# -------------------------------------------------------------------------------------------------------- what fits


def spoil_bytes(rng: random.Random, name: str, data: bytes) -> bytes:
    """A file's content, spoilt in a way that fits its name."""
    return rng.choice((*BYTES, *_ways(name) * 3))(rng, data)


def _ways(name: str) -> tuple[Callable[[random.Random, bytes], bytes], ...]:
    suffix = Path(name).suffix.lower()
    return {
        ".json": (swap, swap, swap, encode), ".jsonl": (encode, swap), ".zattrs": (swap,), ".csv": (table, table, encode),
        ".mdm": (rezip, rezip, zip_header), ".pt": (rezip, zip_header), ".safetensors": (tensors, tensors, poisoned),
        ".tif": (tiff_tag, tiff_tag, tiff_description), ".tiff": (tiff_tag,), ".npy": (npy,),
    }.get(suffix, (flip,))  # fmt: skip


def spoil(rng: random.Random, folder: Path, *, only: Callable[[Path], bool] = lambda path: True) -> str:
    """Spoil one file below a folder; which one and how, in words."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and only(path)) if folder.is_dir() else [folder]
    path = rng.choice(files)
    chance = rng.random()
    if chance < 0.03:
        path.unlink()
        path.mkdir()
        return f"{path.name} is a folder"
    if chance < 0.05:
        path.unlink()
        path.symlink_to(path.name)
        return f"{path.name} is a link to itself"
    if chance < 0.07 and folder.is_dir():
        path.unlink()
        return f"{path.name} is missing"
    way = rng.choice((*BYTES, *_ways(path.name) * 3))
    path.write_bytes(way(rng, path.read_bytes()))
    return f"{path.name}: {way.__name__}"
