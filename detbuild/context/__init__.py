"""The context directory: the files that go into the image, and how they are sent to the engine.

* `walk`: `read_context`, `snapshot`, `listing`
* `hashes`: `HashCache`, which avoids reading unchanged files again
* `roots`: `check_shadowing`
* `snapshot`: `ContextSnapshot`, `Entry`, `file_snapshot`; `raw`, `text` and `shown` for their paths
* `archive`: `stream`; `content`: `open_entry`
"""
