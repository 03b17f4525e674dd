"""When which tokens of a layer are encoded. All of it is pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from pytest_h2o.engine.config import LosslessSettings

PROBE_SPAN = 32


@dataclass(frozen=True, order=True, slots=True)
class Span:
    """Tokens [begin, begin + size) of a layer's cache."""

    begin: int
    size: int

    @property
    def end(self) -> int:
        """First token after the span."""
        return self.begin + self.size


def cold_region(tokens: int, settings: LosslessSettings) -> Span:
    """What lies between the hot sink and the hot recent tokens of a layer that holds ``tokens``."""
    begin = min(tokens, settings.hot_sink_tokens)
    return Span(begin, max(0, tokens - settings.hot_recent_tokens - begin))


@dataclass(frozen=True, slots=True)
class EncodeSchedule:
    """How far the encoding of one layer has come. ``watermark``: tokens before it are done or
    passed over.
    """

    updates: int = 0
    watermark: int = 0
    last: int = 0  # token of the last update

    def due_length(self, settings: LosslessSettings) -> int:
        """The least number of tokens at which a layer can have a next span; a cheap test before
        :meth:`next_span`.
        """
        sizes = _span_sizes(settings)
        growth = sizes.bootstrap
        if self.updates:
            growth = sizes.step - sizes.overlap
        cold_end = max(self.watermark + growth, settings.hot_sink_tokens + 1)
        return cold_end + settings.hot_recent_tokens

    def next_span(
        self, tokens: int, token: int, interval: int, settings: LosslessSettings
    ) -> tuple[Span, EncodeSchedule] | None:
        """The span to encode at decode token ``token`` of a layer holding ``tokens``, and the
        schedule after it.
        """
        cold = cold_region(tokens, settings)
        growth = cold.end - self.watermark
        sizes = _span_sizes(settings)
        if not cold.size:
            return None
        if not self.updates:
            if growth < sizes.bootstrap:
                return None
            return self._bootstrap(cold, token, sizes.bootstrap, settings)
        if token - self.last < interval or growth + sizes.overlap < sizes.step:
            return None
        begin = max(max(self.watermark, cold.begin) - sizes.overlap, cold.begin)
        span = Span(begin, min(sizes.step, cold.end - begin))
        return span, EncodeSchedule(self.updates + 1, span.end, token)

    def _bootstrap(
        self, cold: Span, token: int, size: int, settings: LosslessSettings
    ) -> tuple[Span, EncodeSchedule]:
        count = min(size, cold.size)
        if settings.runtime_mode == "probe":
            return Span(cold.begin, count), EncodeSchedule(1, cold.end, token)
        span = Span(max(cold.begin, cold.end - size), count)
        return span, EncodeSchedule(1, span.end, token)

    def compacted(self, tokens: int, settings: LosslessSettings) -> EncodeSchedule:
        """The schedule after an eviction left the layer with ``tokens``."""
        end = cold_region(tokens, settings).end
        if end >= self.watermark:
            return self
        return replace(self, watermark=end, last=0)


class _Sizes(NamedTuple):
    bootstrap: int
    step: int
    overlap: int


def _span_sizes(settings: LosslessSettings) -> _Sizes:
    block = settings.block_tokens
    if settings.runtime_mode == "probe":
        return _Sizes(bootstrap=min(block, PROBE_SPAN), step=block, overlap=0)
    if settings.runtime_mode == "full":
        return _Sizes(bootstrap=block, step=block, overlap=0)
    bootstrap, step = settings.store_bootstrap_tokens, settings.store_grouped_step_tokens
    if bootstrap <= 0:
        bootstrap = max(16, block // 2)
    if step <= 0:
        step = 3 * block
    return _Sizes(bootstrap, step, overlap=step // 8)


def layers_in_scope(layers: int, kept_layers: range, settings: LosslessSettings) -> list[int]:
    """Those of so many layers that the scope lets encode, in whatever mode and when."""
    found: list[int] = []
    for layer in range(layers):
        front = settings.front_scope and layer < settings.front_n
        if front or (settings.kept_scope and layer in kept_layers):
            found.append(layer)
    return found


def is_covered(layer: int, token: int, kept_layers: range, settings: LosslessSettings) -> bool:
    """Whether scope, mode and sampling let ``layer`` encode at decode token ``token``."""
    front = settings.front_scope and layer < settings.front_n
    kept = settings.kept_scope and layer in kept_layers
    if settings.runtime_mode == "probe":
        return (front and layer == 0) or (kept and layer == kept_layers.start)
    if settings.runtime_mode == "store" and settings.store_disable_front:
        front = False
    if front:
        return _sampled(token, settings.front_sample_token_interval)
    if kept and settings.runtime_mode == "full":
        sampled_layers = settings.kept_sample_layers or len(kept_layers)
        if layer - kept_layers.start >= sampled_layers:
            return False
        return _sampled(token, settings.kept_sample_token_interval)
    return kept


def _sampled(token: int, interval: int) -> bool:
    return interval <= 1 or (token - 1) % interval == 0


def joined(spans: Iterable[Span]) -> list[Span]:
    """The tokens of ``spans`` in as few spans as possible, in order."""
    pieces: list[Span] = []
    for span in sorted(spans):
        if pieces and span.begin <= pieces[-1].end:
            begin = pieces[-1].begin
            pieces[-1] = Span(begin, max(pieces[-1].end, span.end) - begin)
        else:
            pieces.append(span)
    return pieces


def covered_tokens(spans: Iterable[Span], within: Span) -> int:
    """Tokens of ``within`` that lie in at least one of ``spans``."""
    covered = 0
    for span in joined(spans):
        begin, end = max(span.begin, within.begin), min(span.end, within.end)
        covered += max(0, end - begin)
    return covered
