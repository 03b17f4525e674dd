"""A second decoder of frames of the row codecs, as the format page reads: one value at a time, in
plain Python, sharing nothing with the package.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib

import zstandard

BITS = (0.1, 0.25, 0.45, 0.7, 1, 1.4, 1.85, 2.35, 2.9, 3.5, 4.1, 4.7, 5.4, 6.2)
EXACT = 15


def f32(x: float) -> float:
    """``x`` rounded to float32; sums, products, quotients and roots of two float32 stay exact
    enough in float64 to be rounded once more.
    """
    return struct.unpack("<f", struct.pack("<f", x))[0]


def half(word: int) -> float:
    """The value of an fp16 word, 0 for an infinity or NaN."""
    if word & 0x7C00 == 0x7C00:
        return 0.0
    return struct.unpack("<e", struct.pack("<H", word))[0]


def code(x: float) -> int:
    """The fp16 word nearest to ``x``, ties to even, at most the largest finite one."""
    return struct.unpack("<H", struct.pack("<e", min(x, 65504.0)))[0]


def bits_of(x: float) -> int:
    """The bits of a float32."""
    return struct.unpack("<I", struct.pack("<f", x))[0]


RHO = [0.0] + [f32(math.sqrt(1 - 4.0**-a)) for a in BITS] + [1.0]
REST = [1.0] + [f32(math.sqrt(1 - (math.sqrt(1 - 4.0**-a)) ** 2)) for a in BITS] + [0.0]


def size(stored: int) -> float:
    """A power of two times a quarter octave."""
    octave, quarter = divmod(stored - 64, 4)
    return math.ldexp(f32(2 ** (quarter / 4)), octave)


def mixture(x: float) -> float:
    """Cumulative .96 N(0, 1) + .04 N(0, 2.2²)."""
    return 0.5 + 0.48 * math.erf(x / math.sqrt(2)) + 0.02 * math.erf(x / 2.2 / math.sqrt(2))


def likely(masses: list[float]) -> list[int]:
    """Symbols from the likeliest on."""
    whole = [round(mass * 2**30) for mass in masses]
    order = sorted(range(len(whole)), key=lambda symbol: (-whole[symbol], symbol))
    return [symbol for symbol in order if whole[symbol] > 2**30 / 6000][:255]


def near_bits(quarters: int) -> int:
    """Raw bits of a class near 0."""
    if quarters < 6:
        return 8
    if quarters < 12:
        return 7
    return 6


def near_table(quarters: int, top: int) -> list[int]:
    """Symbols of a near class by rank."""
    spread = 1 + (top + 0.5) / 4
    mean = (quarters + 0.5) / 4 * spread
    steps = 1 << (10 - near_bits(quarters))
    edges = []
    for number in range((0x8000 >> near_bits(quarters)) + 1):
        edges.append(2.0 ** (number // steps - 10) * (1 + number % steps / steps))
    above, below = [], []
    for low, high in itertools.pairwise(edges):
        above.append(mixture((high - mean) / spread) - mixture((low - mean) / spread))
        below.append(mixture((-low - mean) / spread) - mixture((-high - mean) / spread))
    return likely(above + below)


def far_table(number: int) -> list[int]:
    """Symbols of a far class by rank."""
    ulps = 2.0 ** ((number - 16.5) / 4)
    masses = []
    for symbol in range(128):
        low = (symbol - 64.5) / ulps
        masses.append(mixture((symbol - 63.5) / ulps) - mixture(low))
    return likely(masses)


NEAR = [near_table(number // 4, number % 4) for number in range(96)]
FAR = [far_table(number) for number in range(29)]


class Bits:
    """Raw bits, least significant first."""

    def __init__(self, data: bytes) -> None:
        self.number, self.at = int.from_bytes(data, "little"), 0

    def take(self, count: int) -> int:
        """The next ``count``."""
        taken = self.number >> self.at & ((1 << count) - 1)
        self.at += count
        return taken


def value(m: float, s: float, rank: int, raw: Bits) -> int:
    """The word that prediction, spread, rank and raw bits stand for."""
    flip = 0x8000 if m < 0 else 0
    if rank == 255:
        return raw.take(16) ^ flip
    m = min(abs(m), 65504.0)
    exponent, mantissa = (bits_of(s) >> 23) - 127, bits_of(s) & 0x7FFFFF
    ratio = f32(f32(4 * m) / s)
    if ratio < 24:
        bits = near_bits(int(ratio))
        symbol = NEAR[4 * int(ratio) + (mantissa >> 21)][rank]
        count = 0x8000 >> bits
        sign, symbol = divmod(symbol, count)
        magnitude = (symbol + (exponent + 5) * 2 ** (10 - bits)) % count
        return (sign << 15 | magnitude << bits | raw.take(bits)) ^ flip
    mo = code(m)
    octave = exponent + 25 - max(mo >> 10, 1)
    bits = max(0, octave - 2)
    quarter = (mantissa >> 16 >= 24) + (mantissa >> 16 >= 53) + (mantissa >> 16 >= 87)
    symbol = FAR[max(0, 4 * (octave - bits) + 17 + quarter)][rank]
    ordered = ((symbol - 64) << bits) + raw.take(bits) + mo - (2**bits // 2)
    word = ordered if ordered >= 0 else 0x8000 | (-1 - ordered)
    return word ^ flip


def varint(body: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = shift = 0
    while True:
        number |= (body[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if body[at - 1] < 128:
            return number, at


def positions_of(body: bytes) -> tuple[list[int], int]:
    """Runs of positions, and where they end."""
    count, at = varint(body, 0)
    positions: list[int] = []
    end = 0
    for _ in range(count):
        step, at = varint(body, at)
        length, at = varint(body, at)
        begin = end + (step // 2 if step % 2 == 0 else -(step + 1) // 2)
        end = begin + length
        positions.extend(range(begin, end))
    return positions, at


def ordered(word: int) -> int:
    """A word's place among the values."""
    return word if word < 0x8000 else -1 - (word & 0x7FFF)


