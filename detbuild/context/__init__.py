"""The user's directory: which of it goes into the image, as a value, and how it travels to the engine.

* `walk`: `read_context`, `snapshot`, `listing`
* `hashes`: `HashCache`, which spares unchanged files another reading
* `roots`: `check_shadowing`
* `snapshot`: `ContextSnapshot`, `Entry`, `file_snapshot`; `raw`, `text` and `shown` for their paths
* `archive`: `stream`; `content`: `open_entry`
"""
