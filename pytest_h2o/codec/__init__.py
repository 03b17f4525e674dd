"""Lossless coding of KV values: byte planes, predictors, payload codecs and the two framings built
from them.

The offline evaluator and the embedded runtime share everything here. Arrays hold bit patterns
(``uint16`` for fp16, ``uint32`` for fp32), never floats, so NaN payloads and signed zeros survive.
"""


class CodecError(ValueError):
    """Encoded data is damaged, or the arguments of an encoder do not describe a tensor it can
    code.
    """


# Candidates of the byte planes of K and V, where no others are named.
K_PREDICTORS = ("raw", "delta_seq", "xor_seq", "pair_delta", "pair_delta_delta_seq")
V_PREDICTORS = ("raw", "delta_seq", "xor_seq")
ROW_CODECS = ("rope_row", "row_reference")