def plane_of(body: bytes, at: int, rows: int, width: int) -> tuple[list[list[int]], int]:
    """The bytes of a plane's stream, row by row, and where it ends."""
    stored, block = struct.unpack_from("<II", body, at)
    at += 8
    modes = body[at : at - -rows // block]
    at += -(-rows // block)
    flat = zstandard.decompress(body[at : at + stored])
    plane: list[list[int]] = []
    before = [0] * width
    for row in range(rows):
        line = list(flat[row * width : (row + 1) * width])
        mode = modes[row // block]
        if row % block and mode in (1, 4):
            line = [(a + b) % 256 for a, b in zip(line, before, strict=True)]
        elif row % block and mode == 2:
            line = [a ^ b for a, b in zip(line, before, strict=True)]
        before = list(line)
        if mode >= 3:  # pairs never cross heads, whose width is even
            for odd in range(1, width, 2):
                line[odd] = (line[odd] + line[odd - 1]) % 256
        plane.append(line)
    return plane, at + stored


class Slow:
    """One frame; ``decode`` gives its words, token by token."""

    def __init__(self, frame: bytes, base: float = 0.0, interleaved: bool = False) -> None:
        self.checksum, rows, heads, dim = struct.unpack_from("<IHBB", frame)
        self.rows, self.heads, self.dim = rows + 1, heads + 1, dim + 1
        self.channels = self.heads * self.dim
        self.base, self.interleaved = base, interleaved
        self.summed, self.body = frame[4:], frame[8:]
        self.rotated = self.body[0] >= 128
        self.kind = self.body[0] & 127

    def decode(self) -> list[list[int]]:
        """All words; an AssertionError unless the checksum holds."""
        words = (self._plain, self._planes, self._repeated, self._alike)[self.kind]()
        if self.rotated and self.interleaved:
            words = [self._laid_out(row) for row in words]
        source = b"".join(struct.pack(f"<{self.channels}H", *row) for row in words)
        assert zlib.crc32(self.summed + source) == self.checksum
        return words

    def _plain(self) -> list[list[int]]:
        size = 2 * self.channels
        rows = [self.body[at : at + size] for at in range(1, len(self.body), size)]
        return [list(struct.unpack(f"<{self.channels}H", row)) for row in rows]

    def _planes(self) -> list[list[int]]:
        high, at = plane_of(self.body, 1, self.rows, self.channels)
        low, at = plane_of(self.body, at, self.rows, self.channels)
        assert at == len(self.body)
        words = []
        for upper, lower in zip(high, low, strict=True):
            words.append([256 * a + b for a, b in zip(upper, lower, strict=True)])
        return words

    def _repeated(self) -> list[list[int]]:
        body = self.body[1:]
        self.positions, at = positions_of(body)
        lengths = struct.unpack_from("<4I", body, at)
        at += 16
        streams = []
        for length in (*lengths, len(body) - at - sum(lengths)):
            streams.append(list(zstandard.decompress(body[at : at + length])))
            at += length
        distances, low, high, left_low, left_high = streams
        words: list[list[int]] = []
        for row, distance in enumerate(distances):
            if not distance:
                words.append([low.pop(0) + 256 * high.pop(0) for _ in range(self.channels)])
                continue
            reference = [half(word) for word in words[row - distance]]
            by = self.positions[row] - self.positions[row - distance]
            line = []
            for turned in self._rotate(reference, by):
                near = code(abs(turned)) | (0x8000 if math.copysign(1, turned) < 0 else 0)
                zigzag = left_low.pop(0) + 256 * left_high.pop(0)
                step = zigzag // 2 if zigzag % 2 == 0 else -(zigzag + 1) // 2
                place = (ordered(near) + step + 0x8000) % 0x10000 - 0x8000
                line.append(place if place >= 0 else 0x8000 | (-1 - place))
            words.append(line)
        assert not any((low, high, left_low, left_high))
        return words

    def _alike(self) -> list[list[int]]:
        raw = self._read()
        words: list[list[int]] = [[] for _ in range(self.rows)]
        depth = self._depths()
        order = sorted(range(self.rows), key=lambda row: (depth[row], row))
        for row in order:
            level = self.levels[row]
            if level == EXACT and not self.rotated:
                words[row] = list(words[row - self.back[row]])
                continue
            stream = self.exact_ranks if level == EXACT else self.ranks
            reference = words[row - self.back[row]] if level else None
            means, spreads = self._predict(row, reference)
            for m, s in zip(means, spreads, strict=True):
                words[row].append(value(m, s, stream.pop(0), raw))
        assert not self.ranks
        assert not self.exact_ranks
        return words

    def _read(self) -> Bits:
        body, at = self.body[1:], 0
        if self.rotated:
            self.positions, at = positions_of(body)
        lengths = struct.unpack_from("<III", body, at)
        at += 12
        parts = []
        for length in lengths:
            parts.append(list(zstandard.decompress(body[at : at + length])))
            at += length
        side, self.ranks, self.exact_ranks = parts
        c, n = self.channels, self.rows
        self.sizes = [size(stored) for stored in side[:c]]
        signed = [stored - 256 if stored > 127 else stored for stored in side[c : 2 * c]]
        self.means = [f32(q * 0.125 * s) for q, s in zip(signed, self.sizes, strict=True)]
        self.kappas = [size(stored + 56) for stored in side[2 * c : 3 * c]]
        self.levels = side[3 * c : 3 * c + n]
        distances = side[3 * c + n :]
        self.back = [distances.pop(0) if level else 0 for level in self.levels]
        return Bits(body[at:])

    def _depths(self) -> list[int]:
        depth: list[int] = []
        for row, back in enumerate(self.back):
            depth.append(depth[row - back] + 1 if back else 0)
        return depth

    def _predict(self, row: int, reference: list[int] | None) -> tuple[list[float], list[float]]:
        level = self.levels[row]
        rho = RHO[level]
        spreads = self._spreads(level)
        if not self.rotated:
            if reference is None:
                return self.means, spreads
            predicted = []
            for mean, word in zip(self.means, reference, strict=True):
                predicted.append(f32(mean + f32(rho * f32(half(word) - mean))))
            return predicted, spreads
        scaled = [f32(mean * f32(1 - rho)) for mean in self.means]
        predicted = self._rotate(scaled, self.positions[row])
        if reference is None:
            return predicted, spreads
        distance = self.positions[row] - self.positions[row - self.back[row]]
        turned = self._rotate([f32(rho * half(word)) for word in reference], distance)
        predicted = [f32(a + b) for a, b in zip(predicted, turned, strict=True)]
        if level == EXACT:
            spreads = self._rounding(reference, distance)
        return predicted, spreads

    def _spreads(self, level: int) -> list[float]:
        if level == 0:
            return self.sizes
        spreads = []
        for s, kappa in zip(self.sizes, self.kappas, strict=True):
            spreads.append(f32(REST[level] * f32(s * kappa)))
        return spreads

    def _turn(self, k: int, position: int) -> tuple[float, float]:
        angle = position * f32(self.base ** -(2 * k / self.dim))
        return f32(math.cos(angle)), f32(math.sin(angle))

    def _rotate(self, values: list[float], position: int) -> list[float]:
        turned = [0.0] * self.channels
        for head in range(self.heads):
            for k in range(self.dim // 2):
                cos, sin = self._turn(k, position)
                i = head * self.dim + k
                j = i + self.dim // 2
                turned[i] = f32(f32(values[i] * cos) - f32(values[j] * sin))
                turned[j] = f32(f32(values[j] * cos) + f32(values[i] * sin))
        return turned

    def _rounding(self, reference: list[int], position: int) -> list[float]:
        squares = []
        for word in reference:
            exponent = word >> 10 & 31
            finite_exponent = 0 if exponent == 31 else exponent
            squares.append(4.0 ** (max(finite_exponent, 1) - 25))
        spreads = [0.0] * self.channels
        for head in range(self.heads):
            for k in range(self.dim // 2):
                cos, sin = (f32(x * x) for x in self._turn(k, position))
                i = head * self.dim + k
                j = i + self.dim // 2
                for own, other in ((i, j), (j, i)):
                    total = f32(f32(cos * squares[own]) + f32(sin * squares[other]))
                    spreads[own] = f32(math.sqrt(f32(f32(1.1 / 12) * total)))
        return spreads

    def _laid_out(self, row: list[int]) -> list[int]:
        words = []
        for head in range(self.heads):
            for k in range(self.dim // 2):
                i = head * self.dim + k
                words += [row[i], row[i + self.dim // 2]]
        return words
