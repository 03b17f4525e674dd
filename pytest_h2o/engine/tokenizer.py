"""Text to token ids and back, with a SentencePiece model."""

from __future__ import annotations

from pathlib import Path

from pytest_h2o.engine.config import Architecture, ConfigError


class Tokenizer:
    """A SentencePiece model plus the BOS token that opens every prompt."""

    def __init__(self, path: Path, shape: Architecture) -> None:
        from sentencepiece import SentencePieceProcessor  # noqa: PLC0415 - only where text is read

        if not path.is_file():
            raise ConfigError(f"File not exist: {path}; check tokenizer_file and base_dir")
        try:
            self._pieces = SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f"{path}: not a SentencePiece model ({error}); check tokenizer_file"
            ) from None
        if len(self._pieces) > shape.vocab:
            raise ConfigError(
                f"{path}: {len(self._pieces)} pieces, but the model's vocab_size is {shape.vocab}"
            )
        self._bos = shape.bos

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, BOS first."""
        return [self._bos, *self._pieces.encode(text)]

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; a multi-byte character may take several tokens."""
        if token >= len(self._pieces) or self._pieces.is_control(token):
            return b""
        if self._pieces.is_byte(token):
            return bytes([int(self._pieces.id_to_piece(token)[3:5], 16)])
        return str(self._pieces.id_to_piece(token)).replace("▁", " ").encode()
