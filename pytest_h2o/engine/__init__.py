"""The embedded runtime: a small Llama in numpy that evicts (H2O) and encodes KV as it decodes.

How a token flows::

    bench / demo          argv, rows, records               config        strict, typed settings
      generate.Engine     prefill, then sample and forward  tokenizer     SentencePiece
        model.Model       the forward pass; per layer:
          hook.after_prompt       evictor: the first scores, from what the prompt's last tokens
                                    attended to
          hook.before_attention   lossless_store: dropped raw values are restored from their blocks
          kv_cache.append         K and V rounded to fp16, keys after RoPE
          attention, MLP
          hook.after_attention    evictor: block scores; if it is the layer's turn, select, evict,
                                    compact
                                  lossless_store: the next cold span goes to the encode pool,
                                    finished blocks are checked and held, and in store mode their
                                    raw values are dropped
        response.Metrics  fresh for every response; printed by the two commands, kv_dump writes KV
                          for the evaluator

``evictor.select`` and ``encode_schedule.EncodeSchedule`` are the two decisions, and pure.
Everything random, timed or threaded is around them: ``block_coder`` (what workers run),
``held_blocks`` (what was encoded), ``encode_pool`` (workers, bounded queue), ``decode_cache``
(LRU), ``threads`` (prompt chunks side by side), ``yardstick`` (the fixed calculation that decoding
is timed against). ``policy_quality`` forces a text through policies.

To add an eviction policy, add one file to ``policies`` with an ``update`` function; its name is
then a value of ``kv_h2o_policy``. To add a codec, add one file to ``pytest_h2o.codec.block_codecs``
with ``encode`` and ``decode``; its name is then a value of ``kv_lossless_codec_runtime``. To watch
or change decoding in another way, write a ``model.Hook``.

Where it departs from the engine it mirrors: nothing outlives a response; each layer's update
interval counts decode tokens, and the layers' turns are spread over it; a plan is applied in the
step that makes it, and encoding sees the compacted cache; keep and lossy ratios are byte-weighted
sums over the H2O layers; scores are softmax mass per token, begin with the end of the prompt and
move with their tokens; ties break by position; fallbacks are always counted; queue peaks are depths
of the real queue; a span that finds the queue full is encoded later, not lost; an encoded block is
decoded and compared before it counts; encoding is waited for at the end of a response, not of each
token; blocks are identified by BLAKE2b; int8 KV is neither evicted nor encoded; in store mode raw
values stay dropped for as long as their block lives, and are restored only while their layer
attends; a bench decodes its whole budget, whatever the model says; settings that are unknown or
contradict each other are errors.
"""
