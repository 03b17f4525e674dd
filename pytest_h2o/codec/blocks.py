"""One encoded KV block, as the runtime's lossless store holds it: two blobs of a block codec, and
their hashes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from pytest_h2o.codec import CodecError, block_codecs
from pytest_h2o.codec.planes import Words
from pytest_h2o.codec.rope import Rope, Rotation


@dataclass(frozen=True, slots=True)
class EncodedBlock:
    """Encoded K and V of a block of ``shape`` (kv_heads, tokens, head_dim); ``raw_hash`` is None
    unless asked for.
    """

    k: bytes
    v: bytes
    raw_bytes: int
    tokens: int
    shape: tuple[int, int, int]
    elem_bytes: int
    raw_hash: int | None
    blob_hash: int
    codec: str
    rope: Rope | None = None

    @property
    def nbytes(self) -> int:
        """Encoded bytes of both tensors."""
        return len(self.k) + len(self.v)


def hash64(*parts: bytes | memoryview) -> int:
    """64-bit identity of the concatenated ``parts``, the same in every process (BLAKE2b: FNV-1a
    would cost more than decoding does).
    """
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest(), "little")


def encode_block(  # noqa: PLR0913 - keyword-only settings of one call
    k: Words,
    v: Words,
    *,
    predictors_k: Sequence[str],
    predictors_v: Sequence[str],
    codec: str = "fp16_gear_predictive_v3",
    hash_raw: bool = False,
    rotation: Rotation | None = None,
) -> EncodedBlock:
    """Encode the C-contiguous bit patterns ``k`` and ``v`` [kv_heads, tokens, head_dim] (uint16 or
    uint32).

    ``rotation`` is how the keys are rotated; codecs may undo it. Whether the result is smaller than
    the input is for the caller to judge. Raises CodecError on other shapes or types, ValueError on
    an unknown predictor or codec.
    """
    alike = k.shape == v.shape and k.dtype == v.dtype
    if not alike or k.ndim != 3 or k.dtype not in (np.uint16, np.uint32):
        raise CodecError(
            f"a block takes two 3-D uint16 or uint32 arrays, got {k.dtype}{k.shape} and "
            f"{v.dtype}{v.shape}"
        )
    coder = block_codecs.load(codec)
    if isinstance(coder, block_codecs.KeyCodec):
        k_blob = coder.encode_keys(k, predictors_k, rotation)
    else:
        k_blob = coder.encode(k, predictors_k)
    v_blob = coder.encode(v, predictors_v)
    return EncodedBlock(
        k=k_blob,
        v=v_blob,
        raw_bytes=k.nbytes + v.nbytes,
        tokens=k.shape[1],
        shape=(k.shape[0], k.shape[1], k.shape[2]),
        elem_bytes=k.itemsize,
        raw_hash=hash64(k.data, v.data) if hash_raw else None,
        blob_hash=hash64(k_blob, v_blob),
        codec=codec,
        rope=rotation.rope if rotation else None,
    )


def decode_block(block: EncodedBlock) -> tuple[Words, Words]:
    """K and V exactly as they were encoded; CodecError when the blobs are not what was encoded."""
    if hash64(block.k, block.v) != block.blob_hash:
        raise CodecError("encoded block does not match its hash")
    coder = block_codecs.load(block.codec)
    if isinstance(coder, block_codecs.KeyCodec):
        k = coder.decode_keys(block.k, block.shape, block.elem_bytes, block.rope)
    else:
        k = coder.decode(block.k, block.shape, block.elem_bytes)
    v = coder.decode(block.v, block.shape, block.elem_bytes)
    if block.raw_hash is not None and hash64(k.data, v.data) != block.raw_hash:
        raise CodecError("decoded block does not match the hash of its source")
    return k, v
