"""pytest plugin: acceptance gates for KV-cache compression in LLM runtimes."""
